"""Compressed content, opened step by step within a bound: gzip, zlib, raw deflate, Brotli and Zstandard."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import zstandard

#: How much larger than its compressed form content may be; text compresses to about a tenth.
MAX_RATIO = 200
#: What small content may always grow to.
FREE_BYTES = 1024 * 1024

_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
#: What begins a stream that names itself wherever it stands.
PACK_MARKS = (_GZIP, _ZSTD)
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")


class OpaqueError(Exception):
    """The content cannot be read: its coding is unknown or broken, or it grows beyond all bounds."""


class BombError(OpaqueError):
    """The content grows beyond all bounds."""


class FramingError(OpaqueError):
    """Beside the content stands what no reader of it sees, or what only some do."""


class Unpacker(Protocol):
    """Gives the plain content of a compressed stream, piece by piece."""

    def feed(self, data: bytes) -> bytes:
        """Unpack ``data``; raises :class:`OpaqueError`."""

    def finish(self) -> bytes:
        """Give what is left at the end; raises :class:`OpaqueError` where the stream is cut short."""


class _Bounded:
    """Counts both sides of a stream and refuses a bomb before it is held in memory."""

    __slots__ = ("_given", "_taken")

    def __init__(self) -> None:
        self._taken = self._given = 0

    def _take(self, data: bytes) -> int:
        """Note the input; give how many bytes may come out of it."""
        self._taken += len(data)
        return max(FREE_BYTES, MAX_RATIO * self._taken) - self._given + 1

    def _give(self, data: bytes, room: int) -> bytes:
        self._given += len(data)
        if len(data) >= room:
            raise BombError("the content unpacks to more than it may")
        return data


class Zlib(_Bounded):
    """gzip, zlib or raw deflate (RFC 1950-1952), the first also of several members."""

    __slots__ = ("_begun", "_engine", "_guess", "_members", "_wbits")

    def __init__(self, wbits: int, *, members: bool = False, guess: bool = False) -> None:
        super().__init__()
        self._wbits = wbits
        self._members = members
        self._guess = guess
        self._engine = zlib.decompressobj(wbits)
        self._begun = False

    @property
    def ended(self) -> bool:
        """Whether the stream's own end was reached."""
        return self._engine.eof

    def feed(self, data: bytes, *, alone: bool = False) -> bytes:
        """Unpack ``data``; with ``alone`` what stands behind the end is left."""
        room = self._take(data)
        if self._guess and data:
            # RFC 9110, 8.4.1.2: "deflate" means zlib, but some senders leave its header out.
            self._guess = False
            if (data[0] & 0x0F) != 8:
                self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        parts: list[bytes] = []
        while data and room > 0:
            self._begun = True
            try:
                part = self._engine.decompress(data, room)
            except zlib.error as error:
                raise OpaqueError("the compressed content is broken") from error
            parts.append(part)
            room -= len(part)
            data = self._engine.unconsumed_tail or self._engine.unused_data
            if self._engine.eof and data:
                if alone:
                    break
                if not self._members or not data.startswith(_GZIP[:2]):
                    raise FramingError("something stands behind the compressed content")
                self._engine = zlib.decompressobj(self._wbits)
        return self._give(b"".join(parts), room + sum(map(len, parts)))

    def finish(self) -> bytes:
        """Say where the stream was cut short."""
        if self._begun and not self._engine.eof:
            raise OpaqueError("the compressed content is cut short")
        return b""


class Brotli(_Bounded):
    """Brotli (RFC 7932)."""

    __slots__ = ("_begun", "_engine")

    def __init__(self) -> None:
        import brotli  # noqa: PLC0415

        super().__init__()
        self._engine = brotli.Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> bytes:
        """Unpack ``data``."""
        import brotli  # noqa: PLC0415

        if data and self._engine.is_finished():
            raise FramingError("something stands behind the compressed content")
        room = self._take(data)
        self._begun = self._begun or bool(data)
        parts: list[bytes] = []
        got = 0
        try:
            while (data or not self._engine.can_accept_more_data()) and got < room:
                part = self._engine.process(data, output_buffer_limit=min(room - got, 1 << 20))
                data = b""
                parts.append(part)
                got += len(part)
                if not part and self._engine.can_accept_more_data():
                    break
        except brotli.error as error:
            raise OpaqueError("the compressed content is broken") from error
        return self._give(b"".join(parts), room)

    def finish(self) -> bytes:
        """Say where the stream was cut short."""
        if self._begun and not self._engine.is_finished():
            raise OpaqueError("the compressed content is cut short")
        return b""


def brotli_ends_within(data: bytes) -> bool:
    """Tell whether a whole Brotli stream stands at the beginning of ``data``, with something behind it."""
    import brotli  # noqa: PLC0415

    engine = brotli.Decompressor()
    try:
        for at in range(len(data) - 1):
            engine.process(data[at : at + 1], output_buffer_limit=FREE_BYTES)
            while not engine.can_accept_more_data():
                engine.process(b"", output_buffer_limit=FREE_BYTES)
            if engine.is_finished():
                return True
    except brotli.error:
        pass
    return False


class Zstd(_Bounded):
    """Zstandard (RFC 8878), frame after ``frames`` or one. Its window is bounded too (RFC 9659: 8 MiB)."""

    __slots__ = ("_begun", "_engine", "_frames")

    def __init__(self, *, frames: bool = True) -> None:
        super().__init__()
        self._frames = frames
        self._engine = self._fresh()
        self._begun = False

    @staticmethod
    def _fresh() -> zstandard.ZstdDecompressionObj:
        import zstandard  # noqa: PLC0415

        return zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).decompressobj()

    @property
    def ended(self) -> bool:
        """Whether the stream's own end was reached."""
        return self._engine.eof

    def feed(self, data: bytes, *, alone: bool = False) -> bytes:
        """Unpack ``data``; with ``alone`` what stands behind the end is left."""
        import zstandard  # noqa: PLC0415

        parts: list[bytes] = []
        while data:
            # This library has no output limit, so the input is fed in steps whose output stays small.
            step, data = data[:2048], data[2048:]
            room = self._take(step)
            while step:
                if self._engine.eof:
                    if not self._frames:
                        raise FramingError("something stands behind the compressed content")
                    self._engine = self._fresh()
                self._begun = True
                try:
                    parts.append(self._give(self._engine.decompress(step), room))
                except zstandard.ZstdError as error:
                    raise OpaqueError("the compressed content is broken") from error
                step = self._engine.unused_data if self._engine.eof else b""
                if alone and step:
                    return b"".join(parts)
        return b"".join(parts)

    def finish(self) -> bytes:
        """Say where the stream was cut short."""
        if self._begun and not self._engine.eof:
            raise OpaqueError("the compressed content is cut short")
        return b""


class _Chain:
    """Several codings, undone in the reverse of the order they were applied in (RFC 9110, 8.4)."""

    __slots__ = ("_steps",)

    def __init__(self, steps: Sequence[Unpacker]) -> None:
        self._steps = steps

    def feed(self, data: bytes) -> bytes:
        for step in self._steps:
            data = step.feed(data)
        return data

    def finish(self) -> bytes:
        data = b""
        for step in self._steps:
            data = step.feed(data) + step.finish()
        return data


def unpacker(encoding: str) -> Unpacker | None:
    """Give what undoes a ``Content-Encoding`` value, ``None`` for none; raises :class:`OpaqueError`."""
    codings = codings_of(encoding)
    if not codings:
        return None
    if len(codings) > 3:
        raise OpaqueError("the content is encoded more than three times over")
    return _Chain([_one(coding) for coding in reversed(codings)])


def codings_of(encoding: str) -> list[str]:
    """Give the codings that a ``Content-Encoding`` value names, in the order they were applied in."""
    codings = [coding.strip().lower() for coding in encoding.split(",")]
    return [coding for coding in codings if coding and coding != "identity"]


def _one(coding: str) -> Unpacker:
    if coding in {"gzip", "x-gzip"}:
        return Zlib(16 + zlib.MAX_WBITS, members=True)
    if coding == "deflate":
        return Zlib(zlib.MAX_WBITS, guess=True)
    if coding == "br":
        return Brotli()
    if coding == "zstd":
        return Zstd()
    raise OpaqueError("the content's encoding is not known")


def packed_parts(data: bytes, *, anywhere: bool) -> list[bytes]:
    """Unpack what in ``data`` bears the mark of a compressed stream, ``anywhere`` or at its start alone.

    A stream that is broken or cut gives what could be read of it. Raises :class:`OpaqueError` for a bomb.
    """
    parts: list[bytes] = []
    if data.startswith(_ZLIB):
        parts.append(_salvage(Zlib(zlib.MAX_WBITS), data))
    for mark in PACK_MARKS:
        at = data.find(mark) if anywhere else 0 if data.startswith(mark) else -1
        while at >= 0 and len(parts) < 8:
            opened = Zlib(16 + zlib.MAX_WBITS) if mark is _GZIP else Zstd()
            parts.append(_salvage(opened, data[at:]))
            at = data.find(mark, at + len(mark))
    return [part for part in parts if part]


def _salvage(opened: Zlib | Zstd, data: bytes) -> bytes:
    """Read as far as it goes, whatever stands behind; only growth beyond all bounds is an error here."""
    whole: list[bytes] = []
    for start in range(0, len(data), 4096):
        try:
            whole.append(opened.feed(data[start : start + 4096], alone=True))
        except BombError:
            raise
        except OpaqueError:
            break
        if opened.ended:
            break
    return b"".join(whole)
