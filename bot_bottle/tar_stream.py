"""A tar archive written as it goes, for many files: the plain header of POSIX.1-1988 (ustar), made at once.

``tarfile`` asks each member for a dozen fields and keeps it; for a hundred thousand small files that takes
longer than all the rest of copying them. What the plain header cannot say (a long name, a file of 8 GiB) is
written by ``tarfile`` all the same.
"""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

_BLOCK = 512
_END = b"\0" * (2 * _BLOCK)
#: Held back until so much is there; a file larger than ``_SMALL`` is sent by itself.
_FULL, _SMALL = 256 * 1024, 64 * 1024
_AT_ONCE = 64 * 1024 * 1024
_LONGEST = 100
_LARGEST, _LATEST = 8**11, 8**11
# name 100, mode 8, owner 8 + 8, size 12, mtime 12, | checksum 8, | type 1, link 100, magic 6 + version 2,
# names of the owner 32 + 32, device 8 + 8, prefix 155, and 12 to fill the block (pax(1), ustar).
_FIRST = b"%b%07o\x000000000\x000000000\x00%011o\x00%011o\x00"
_LAST = b"%b%bustar\x0000" + b"\0" * (32 + 32 + 8 + 8 + 155 + 12)
_SPACES = 8 * ord(" ")


class ChangedError(OSError):
    """A file became shorter while it was copied."""


class TarStream:
    """Writes members to ``sink``, an unseekable binary file; :meth:`finish` makes the archive whole.

    Every member belongs to root by number and has no set-id bit. Raises ``OSError`` where it cannot write.
    """

    def __init__(self, sink: BinaryIO) -> None:
        sink.flush()
        self._fd = sink.fileno()
        self._held = bytearray()
        self._room = bytearray(_FULL)

    def folder(self, name: bytes, mode: int = 0o755) -> None:
        """Add a folder."""
        self._held += _header(name, b"5", mode=mode)

    def link(self, name: bytes, target: bytes) -> None:
        """Add a symbolic link, whatever it leads to."""
        self._held += _header(name, b"2", mode=0o777, link=target)
        self._flush_full()

    def file(self, name: bytes, descriptor: int) -> int:
        """Add the plain file open as ``descriptor``, from where it stands; gives its size in bytes.

        Raises :class:`ChangedError` where it has become shorter meanwhile.
        """
        status = os.fstat(descriptor)
        mode, size, mtime = stat.S_IMODE(status.st_mode) & 0o755, status.st_size, int(status.st_mtime)
        if size > _SMALL:
            self._held += _header(name, b"0", mode=mode, size=size, mtime=mtime)
            self._copy(descriptor, size)
        else:
            data = os.read(descriptor, size)
            size = len(data)
            self._held += _header(name, b"0", mode=mode, size=size, mtime=mtime)
            self._held += data
            self._flush_full()
        self._held += b"\0" * (-size % _BLOCK)
        return size

    def finish(self) -> None:
        """Write what is held back and the archive's end."""
        self._held += _END
        self._flush()

    def _copy(self, descriptor: int, size: int) -> None:
        self._flush()
        while size:
            try:  # within the kernel: into a pipe, pages go as they are
                count = os.sendfile(self._fd, descriptor, None, min(size, _AT_ONCE))
            except OSError as error:
                if error.errno not in {errno.EINVAL, errno.ENOSYS}:
                    raise
                count = self._copy_here(descriptor, size)
            if not count:
                raise ChangedError("it became shorter while it was copied")
            size -= count

    def _copy_here(self, descriptor: int, size: int) -> int:
        """Copy a piece of a file that has no pages to send."""
        with memoryview(self._room) as room:
            count = os.readv(descriptor, [room[: min(size, len(room))]])
            self._write(room[:count])
        return count

    def _flush_full(self) -> None:
        if len(self._held) >= _FULL:
            self._flush()

    def _flush(self) -> None:
        with memoryview(self._held) as view:
            self._write(view)
        self._held.clear()

    def _write(self, data: memoryview) -> None:
        done = 0
        while done < len(data):
            done += os.write(self._fd, data[done:])


def _header(
    name: bytes, kind: bytes, *, mode: int, size: int = 0, mtime: int = 0, link: bytes = b""
) -> bytes:
    if len(name) > _LONGEST or len(link) > _LONGEST or size >= _LARGEST or not 0 <= mtime < _LATEST:
        return _by_tarfile(name, kind, mode=mode, size=size, mtime=mtime, link=link)
    first = _FIRST % (name.ljust(_LONGEST, b"\0"), mode, size, mtime)
    last = _LAST % (kind, link.ljust(_LONGEST, b"\0"))
    return first + b"%06o\0 " % (sum(first) + sum(last) + _SPACES) + last


def _by_tarfile(name: bytes, kind: bytes, *, mode: int, size: int, mtime: int, link: bytes) -> bytes:
    member = tarfile.TarInfo(os.fsdecode(name))
    member.type, member.mode, member.size, member.mtime = kind, mode, size, mtime
    member.linkname = os.fsdecode(link)
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
