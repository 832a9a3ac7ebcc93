"""WebSocket frames written and read by hand, for tests of what goes through egress (RFC 6455, 5.2)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
ASK = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n"
)

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

KEY = b"\x01\x82\x03\xc4"


class Readable(Protocol):
    """Where exactly so many bytes can be read."""

    def exactly(self, count: int) -> bytes: ...


def _xor(data: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[index & 3] for index, byte in enumerate(data))


def said(
    payload: bytes, opcode: int = TEXT, *, final: bool = True, key: bytes = b"\x01\x82\x03\xc4"
) -> bytes:
    """Write a frame of a client's; with an empty ``key`` a server's."""
    size, flag = len(payload), 0x80 if key else 0
    head = bytes([opcode | (0x80 if final else 0)])
    if size < 126:
        head += bytes([flag | size])
    elif size < 65536:
        head += struct.pack("!BH", flag | 126, size)
    else:
        head += struct.pack("!BQ", flag | 127, size)
    return head + key + (_xor(payload, key) if key else payload)


def heard(stream: Readable) -> tuple[int, bytes]:
    """Read one frame: its first byte and its payload, unmasked."""
    first, second = stream.exactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", stream.exactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", stream.exactly(8))
    key = stream.exactly(4) if second & 0x80 else b""
    data = stream.exactly(size)
    return first, _xor(data, key) if key else data


def frames(stream: Readable) -> Iterator[tuple[int, bytes]]:
    """Read frames until the other end is gone."""
    try:
        while True:
            yield heard(stream)
    except ConnectionError:
        return


def message(stream: Readable) -> bytes:
    """Read one message, over as many frames as it has."""
    whole = b""
    while True:
        first, data = heard(stream)
        whole += data
        if first & 0x80:
            return whole
