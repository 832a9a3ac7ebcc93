"""Holding a bottle's machine still from outside, and letting it go on.

The engine's own pause writes the whole memory to disk and ends the machine, and every command in it. Its
monitor is one process below the launcher: a monitor that is stopped runs no processor and passes nothing on.
Nothing of the engine is asked for it, which would take the environment of this whole process for a while.
"""

from __future__ import annotations

import contextlib
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import process

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The word by which the engine's program becomes a machine's monitor.
_MONITOR = b"_boot-vm"
#: A processor is taken out of the machine at once; with more to do than there are processors, later.
_SECONDS = 5.0
_AGAIN_SECONDS = 0.005
_STOPPED = frozenset("TtZX")


def freeze(launcher: int) -> bool:
    """Stop the machine that ``launcher`` holds; False where it has none, or not all of it stopped."""
    found = tuple(_monitors(launcher))
    for pid in found:
        process.signal_while(pid, signal.SIGSTOP, _is_monitor)
    deadline = time.monotonic() + _SECONDS
    while not all(is_stopped(pid) for pid in found):
        if time.monotonic() > deadline:
            return False
        time.sleep(_AGAIN_SECONDS)
    return bool(found)


def thaw(launcher: int) -> None:
    """Let the machine that ``launcher`` holds go on; no error where nothing is held still."""
    for pid in _monitors(launcher):
        process.signal_while(pid, signal.SIGCONT, _is_monitor)


def is_frozen(launcher: int) -> bool:
    """Tell whether the machine that ``launcher`` holds is held still."""
    found = tuple(_monitors(launcher))
    return bool(found) and all(is_stopped(pid) for pid in found)


def is_stopped(pid: int) -> bool:
    """Tell whether every thread of a process is stopped, or gone (proc(5), "stat")."""
    states: list[str] = []
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(OSError):
            # A thread's name stands in brackets before its state, and may hold anything.
            states.append(task.read_text("ascii", "replace").rpartition(")")[2].split()[0])
    return _STOPPED.issuperset(states)


def _monitors(launcher: int) -> Iterator[int]:
    for children in Path(f"/proc/{launcher}/task").glob("*/children"):
        with contextlib.suppress(OSError, ValueError):
            yield from (pid for pid in map(int, children.read_text("ascii").split()) if _is_monitor(pid))


def _is_monitor(pid: int) -> bool:
    try:
        return _MONITOR in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
