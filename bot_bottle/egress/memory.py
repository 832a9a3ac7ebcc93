"""Memory that is free inside this process, handed back to the system."""

from __future__ import annotations

import contextlib
import ctypes
from functools import lru_cache

#: mallopt(3): how many pools malloc has; by default eight a processor, one for each thread that asks first.
_M_ARENA_MAX = -8


def share_one_pool() -> None:
    """Let all threads take memory from one pool, before there is a second thread.

    What a thread that loads something took for a moment is then there for the loop, which does nearly all.
    """
    with contextlib.suppress(AttributeError, OSError):  # a C library without it has no such pools
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Hand back what was needed for a moment (malloc_trim(3)); takes milliseconds, so not under way."""
    trim = _trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> ctypes._NamedFuncPointer | None:
    with contextlib.suppress(AttributeError, OSError):  # a C library without it keeps them
        return ctypes.CDLL(None).malloc_trim
    return None
