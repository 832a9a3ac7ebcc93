"""What the operator is told while a workspace is made: what stays out, and how far a large one has come."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.workspace import WorkspaceSource

_EVERY_SECONDS = 3.0
_MOST_LINES = 20


def tell_left_out(source: WorkspaceSource) -> None:
    """Say on stderr what is not copied, and which files of the history look like credentials."""
    lines = [f"left out of the copy: {line}" for line in source.left_out[:_MOST_LINES]]
    if len(source.left_out) > _MOST_LINES:
        lines.append(f"left out of the copy: and {len(source.left_out) - _MOST_LINES} more")
    if source.suspects:
        named = ", ".join(source.suspects[:_MOST_LINES])
        lines.append(
            f"warning: git tracks what looks like credentials, so the bottle gets it: {named}; "
            "take it out of the history, and change it where it is known"
        )
    for line in lines:
        print(f"bot-bottle: {legible(line)}", file=sys.stderr)
    sys.stderr.flush()


class CopyProgress:
    """Says every few seconds how far a copy is, on a terminal alone; small ones pass in silence."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._files = self._done = self._bytes = 0
        self._began = time.monotonic()
        self._next = self._began + _EVERY_SECONDS

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Tell for as long as the body runs that what is to be copied is being gathered."""
        done = threading.Event()

        def tell() -> None:
            while not done.wait(_EVERY_SECONDS):
                self._say(f"gathering files and history, {time.monotonic() - self._began:.0f} s so far")

        teller = threading.Thread(target=tell, name="bot-bottle-progress", daemon=True)
        if self._shown:
            teller.start()
        try:
            yield
        finally:
            done.set()
            if self._shown:
                teller.join()

    def begin(self, files: int) -> None:
        """Say how many files there will be."""
        self._files = files
        self._next = time.monotonic() + _EVERY_SECONDS

    def count(self, size: int) -> None:
        """Take one more file of ``size`` bytes."""
        self._done += 1
        self._bytes += size
        if self._shown and (now := time.monotonic()) >= self._next:
            self._next = now + _EVERY_SECONDS
            self._say(f"{self._done:,} of {self._files:,} files, {self._bytes / 1e6:,.0f} MB")

    def _say(self, words: str) -> None:
        print(f"bot-bottle: copying: {words}", file=sys.stderr, flush=True)
