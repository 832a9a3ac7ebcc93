"""A launch that lets go of its terminal: what was called waits in front until the bottle is up, then ends.

The work is done by a child of it from the first moment on, questions included, so that nothing that was begun
has to be carried over a fork: no thread, no connection, no process that ends with its parent. Once the
operator has said yes, that child stands in a session of its own, which no terminal can hang up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.files import PRIVATE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

#: What the launcher itself says once nobody hears it any more, in the state folder.
LOG = "launcher.log"

#: What the terminal sends to all in front of it, and so to both until the child has left.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_PASSED_ON = (*_FROM_TERMINAL, signal.SIGTERM)
_MAX_REPORT = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Waited:
    """What became of the launch: ``report`` is what it told once it was up, None where it did not come up.

    ``exit_code`` is then the child's own, which has said why.
    """

    report: dict[str, str] | None
    exit_code: int = 0


class Background:
    """The child's side: the launch itself."""

    def __init__(self, report: int) -> None:
        self._report = report

    def leave(self) -> None:
        """Leave the terminal's session: from now on its keys and its end are the one's in front."""
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.close(null)

    def up(self, state_dir: Path, report: dict[str, str]) -> None:
        """Tell the one in front that all is well, and let go of its streams. Safe to call again."""
        if self._report < 0:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(state_dir / LOG, flags, PRIVATE_FILE)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.flush()
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        with contextlib.suppress(OSError):  # whoever was in front has gone: the bottle is up all the same
            os.write(self._report, json.dumps(report).encode())
        os.close(self._report)
        self._report = -1


def split() -> Background | Waited:
    """Go on as two: the child gets :class:`Background` and goes on, the parent what became of it.

    To be called while there is nothing yet but this one thread.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    # Until there is somebody to pass them on to, signals wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read_end)
        return Background(write_end)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as report, _passing_on(child):
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        told = report.read(_MAX_REPORT)
        if told:
            return Waited(report=json.loads(told))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Waited(report=None, exit_code=code if code >= 0 else 128 - code)


@contextlib.contextmanager
def _passing_on(child: int) -> Iterator[None]:
    """Give signals to the child, unless the terminal has done so; this process ends after it."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGTERM or os.getsid(child) != os.getsid(0):
                os.kill(child, number)

    before = {number: signal.getsignal(number) for number in _PASSED_ON}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        for number in taken:
            signal.signal(number, pass_on)
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
