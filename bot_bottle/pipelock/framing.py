"""The frames around compressed content of a request, read strictly: what stands in them leaves as well.

Who only unpacks a body judges its content and passes on what lies beside it: names and comments in a header,
skipped frames, bytes behind the end. So a request's body is one stream that holds nothing but its content;
the one thing ordinary programs add, the name of the file, is given to be judged (``aside``).
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from typing import Protocol

from bot_bottle.pipelock.unpack import (
    BombError,
    Brotli,
    FramingError,
    OpaqueError,
    Unpacker,
    Zlib,
    Zstd,
    brotli_ends_within,
    codings_of,
    unpacker,
)

_GZIP = b"\x1f\x8b\x08"
_FNAME = 8
_LONGEST_NAME = 1024
#: What writers say of their effort (XFL) and their system (OS): RFC 1952, 2.3.1.
_EFFORTS = frozenset((0, 2, 4))
_SYSTEMS = frozenset((*range(14), 255))
#: So much of a brotli stream is kept to find its end where the library failed.
_MOST_KEPT = 64 * 1024
_ZSTD = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # behind a byte 0x50 to 0x5f: RFC 8878, 3.1.2
_ZSTD_DICTIONARY_OR_SPARE = 0x1B


class Framed(Unpacker, Protocol):
    """Unpacks one stream; :class:`FramingError` where it holds more than its content."""

    @property
    def aside(self) -> bytes:
        """What of the frame its writer could choose; whole before any content is given."""


def framed(encoding: str) -> Framed | None:
    """Give what undoes a request's ``Content-Encoding``, ``None`` for none; raises :class:`OpaqueError`.

    Codings over each other are refused: what stands in the frame of the inner one could not be judged.
    """
    codings = codings_of(encoding)
    if not codings:
        return None
    if len(codings) > 1 and unpacker(encoding) is not None:
        raise FramingError("the content is encoded more than once")
    coding = codings[0]
    if coding in {"gzip", "x-gzip"}:
        return _Gzip()
    if coding == "deflate":
        return _Deflate()
    if coding == "br":
        return _WholeBrotli()
    if coding == "zstd":
        return _OneZstd()
    raise OpaqueError("the content's encoding is not known")


class _Headed(ABC):
    """Holds a stream's first bytes back until its header is read, and goes on with ``inner``."""

    __slots__ = ("_begun", "_head", "_inner", "aside")

    def __init__(self, inner: Unpacker) -> None:
        self._inner = inner
        self._head = b""
        self._begun = False
        self.aside = b""

    def feed(self, data: bytes) -> bytes:
        if not self._begun:
            self._head += data
            if not self._read(self._head):
                return b""
            data, self._begun = self._head, True
        return self._inner.feed(data)

    def finish(self) -> bytes:
        if self._head and not self._begun:
            raise OpaqueError("the compressed content is cut short")
        return self._inner.finish()

    @abstractmethod
    def _read(self, head: bytes) -> bool:
        """Judge the header as far as it is there; tells whether it is there whole."""


class _Gzip(_Headed):
    """One member (RFC 1952) with no more in its header than a file's name and its time."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Zlib(16 + zlib.MAX_WBITS))

    def _read(self, head: bytes) -> bool:
        if not _GZIP.startswith(head[:3]) and not head.startswith(_GZIP):
            raise OpaqueError("the compressed content is broken")
        if len(head) < 10:
            return False
        if head[3] & ~_FNAME or head[8] not in _EFFORTS or head[9] not in _SYSTEMS:
            raise FramingError("the header of the gzip content holds more than a file's name")
        end = 10
        if head[3]:
            end = head.find(b"\0", 10)
            if (end < 0 and len(head) > 10 + _LONGEST_NAME) or end > 10 + _LONGEST_NAME:
                raise FramingError("the file's name in the gzip content is too long")
            if end < 0:
                return False
        self.aside = head[4:8] + b"\0" + head[10:end]
        return True


class _Deflate(_Headed):
    """zlib (RFC 1950) without a preset dictionary, or deflate without its header."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Zlib(zlib.MAX_WBITS, guess=True))

    def _read(self, head: bytes) -> bool:
        if not head or (head[0] & 0x0F) != 8:
            return bool(head)
        if len(head) > 1 and head[1] & 0x20:
            raise FramingError("the compressed content wants a dictionary")
        return len(head) > 1


class _OneZstd(_Headed):
    """One frame (RFC 8878) without a dictionary."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Zstd(frames=False))

    def _read(self, head: bytes) -> bool:
        if head[1:4] == _SKIPPABLE and head[0] & 0xF0 == 0x50:
            raise FramingError("the zstd content begins with a frame that readers skip")
        if len(head) < 5:
            return False
        if head.startswith(_ZSTD) and head[4] & _ZSTD_DICTIONARY_OR_SPARE:
            raise FramingError("the zstd content wants a dictionary, or sets a bit that means nothing")
        return True


class _WholeBrotli(Brotli):
    """Brotli (RFC 7932). Its metadata cannot be told from here; it stands in the coded bytes as it is."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        super().__init__()
        self._kept = bytearray()

    @property
    def aside(self) -> bytes:
        return b""

    def feed(self, data: bytes) -> bytes:
        """Unpack ``data``; :class:`FramingError` also where only its first part is the stream."""
        if len(self._kept) <= _MOST_KEPT:
            self._kept += data
        try:
            return super().feed(data)
        except (BombError, FramingError):
            raise
        except OpaqueError as error:
            # The library says of both that it failed. What is too much to be tried again counts as the worse.
            if len(self._kept) > _MOST_KEPT or brotli_ends_within(bytes(self._kept)):
                raise FramingError("something stands behind the compressed content") from error
            raise
