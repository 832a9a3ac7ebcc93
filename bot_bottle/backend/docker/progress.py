"""Saying on stderr how far a build is: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import shutil
import sys
from collections import deque
from typing import TYPE_CHECKING, TextIO

from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How much of a build's output is shown when it fails.
_TAIL = 20
#: A step may be a whole script; its beginning says which one it is.
_NOTE = 100
#: Colours and the like (ECMA-48, control sequences): the engine itself marks standard error with them.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_CLEAR = "\r\x1b[K"


class Progress:
    """One build's progress. ``step`` begins a stage, ``detail`` is what happens in it, ``done`` ends it all.

    ``stream`` None says nothing at all, save what a failure must show.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._live = stream is not None and stream.isatty()
        self._step = ""
        self._tail: deque[str] = deque(maxlen=_TAIL)

    @property
    def last(self) -> str:
        """Give the last thing that was said of this stage; empty if nothing was."""
        return self._tail[-1] if self._tail else ""

    def step(self, text: str) -> None:
        """Begin a stage."""
        self._step = legible(text)
        self._tail.clear()
        self._show(self._step)

    def detail(self, text: str) -> None:
        """Say what happens now; on a terminal it replaces the line before, elsewhere it is kept back."""
        for line in text.splitlines():
            clean = legible(_CONTROL.sub("", line).replace("\t", " ")).strip()
            if clean:
                self._tail.append(clean)
                if self._live:
                    self._show(f"{self._step}: {clean}")

    def note(self, text: str) -> None:
        """Say what happens now, and on no terminal keep it as a line of its own."""
        clean = legible(text)
        self._tail.append(clean)
        if self._live:
            self._show(f"{self._step}: {clean}")
        else:
            self._print(clean if len(clean) <= _NOTE else f"{clean[: _NOTE - 1]}…")

    def done(self, text: str) -> None:
        """Say that all is made."""
        self._tail.clear()
        self._end_line()
        self._print(legible(text))

    def close(self) -> None:
        """Leave the terminal's line empty; safe to call again."""
        self._end_line()

    def show_tail(self) -> str:
        """Write the last lines of what happened to stderr and give the very last one."""
        self._end_line()
        _write(sys.stderr if self._stream is None else self._stream, (f"  | {line}" for line in self._tail))
        return self.last

    def _show(self, line: str) -> None:
        if self._stream is None:
            return
        if not self._live:
            self._print(line)
            return
        width = max(20, shutil.get_terminal_size().columns - 1)
        self._stream.write(f"{_CLEAR}bot-bottle: {line}"[: width + len(_CLEAR)])
        self._stream.flush()

    def _print(self, line: str) -> None:
        if self._stream is not None:
            _write(self._stream, [f"bot-bottle: {line}"])

    def _end_line(self) -> None:
        if self._live and self._stream is not None:
            self._stream.write(_CLEAR)
            self._stream.flush()


def _write(stream: TextIO, lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=stream)
    stream.flush()
