"""What is packed in what is pushed: members of zip archives (jar, docx, wheel), and gzip, bzip2 and xz.

Content comes in pieces and is never held whole, so an archive is read from its front, member by member,
wherever in a file it begins, and archives in archives are read in turn. A zip's directory at its end is not
asked: what a member is said to be there, and is not, would be found neither by it. What cannot be opened (a
member under a password, another method) is judged as the bytes it is, like every other content.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.git_gate.scanning import Content

#: What is unfolded comes in pieces of at most this size.
PIECE = 64 * 1024
#: Archives in archives are read so deep, as the scanner reads layers of encoding.
_DEPTH = 3
#: How a stream begins: a zip's member, gzip, bzip2, xz.
_SIGN = re.compile(rb"PK\x03\x04|\x1f\x8b\x08|BZh[1-9]1AY&SY|\xfd7zXZ\x00")
_ZIP, _GZIP, _BZIP = b"P", b"\x1f", b"B"
_LONGEST_SIGN = 10
_ZIP_HEADER, _DEFLATED = 30, 8
_XZ_MEMORY = 128 << 20
#: In one file, beginnings with nothing behind them; chance makes one in sixteen megabytes.
_MOST_FAILED = 4096
_ERRORS = (zlib.error, lzma.LZMAError, OSError, EOFError)


class SignsError(Exception):
    """A file is full of what only looks like the beginnings of archives."""


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One thing that is packed in another; ``contents`` are whoever judges it, made by the caller."""

    name: str
    contents: list[Content] = field(default_factory=list)


class _Stream(Protocol):
    """A compressed stream; ``rest`` is what comes behind its end, None while it has not come."""

    rest: bytes | None

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Give what ``data`` unfolds to, in pieces; raises one of ``_ERRORS``."""
        ...


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._unfold = zlib.decompressobj(wbits)
        self.rest: bytes | None = None

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        while True:
            piece = self._unfold.decompress(data, PIECE)
            data = self._unfold.unconsumed_tail
            if piece:
                yield piece
            if self._unfold.eof:
                self.rest = self._unfold.unused_data
                return
            if not data and len(piece) < PIECE:
                return


class _Other:
    def __init__(self, unfold: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._unfold = unfold
        self.rest: bytes | None = None

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        while True:
            piece = self._unfold.decompress(data, PIECE)
            data = b""
            if piece:
                yield piece
            if self._unfold.eof:
                self.rest = self._unfold.unused_data
                return
            if self._unfold.needs_input:
                return


class Unfolder:
    """Reads one file's content; ``opened`` counts what was taken for a packed stream so far."""

    def __init__(self, name: str, *, depth: int = _DEPTH) -> None:
        """``name`` is the file's, from which that of a lone packed file is made."""
        self._name, self._depth = name, depth
        self._held = b""
        self._stream: _Stream | None = None
        self._member = Member(name="")
        self._inner: Unfolder | None = None
        self._opened = self._failed = 0

    @property
    def opened(self) -> int:
        """How many streams were begun, those inside others included."""
        return self._opened + (self._inner.opened if self._inner else 0)

    def feed(self, piece: bytes) -> Iterator[tuple[Member, bytes]]:
        """Give what the next piece of the file unfolds to, piece by piece, each with what it is a part of.

        Raises :class:`SignsError`.
        """
        data = self._held + piece
        self._held = b""
        view, at = memoryview(data), 0
        while at < len(data):
            if self._stream is None:
                at = self._seek(data, at)
                continue
            try:
                for unfolded in self._stream.feed(view[at:]):
                    yield self._member, unfolded
                    if self._inner is not None:
                        yield from self._inner.feed(unfolded)
            except _ERRORS:
                self._end()
                self._failed += 1
                if self._failed > _MOST_FAILED:
                    raise SignsError from None
                at += 1
                continue
            if self._stream.rest is None:
                return
            at = len(data) - len(self._stream.rest)
            self._end()

    def _seek(self, data: bytes, at: int) -> int:
        """Begin the next stream from ``at`` on and give where its data are; holds back half a header."""
        while (sign := _SIGN.search(data, at)) is not None:
            start = sign.start()
            if data[start : start + 1] != _ZIP:
                self._begin(_stream_of(data[start : start + 1]), "")
                return start
            header = data[start : start + _ZIP_HEADER]
            name_length = int.from_bytes(header[26:28], "little")
            length = _ZIP_HEADER + name_length + int.from_bytes(header[28:30], "little")
            if len(header) < _ZIP_HEADER or len(data) < start + length:
                self._held = data[start:]
                return len(data)
            encrypted, method = header[6] & 1, int.from_bytes(header[8:10], "little")
            if method == _DEFLATED and not encrypted:
                name = data[start + _ZIP_HEADER : start + _ZIP_HEADER + name_length]
                self._begin(_Zlib(-zlib.MAX_WBITS), name.decode("utf-8", "replace"))
                return start + length
            at = sign.end()  # what is stored as it is may hold a stream itself
        self._held = data[max(at, len(data) - _LONGEST_SIGN + 1) :]
        return len(data)

    def _begin(self, stream: _Stream, name: str) -> None:
        self._opened += 1
        self._stream = stream
        inside = name or self._name.rpartition("/")[2].rpartition(".")[0] or "unpacked"
        self._member = Member(name=inside)
        if self._depth > 1:
            self._inner = Unfolder(inside, depth=self._depth - 1)

    def _end(self) -> None:
        if self._inner is not None:
            self._opened += self._inner.opened
        self._stream = self._inner = None


def _stream_of(sign: bytes) -> _Stream:
    if sign == _GZIP:
        return _Zlib(zlib.MAX_WBITS | 16)
    if sign == _BZIP:
        return _Other(bz2.BZ2Decompressor())
    return _Other(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
