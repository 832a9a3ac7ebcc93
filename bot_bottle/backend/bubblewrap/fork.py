"""Forking: for children that set up namespaces themselves and then exec or exit at once."""

from __future__ import annotations

import contextlib
import os
import warnings


def fork_quietly() -> int:
    """Fork; the child must end by ``execve`` or ``os._exit`` and may not take locks or start threads.

    Python 3.12 and later warn when other threads exist; the children made here touch none of their state.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def reap(pid: int) -> int:
    """Wait for a child and give its exit code, negative for a signal; 0 where it was reaped already."""
    with contextlib.suppress(ChildProcessError):
        _pid, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    return 0
