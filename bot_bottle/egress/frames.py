"""WebSocket frames as they come and go (RFC 6455, 5): pure, one reader a direction.

Extensions are never negotiated, so nothing of a payload can be hidden by one: a reserved bit is an error.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_DATA_OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY})
_CONTROL_OPCODES: Final = frozenset({CLOSE, PING, PONG})
_LARGEST_CONTROL = 125


class FrameError(ValueError):
    """The bytes are no frames of this side of a WebSocket; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A frame begins: a control frame, or one of a message whose first has its kind as ``opcode``."""

    opcode: int
    final: bool
    length: int

    @property
    def is_control(self) -> bool:
        """Whether it stands by itself, maybe amid the frames of a message."""
        return self.opcode in _CONTROL_OPCODES


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes of the frame that began last, unmasked; never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The frame that began last is whole."""


Event: TypeAlias = Begin | Payload | End


class FrameReader:
    """Reads one direction; ``masked`` is the client's (RFC 6455, 5.1)."""

    __slots__ = ("_closed", "_current", "_head", "_in_message", "_left", "_mask", "_masked", "_position")

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._head = b""
        self._current: Begin | None = None
        self._left = 0
        self._mask = b""
        self._position = 0
        self._in_message = False
        self._closed = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """Give what ``data`` brings; raises :class:`FrameError`, after which nothing more may be fed."""
        position, size = 0, len(data)
        while position < size:
            if self._current is None:
                if self._closed:
                    raise FrameError("bytes come behind a close frame")
                position, begun = self._take_head(data, position)
                if begun is None:
                    return
                yield begun
            elif self._left:
                piece = data[position : position + self._left]
                position += len(piece)
                self._left -= len(piece)
                yield Payload(self._unmasked(piece))
            if not self._left:
                self._closed = self._is_close
                self._current = None
                yield End()

    @property
    def _is_close(self) -> bool:
        return self._current is not None and self._current.opcode == CLOSE

    def _take_head(self, data: bytes, position: int) -> tuple[int, Begin | None]:
        """Add to the head that is being read; gives where it ends in ``data``, and it where it is whole."""
        head = self._head
        while True:
            needed = _head_size(head, masked=self._masked)
            if len(head) >= needed:
                break
            more = data[position : position + needed - len(head)]
            if not more:
                self._head = head
                return position, None
            head += more
            position += len(more)
        self._head = b""
        self._current = begun = self._begin(head)
        return position, begun

    def _begin(self, head: bytes) -> Begin:
        opcode, final, length = head[0] & 0x0F, bool(head[0] & 0x80), head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack_from("!H", head, 2)
            if length < 126:
                raise FrameError("a frame's length is not in its shortest form")
        elif length == 127:
            (length,) = struct.unpack_from("!Q", head, 2)
            if not 1 << 16 <= length < 1 << 63:
                raise FrameError("a frame's length is not in its shortest form")
        if opcode in _DATA_OPCODES:
            if (opcode == CONTINUATION) != self._in_message:
                raise FrameError(
                    "a message begins amid another" if self._in_message else "a frame continues no message"
                )
            self._in_message = not final
        self._left = length
        self._mask = head[-4:] if self._masked else b""
        self._position = 0
        return Begin(opcode=opcode, final=final, length=length)

    def _unmasked(self, data: bytes) -> bytes:
        if not self._mask:
            return data
        shift = self._position & 3
        self._position += len(data)
        return masked(data, self._mask[shift:] + self._mask[:shift])


def _head_size(head: bytes, *, masked: bool) -> int:
    """Give how long the head is that begins so; raises :class:`FrameError` as soon as it can be none."""
    if head:
        opcode = head[0] & 0x0F
        if head[0] & 0x70:
            raise FrameError("a frame uses an extension that nobody agreed on")
        if opcode not in _DATA_OPCODES and opcode not in _CONTROL_OPCODES:
            raise FrameError("a frame's kind is not defined")
        if opcode in _CONTROL_OPCODES and not head[0] & 0x80:
            raise FrameError("a control frame is in pieces")
    if len(head) < 2:
        return 2
    if bool(head[1] & 0x80) != masked:
        raise FrameError(
            "a frame of the client's is not masked" if masked else "a frame of the server's is masked"
        )
    length = head[1] & 0x7F
    if length > _LARGEST_CONTROL and head[0] & 0x08:
        raise FrameError("a control frame is too long")
    return 2 + {126: 2, 127: 8}.get(length, 0) + (4 if masked else 0)


def masked(data: bytes, key: bytes) -> bytes:
    """Mask ``data``, or take its mask off (RFC 6455, 5.3)."""
    size = len(data)
    stream = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(size, "little")


def frame(opcode: int, payload: bytes, *, final: bool = True, key: bytes = b"") -> bytes:
    """Write a frame; with a ``key`` of four random bytes it is masked, as a client's must be."""
    size, flag = len(payload), 0x80 if key else 0
    first = (0x80 if final else 0) | opcode
    if size < 126:
        head = bytes((first, flag | size))
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, flag | 126, size)
    else:
        head = struct.pack("!BBQ", first, flag | 127, size)
    return head + key + (masked(payload, key) if key else payload)


def close_frame(code: int, reason: str) -> bytes:
    """Write a server's close frame; the reason is cut to what one can hold."""
    text = reason.encode("utf-8")[: _LARGEST_CONTROL - 2].decode("utf-8", "ignore")
    return frame(CLOSE, struct.pack("!H", code) + text.encode("utf-8"))
