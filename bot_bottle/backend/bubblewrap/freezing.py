"""Holding all of a bottle's processes still, from outside, and letting them go on.

By signals, since a control group of the bottle's own is not there on every machine. A process of the bottle
is a descendant of the launcher in a PID namespace further in. PID 1 there is our own (``init.py``) and goes
on: it starts nothing by itself, and has to hear that its launcher has ended.
"""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import process

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is stopped makes no more processes, so each look finds fewer new ones; a storm of forks may win.
_LOOKS = 50
_STOPPED = frozenset("TtZX")
_OURS = "1"


def freeze(launcher: int) -> bool:
    """Stop every process of the launcher's bottle; False where there is none, or not all could be stopped."""
    found = False
    for _ in range(_LOOKS):
        inside = {pid: state for pid in _descendants(launcher) if (state := _state_inside(pid))}
        found = found or bool(inside)
        running = [
            pid for pid, (number, state) in inside.items() if number != _OURS and state not in _STOPPED
        ]
        if not running:
            return found
        for pid in running:
            process.signal_while(pid, signal.SIGSTOP, _state_inside)
    return False


def thaw(launcher: int) -> None:
    """Let every process of the launcher's bottle go on."""
    for pid in _descendants(launcher):
        process.signal_while(pid, signal.SIGCONT, _state_inside)


def _descendants(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        with contextlib.suppress(OSError, ValueError):
            for children in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
                for child in map(int, children.read_text("ascii").split()):
                    yield child
                    waiting.append(child)


def _state_inside(pid: int) -> tuple[str, str] | None:
    """Give a process's number in a namespace further in, and its state (proc(5)); None outside of any."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return None
    numbers = text.partition("\nNSpid:")[2].partition("\n")[0].split()
    return (numbers[-1], text.partition("\nState:")[2].strip()[:1]) if len(numbers) > 1 else None
