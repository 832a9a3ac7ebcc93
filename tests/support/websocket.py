"""The server's side of a WebSocket, for scripted upstreams (RFC 6455; no extensions, text messages)."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import TYPE_CHECKING

from bot_bottle.demo.upstreams import Answer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from bot_bottle.demo.upstreams import Seen

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA


def is_handshake(seen: Seen) -> bool:
    """Whether a request asks for a WebSocket."""
    return "websocket" in ",".join(seen.values("upgrade")).lower()


def accept(seen: Seen, reply: Callable[[bytes], Iterable[str]]) -> Answer:
    """Accept a handshake; every message is recorded, and answered with the texts that ``reply`` gives."""

    def serve(connection: socket.socket, record: Callable[[bytes], None]) -> None:
        stream = _Stream(connection)
        while (message := stream.message()) is not None:
            record(message)
            for text in reply(message):
                stream.send(_TEXT, text.encode())

    # RFC 6455, 4.2.2: proves that the handshake was read, nothing more
    key = "".join(seen.values("sec-websocket-key")).encode()
    digest = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    headers = (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", digest))
    return Answer(status=101, headers=headers, upgraded=serve)


class _Stream:
    """Frames of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def message(self) -> bytes | None:
        """Give the next whole message; None once the client closed."""
        whole = b""
        while True:
            head = self._exactly(2)
            final, opcode, size = bool(head[0] & 0x80), head[0] & 0x0F, head[1] & 0x7F
            assert head[1] & 0x80, "a client masks every frame (RFC 6455, 5.1)"
            assert not head[0] & 0x70, "nobody agreed on an extension"
            if size == 126:
                (size,) = struct.unpack("!H", self._exactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._exactly(8))
            mask = self._exactly(4)
            payload = _unmasked(self._exactly(size), mask)
            if opcode == _CLOSE:
                self.send(_CLOSE, payload[:2])
                return None
            if opcode == _PING:
                self.send(_PONG, payload)
            elif opcode != _PONG:
                whole += payload
                if final:
                    return whole

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one message as one frame."""
        if len(payload) < 126:
            size = bytes([len(payload)])
        elif len(payload) < 1 << 16:
            size = struct.pack("!BH", 126, len(payload))
        else:
            size = struct.pack("!BQ", 127, len(payload))
        self._connection.sendall(bytes([0x80 | opcode]) + size + payload)

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            more = self._connection.recv(65536)
            if not more:
                raise ConnectionError("the client ended without a close frame")
            self._rest += more
        data, self._rest = self._rest[:count], self._rest[count:]
        return data


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
