"""What the operator is told while a workspace is made: what stays out, and how far a large one has come."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from bot_bottle.bottle_state import printable

if TYPE_CHECKING:
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
        print(f"bot-bottle: {printable(line)}", file=sys.stderr)
    sys.stderr.flush()


class CopyProgress:
    """Counts files on their way and says every few seconds how far it is; small copies pass in silence."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._done = self._bytes = 0
        self._next = time.monotonic() + _EVERY_SECONDS

    def count(self, size: int) -> None:
        """Take one more file of ``size`` bytes."""
        self._done += 1
        self._bytes += size
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY_SECONDS
            words = f"copying: {self._done:,} of {self._files:,} files, {self._bytes / 1e6:,.0f} MB"
            print(f"bot-bottle: {words}", file=sys.stderr, flush=True)
