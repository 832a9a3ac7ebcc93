"""What a detached agent wrote: the end of it at hand for who attaches, more of it in the state folder."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from bot_bottle.files import PRIVATE_FILE

if TYPE_CHECKING:
    from pathlib import Path

#: The two files; together they hold the last 4 to 8 MiB.
CURRENT, OLDER = "output", "output.old"
_FILE_BYTES = 4 << 20
#: What is shown again on attaching, in bytes: many screens of text, or of drawing.
_RECENT_BYTES = 256 << 10


class KeptOutput:
    """Takes in output for ever in bounded room. A disk that is full costs the file's part, not the agent."""

    def __init__(
        self, folder: Path, *, file_bytes: int = _FILE_BYTES, recent_bytes: int = _RECENT_BYTES
    ) -> None:
        """Begin anew in ``folder``, which is private; what an earlier session wrote there is removed."""
        self._folder = folder
        self._file_bytes = file_bytes
        self._recent_bytes = recent_bytes
        self._recent = bytearray()
        self._cut = False
        self._written = 0
        (folder / OLDER).unlink(missing_ok=True)
        self._file = self._open()

    def append(self, data: bytes) -> None:
        """Take in what the agent wrote."""
        self._recent += data
        if len(self._recent) > 2 * self._recent_bytes:
            del self._recent[: -self._recent_bytes]
            self._cut = True
        with contextlib.suppress(OSError):
            if self._written > self._file_bytes:
                self._turn_over()
            if self._file >= 0:
                self._written += os.write(self._file, data)

    def recent(self) -> bytes:
        """Give the end of it. Where it does not begin with the first byte, it begins with a line."""
        if not self._cut and len(self._recent) <= self._recent_bytes:
            return bytes(self._recent)
        tail = bytes(self._recent[-self._recent_bytes :])
        # Not in the middle of a character or of an escape sequence, if there are lines at all.
        return tail[tail.find(b"\n") + 1 :]

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _turn_over(self) -> None:
        self.close()
        (self._folder / CURRENT).replace(self._folder / OLDER)
        self._file = self._open()

    def _open(self) -> int:
        self._written = 0
        place = self._folder / CURRENT
        place.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return os.open(place, flags, PRIVATE_FILE)
