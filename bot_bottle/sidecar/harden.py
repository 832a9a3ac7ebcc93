"""What a sidecar does to itself before it reads a single secret (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_WANTED_FILES = 8192
_COLLECT_AFTER = 10_000


def harden(launcher_pid: int) -> None:
    """Die with the launcher, never dump core, let no process of this user look in; Ctrl-C is the agent's.

    Exits with code 4 where the launcher is gone already, since nobody would end this process then.
    Raises ``OSError`` where the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    prctl(libc, _PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != launcher_pid:
        raise SystemExit(4)
    conceal(libc)
    ignore_keys()


def ignore_keys() -> None:
    """Leave Ctrl-C and the terminal's hang-up to the launcher, who ends this process in an orderly way."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def conceal(libc: ctypes.CDLL | None = None) -> None:
    """Let no process of this user look in, write no core, and take as many descriptors as are allowed."""
    # Not dumpable: no core, no ptrace, and /proc/PID/{environ,mem,fd} belong to root (prctl(2)).
    prctl(libc or ctypes.CDLL(None, use_errno=True), _PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def suspend_collector() -> None:
    """Look for no garbage while the sidecar loads: all that is loaded stays."""
    gc.disable()


def spare_collector() -> None:
    """Look for garbage from now on, but seldom: requests leave no cycles, and what was loaded stays."""
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    gc.enable()


def prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    """Set one thing of this process (prctl(2)); raises ``OSError`` where the kernel refuses."""
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")
