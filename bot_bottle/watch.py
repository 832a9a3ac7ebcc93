"""What changes in folders, heard of from the kernel (inotify(7)): nobody has to look again and again."""

from __future__ import annotations

import ctypes
import os
import struct
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# <sys/inotify.h>
MODIFY = 0x2
CLOSE_WRITE = 0x8
MOVED_FROM = 0x40
MOVED_TO = 0x80
CREATE = 0x100
DELETE = 0x200
_OVERFLOW = 0x4000
_IGNORED = 0x8000
_ONLYDIR = 0x01000000
_DONT_FOLLOW = 0x02000000

_HEAD = struct.Struct("iIII")
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that became of ``name`` in ``folder``; ``what`` is one or more of this module's numbers.

    With an empty ``folder`` changes were lost, and everything is to be looked at.
    """

    folder: str = ""
    name: str = ""
    what: int = 0

    @property
    def is_lost(self) -> bool:
        """Tell whether changes were lost."""
        return not self.folder


class Watch:
    """Watches folders, each for itself and not what lies below; a context manager."""

    def __init__(self) -> None:
        """Raises ``OSError`` where this user has as many watches as there may be."""
        self._fd = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
        self._folders: dict[int, str] = {}

    def add(self, folder: Path, what: int) -> bool:
        """Hear of ``what`` in ``folder``; False where it is not there (any more).

        Raises ``OSError`` where it cannot be watched.
        """
        number = _libc().inotify_add_watch(
            self._fd, os.fsencode(folder), ctypes.c_uint32(what | _ONLYDIR | _DONT_FOLLOW)
        )
        if number < 0 and ctypes.get_errno() in _GONE:
            return False
        self._folders[_checked(number, str(folder))] = str(folder)
        return True

    def fileno(self) -> int:
        """Give the descriptor, which can be read once something has changed."""
        return self._fd

    def read(self) -> Iterator[Change]:
        """Give what has changed since the last time; waits for nothing."""
        while True:
            try:
                data = os.read(self._fd, _PIECE)
            except BlockingIOError:
                return
            yield from self._changes(data)

    def _changes(self, data: bytes) -> Iterator[Change]:
        at = 0
        while at < len(data):
            number, what, _cookie, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            name = data[at : at + length].rstrip(b"\0")
            at += length
            if what & _OVERFLOW:
                yield Change()
            elif what & _IGNORED:
                self._folders.pop(number, None)
            elif folder := self._folders.get(number):
                yield Change(folder=folder, name=os.fsdecode(name), what=what)

    def close(self) -> None:
        """Let go; safe to call again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


_GONE = frozenset({2, 20})  # ENOENT, ENOTDIR


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
