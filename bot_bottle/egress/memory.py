"""Memory that is free inside this process, handed back to the system."""

from __future__ import annotations

import contextlib
import ctypes
from functools import lru_cache


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
