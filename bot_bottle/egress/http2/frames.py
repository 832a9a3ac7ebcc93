"""What a peer may say in frames before it is cut off: looked at before the `h2` library sees a byte.

The library buffers a whole frame, however long, and answers control frames without end. Here a frame's
length is judged by its header, a header block by what has come of it, and everything that costs us work
without moving a message on is paid from an allowance that time and messages fill again: resets
(CVE-2023-44487), CONTINUATION frames (CVE-2024-27316), pings, settings, priorities, window updates and empty
DATA (CVE-2019-9511 to 9518). No I/O and no clock happen here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from bot_bottle.egress.grammar import MAX_HEAD_BYTES

#: SETTINGS_MAX_FRAME_SIZE as nobody has raised it (RFC 9113, 6.5.2).
MAX_FRAME_BYTES = 16_384

#: What a client's connection begins with (RFC 9113, 3.4).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER_BYTES = 9
_HEADER = struct.Struct(">HBBB4x")  # length (24 bits), type, flags; the stream is the library's business
_GOAWAY = struct.Struct(">LL")

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _GOING, _CONTINUATION = 0, 1, 3, 4, 5, 7, 9
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8

#: What a frame takes from the allowance; one that is not named here takes 1.
_COSTS: Final = {_RST_STREAM: 10, _SETTINGS: 4}
#: What a frame that moves a message on gives back, also one that we send.
EARNED = 4
_ALLOWANCE = 2000.0
_EARNED_A_SECOND = 100.0
#: A padded frame says nothing unless it is longer than all padding can be.
_MOST_PADDING = 256


class FrameError(ValueError):
    """A peer that is not heard any further; ``code`` is what it is told (RFC 9113, 7)."""

    def __init__(self, message: str, *, code: int, reason: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


class GoAway(NamedTuple):
    """The peer takes no new stream; those above ``last_stream`` it has never looked at."""

    last_stream: int
    code: int


@dataclass(slots=True)
class _Frame:
    """A frame whose payload is being passed on, or kept (``held``) where the library must not see it."""

    left: int
    held: bytearray | None = None


class Intake:
    """The frames of one peer as they come in."""

    def __init__(self, *, now: float, from_client: bool, max_block: int = MAX_HEAD_BYTES) -> None:
        """Take a peer's bytes from their first one on; ``max_block`` bounds a header block as it is sent."""
        self._max_block = max_block
        self._allowance = _ALLOWANCE
        self._filled_at = now
        self._frame = _Frame(0)
        self._preface = _PREFACE if from_client else b""
        self._partial = b""
        self._block_bytes = 0
        self._in_block = False
        #: When the header block began that has not ended (loop time in seconds); 0 where none has.
        self.block_since = 0.0
        #: What the peer said last about going away.
        self.going: GoAway | None = None

    def earn(self, amount: float = EARNED) -> None:
        """Let the peer say more control frames, because of a message that we or it moved on."""
        self._allowance = min(_ALLOWANCE, self._allowance + amount)

    def feed(self, data: bytes, now: float) -> bytes:
        """Give what the library may see of ``data``; raises :class:`FrameError`.

        GOAWAY is kept in :attr:`going`: the library would take it for the end of every stream.
        """
        self.earn((now - self._filled_at) * _EARNED_A_SECOND)
        self._filled_at = now
        if self._partial:
            data = self._partial + data
            self._partial = b""
        passed: list[bytes] = []
        position, begun, size = self._begin(data), 0, len(data)
        while position < size:
            frame = self._frame
            if frame.left:
                step = min(frame.left, size - position)
                frame.left -= step
                if frame.held is not None:
                    frame.held += data[position : position + step]
                    begun = position + step
                position += step
                if not frame.left:
                    self._on_end(frame)
                continue
            if size - position < _HEADER_BYTES:
                self._partial = data[position:]
                break
            high, low, kind, flags = _HEADER.unpack_from(data, position)
            self._frame = frame = self._on_header((high << 8) | low, kind, flags, now)
            if frame.held is not None:
                passed.append(data[begun:position])
                begun = position + _HEADER_BYTES
            position += _HEADER_BYTES
            if not frame.left:
                self._on_end(frame)
        if not begun and not self._partial:
            return data
        passed.append(data[begun:position])
        return b"".join(passed)

    def _begin(self, data: bytes) -> int:
        """Give where the preface, or what has come of it, ends in ``data``."""
        size = min(len(self._preface), len(data))
        if data[:size] != self._preface[:size]:
            raise FrameError("the connection does not begin with HTTP/2", code=1, reason="bad_request")
        self._preface = self._preface[size:]
        return size

    def _on_header(self, length: int, kind: int, flags: int, now: float) -> _Frame:
        if length > MAX_FRAME_BYTES:
            raise FrameError("a frame is longer than 16 KiB", code=6, reason="too_large")
        if kind in {_HEADERS, _PUSH_PROMISE, _CONTINUATION}:
            self._on_block(length, kind, flags, now)
        elif kind == _DATA and (length > _MOST_PADDING if flags & _PADDED else length > 0):
            self.earn()
        elif kind != _DATA or not flags & _END_STREAM:
            self._spend(_COSTS.get(kind, 1))
        return _Frame(length, bytearray() if kind == _GOING else None)

    def _on_block(self, length: int, kind: int, flags: int, now: float) -> None:
        if kind == _CONTINUATION:
            self._spend(1 if length else 10)
            self._block_bytes += length
        else:
            self.earn()
            self._block_bytes = length
            self.block_since = now
        if self._block_bytes > self._max_block:
            raise FrameError(
                f"a header block is over its bound ({self._max_block // 1024} KiB)",
                code=11,
                reason="too_large",
            )
        self._in_block = not flags & _END_HEADERS

    def _on_end(self, frame: _Frame) -> None:
        """Take the end of a frame's payload."""
        if not self._in_block:
            self.block_since = 0.0
        if frame.held is not None:
            if len(frame.held) < _GOAWAY.size:
                raise FrameError("a GOAWAY frame is too short", code=6, reason="bad_request")
            last, code = _GOAWAY.unpack_from(frame.held)
            self.going = GoAway(last & 0x7FFF_FFFF, code)
            frame.held = None

    def _spend(self, cost: int) -> None:
        self._allowance -= cost
        if self._allowance < 0:
            raise FrameError(
                "too many frames came that move no message on (resets, pings, settings, empty ones)",
                code=11,
                reason="flood",
            )
