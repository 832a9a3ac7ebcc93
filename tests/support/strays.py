"""End what a test left running: every process that still lives in this process's network namespace.

A detached launcher belongs to nobody's tree of processes, and a test that failed has not ended it; but it
lives in the world it was started in, and nothing else does.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

#: How long a process may take to end in order, and how long one that is killed, in seconds.
_ORDERLY_SECONDS, _KILLED_SECONDS = 20.0, 10.0


def end_strays(host: str) -> list[str]:
    """End them, at first as a launcher is told to end; gives what they were.

    ``host`` is the namespace that this process came from, as :func:`namespace_of` gives it: to be in it still
    would be to end what is not ours.
    """
    own = namespace_of(os.getpid())
    if own == host:
        raise RuntimeError("this process is in no network namespace of its own")
    found = _open_all(own)
    told = [name for name, _ in found.values()]
    handles = [handle for _, handle in found.values()]
    try:
        for number, seconds in ((signal.SIGTERM, _ORDERLY_SECONDS), (signal.SIGKILL, _KILLED_SECONDS)):
            for handle in handles:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handle, number)
            handles = _wait(handles, seconds)
    finally:
        for _, handle in found.values():
            os.close(handle)
    return told


def namespace_of(pid: int) -> str:
    """Name a process's network namespace; empty where that may not be seen."""
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return ""


def _open_all(namespace: str) -> dict[int, tuple[str, int]]:
    """Hold every other process in ``namespace``, so that its number cannot become another one's."""
    found: dict[int, tuple[str, int]] = {}
    for pid in (int(place.name) for place in Path("/proc").iterdir() if place.name.isdigit()):
        if pid == os.getpid() or namespace_of(pid) != namespace:
            continue
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
            # An empty command line is that of one that has ended and waits for its parent to ask.
            if words and namespace_of(pid) == namespace:
                found[pid] = words.decode(errors="replace").strip()[:200], handle
            else:
                os.close(handle)
    return found


def _wait(handles: list[int], seconds: float) -> list[int]:
    """Wait until they have ended; gives those that have not."""
    deadline = time.monotonic() + seconds
    left = []
    for handle in handles:
        if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
            left.append(handle)
    return left


def say(strays: list[str]) -> None:
    """Say what was ended, so that whoever wrote the test hears of it."""
    for words in strays:
        sys.stderr.write(f"ended with the scripted world: {words}\n")
