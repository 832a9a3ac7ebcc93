"""The one door of a microVM: the engine hands each of its TCP connections to this listener.

A microVM has a network card of its own, so the sidecar cannot listen inside it. Its engine instead connects
to a loopback port of the host, one connection a guest flow, and opens with a preamble (found by experiment
with version 1 of the protocol, engine 1.32):

    "SMOLICPT"  0x01  token (32 bytes)  family (0x04 or 0x06)  port (2 bytes)  address (4 or 16 bytes)

The answer is one byte, 0 for "connected" or an ``errno``; after a 0 the connection is the guest's flow. The
port is open to every account of the host and useless without the token, which is drawn for one launch.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.sidecar.listeners import LISTENER_PORTS

if TYPE_CHECKING:
    import socket

    from bot_bottle.egress.proxy import EgressProxy
    from bot_bottle.sidecar.config import Interception
    from bot_bottle.sidecar.listeners import ListenerRole

MAGIC = b"SMOLICPT"
VERSION = 1
TOKEN_BYTES = 32
_FIXED = len(MAGIC) + 1 + TOKEN_BYTES + 1
_ADDRESS_BYTES = {0x04: 4, 0x06: 16}

_PREAMBLE_SECONDS = 5.0
_ACCEPT_BATCH = 64
#: How many connections may be at their preamble: who has the token is past it at once.
_MAX_WAITING = 256
#: How many connections without the token are put on record; any account of the host can make them.
_MAX_STRANGERS = 200

_CONNECTED = b"\0"
_TCP_ROLES: dict[int, ListenerRole] = {
    port: role for role, port in LISTENER_PORTS.items() if role != "dns-udp"
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Where a guest's connection wanted to go."""

    address: IPv4Address | IPv6Address
    port: int


class StrangerError(Exception):
    """Who connected is not this bottle's engine; the text is the reason on record."""


def check_opening(data: bytes, token: bytes) -> int:
    """Judge a preamble up to its family; gives how many bytes follow. Raises :class:`StrangerError`."""
    if not data.startswith(MAGIC):
        raise StrangerError("not_an_engine")
    start = len(MAGIC) + 1
    # Compared in full before anything else is said, so that a guess learns nothing from the time it takes.
    if not hmac.compare_digest(data[start : start + TOKEN_BYTES], token):
        raise StrangerError("wrong_token")
    length = _ADDRESS_BYTES.get(data[-1])
    if data[len(MAGIC)] != VERSION or length is None:
        raise StrangerError("unknown_protocol")
    return 2 + length


def read_flow(data: bytes) -> Flow:
    """Read the port and address that :func:`check_opening` said would follow."""
    return Flow(address=ip_address(data[2:]), port=int.from_bytes(data[:2], "big"))


def role_of(flow: Flow, address: str) -> ListenerRole | None:
    """Say which listener a flow stands for: the ports of every bottle, at ``address`` alone."""
    return _TCP_ROLES.get(flow.port) if flow.address == ip_address(address) else None


class Interceptor:
    """Accepts the engine's connections and gives each to what serves its port in every bottle."""

    def __init__(self, proxy: EgressProxy, sock: socket.socket, settings: Interception) -> None:
        self._proxy = proxy
        self._sock = sock
        self._address = settings.address
        self._token = bytes.fromhex(settings.token.reveal())
        if len(self._token) != TOKEN_BYTES:
            raise ValueError(f"an interceptor's token has {TOKEN_BYTES} bytes")
        self._waiting: set[socket.socket] = set()
        self._strangers = 0
        proxy.loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening; what is at its preamble is dropped."""
        self._proxy.loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                connection, _peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors: look again in a moment instead of spinning.
                self._proxy.loop.remove_reader(self._sock.fileno())
                self._proxy.loop.call_later(1.0, self._listen_again)
                return
            if len(self._waiting) >= _MAX_WAITING:
                self._record_stranger("too_many_waiting")
                connection.close()
                continue
            connection.setblocking(False)  # noqa: FBT003 - the library's signature
            self._waiting.add(connection)
            self._proxy.spawn(self._serve(connection))

    def _listen_again(self) -> None:
        if self._sock.fileno() >= 0:
            self._proxy.loop.add_reader(self._sock.fileno(), self._accept)

    async def _serve(self, connection: socket.socket) -> None:
        """Read a preamble, answer it, and hand the connection over; it is closed where that fails."""
        try:
            role = await self._admit(connection)
        except BaseException:
            connection.close()
            raise
        finally:
            self._waiting.discard(connection)
        if role is None:
            connection.close()
        else:
            try:
                await self._proxy.loop.connect_accepted_socket(
                    self._proxy.protocol_of(role, here=self._address), connection
                )
            except OSError:
                connection.close()  # gone already

    async def _admit(self, connection: socket.socket) -> ListenerRole | None:
        """Judge one preamble and answer it; None where the connection is to be closed."""
        loop = self._proxy.loop
        try:
            async with asyncio.timeout(_PREAMBLE_SECONDS):
                opening = await self._exactly(connection, _FIXED)
                flow = read_flow(await self._exactly(connection, check_opening(opening, self._token)))
                role = role_of(flow, self._address)
                answer = bytes([errno.ECONNREFUSED]) if role is None else _CONNECTED
                await loop.sock_sendall(connection, answer)
        except StrangerError as error:
            self._record_stranger(str(error))
            await self._refuse(connection)
            return None
        except TimeoutError:
            self._record_stranger("preamble_timeout")
            await self._refuse(connection)
            return None
        except OSError:
            self._record_stranger("preamble_cut")
            return None
        if role is None:
            self._proxy.record_refusal(_no_such_place(flow), host=str(flow.address), port=flow.port)
        return role

    async def _exactly(self, connection: socket.socket, count: int) -> bytes:
        """Read ``count`` bytes and not one more: what follows is the guest's own."""
        data = b""
        while len(data) < count:
            more = await self._proxy.loop.sock_recv(connection, count - len(data))
            if not more:
                raise StrangerError("preamble_cut")
            data += more
        return data

    async def _refuse(self, connection: socket.socket) -> None:
        """Answer a stranger in a byte, unless it does not even take that."""
        try:
            connection.send(bytes([errno.EACCES]))
        except OSError:
            return

    def _record_stranger(self, reason: str) -> None:
        self._strangers += 1
        if self._strangers < _MAX_STRANGERS:
            self._proxy.record_event("interceptor", decision="deny", reason=reason)
        elif self._strangers == _MAX_STRANGERS:
            self._proxy.record_event(
                "interceptor", decision="deny", reason=reason, message="further ones are not listed"
            )


def _no_such_place(flow: Flow) -> Deny:
    return Deny(
        reason="no_route",
        rule="egress.interceptor",
        message=f"there is nothing at {flow.address} port {flow.port} for a bottle to reach",
        next_step="Use the proxy that the environment names",
    )
