"""Taking TLS off: behind a CONNECT and on the transparent port.

A denied *name* is intercepted too and refused inside TLS, so that every client reads the same words; only
where no TLS client could be waiting (another port, an IP literal, nonsense) is the CONNECT itself refused.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.egress.denial import HEADER_DECISION
from bot_bottle.egress.downstream import ClientConnection
from bot_bottle.egress.hosts import Authority, HostError, is_ip_literal, parse_authority
from bot_bottle.egress.policy import CONNECT_POLICIES, EgressRequest, decide
from bot_bottle.egress.target import Arrival
from bot_bottle.sidecar.config import EGRESS_LOCAL_HOST

if TYPE_CHECKING:
    import ssl

    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.proxy import EgressProxy

_HANDSHAKE_SECONDS = 15.0
_SHUTDOWN_SECONDS = 2.0
_FIRST_BYTE_SECONDS = 30.0
_ACCEPT_BATCH = 64
_TLS_HANDSHAKE_RECORD = 0x16


class TlsListener:
    """The transparent TLS port.

    It accepts by itself, so that a connection counts from its first packet and its handshake is on record.
    """

    def __init__(self, proxy: EgressProxy, sock: socket.socket, arrival: Arrival) -> None:
        self._proxy = proxy
        self._sock = sock
        self._arrival = arrival
        proxy.loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening."""
        self._proxy.loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                connection, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # Out of descriptors: look again in a moment instead of spinning.
                self._proxy.loop.remove_reader(self._sock.fileno())
                self._proxy.loop.call_later(1.0, self._listen_again)
                return
            inner = ClientConnection(self._proxy, self._arrival, admitted=True)
            if self._proxy.admit(inner):
                connection.setblocking(False)  # noqa: FBT003 - the library's signature
                self._proxy.spawn(accept_tls(self._proxy, connection, inner))
            else:
                self._proxy.record_refusal(self._proxy.crowded(), arrival=self._arrival)
                connection.close()

    def _listen_again(self) -> None:
        if self._sock.fileno() >= 0:
            self._proxy.loop.add_reader(self._sock.fileno(), self._accept)


async def accept_tls(proxy: EgressProxy, connection: socket.socket, inner: ClientConnection) -> None:
    """Do the server's side of a TLS handshake on an accepted socket and let ``inner`` speak inside.

    ``inner`` has been admitted; where there is no TLS it leaves again and the failure is on record.
    """
    try:
        await proxy.loop.connect_accepted_socket(
            lambda: inner,
            connection,
            ssl=proxy.contexts.transparent(),
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it was, there is no TLS
        proxy.leave(inner)
        connection.close()
        _record_failure(proxy, inner.arrival, error)


def open_tunnel(proxy: EgressProxy, client: ClientConnection, target: bytes, headers: RequestHeaders) -> None:
    """Answer a CONNECT that stands first on its connection and has nothing behind it."""
    if client.arrival.port:
        _refuse(proxy, client, _denied_connect("connect_denied", "CONNECT is taken on the proxy port only"))
        return
    try:
        authority = parse_authority(target.decode("ascii"))
    except (HostError, UnicodeDecodeError) as error:
        _refuse(
            proxy, client, _denied_connect("bad_authority", f"the CONNECT target is no host:port ({error})")
        )
        return
    host, port = authority.host, authority.port
    if port is None:
        _refuse(proxy, client, _denied_connect("bad_authority", "the CONNECT target has no port"))
        return
    deny = _objection(proxy, host, port)
    if deny is not None and (port != 443 or is_ip_literal(host)):
        _refuse(proxy, client, deny, authority)
        return
    transport = client.take_over()
    if transport is None:
        return
    transport.pause_reading()
    arrival = Arrival(via="connect", scheme="https", port=port, claims=(("CONNECT authority", host),))
    mark = f"{HEADER_DECISION}: deny\r\n".encode("ascii") if deny else b""
    transport.write(b"HTTP/1.1 200 Connection established\r\n" + mark + b"\r\n")
    proxy.spawn(_tunnel(proxy, client, transport, arrival, host))
    del headers  # a CONNECT's own headers (Proxy-Authorization, User-Agent, Host) mean nothing here


def _objection(proxy: EgressProxy, host: str, port: int) -> Deny | None:
    if host == EGRESS_LOCAL_HOST and port in {80, 443}:
        return None
    request = EgressRequest(via="connect", scheme="https", method="CONNECT", host=host, port=port)
    decision = decide(request, proxy.table, CONNECT_POLICIES).decision
    return decision if isinstance(decision, Deny) else None


async def _tunnel(
    proxy: EgressProxy, outer: ClientConnection, transport: asyncio.Transport, arrival: Arrival, host: str
) -> None:
    try:
        tls = arrival.port == 443 or await _first_byte(transport) == _TLS_HANDSHAKE_RECORD
        if not tls:
            arrival = Arrival(via="connect", scheme="http", port=arrival.port, claims=arrival.claims)
        inner = ClientConnection(proxy, arrival)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - whatever it was, the client said nothing
        proxy.leave(outer)
        transport.abort()
        return
    proxy.replace(outer, inner)
    if tls:
        await _take_tls_off(proxy, transport, inner, proxy.contexts.context_for(host))
    elif transport.is_closing():
        proxy.leave(inner)
    else:
        transport.set_protocol(inner)
        inner.attach(transport)
        transport.resume_reading()


async def _take_tls_off(
    proxy: EgressProxy, transport: asyncio.Transport, inner: ClientConnection, context: ssl.SSLContext
) -> None:
    """Do the server's side of a TLS handshake and let ``inner`` speak inside."""
    try:
        secured = await proxy.loop.start_tls(
            transport,
            inner,
            context,
            server_side=True,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            ssl_shutdown_timeout=_SHUTDOWN_SECONDS,
        )
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it was, there is no TLS
        proxy.leave(inner)
        transport.abort()
        _record_failure(proxy, inner.arrival, error)
        return
    if secured is None:
        proxy.leave(inner)
        transport.abort()
        return
    inner.attach(secured)


def _record_failure(proxy: EgressProxy, arrival: Arrival, error: BaseException) -> None:
    proxy.record_event(
        "tls_failed",
        host=next((name for _where, name in arrival.claims), ""),
        port=arrival.port,
        via=arrival.via,
        message=f"no TLS with the client ({type(error).__name__}): does it trust the bottle's CA?",
    )


async def _first_byte(transport: asyncio.Transport) -> int:
    """Look at the first byte a client sends without taking it; raises ``OSError`` if none comes.

    On ports other than 443 both TLS and plain HTTP (``ws://`` through a proxy) stand behind a CONNECT.
    """
    loop = asyncio.get_running_loop()
    sock = transport.get_extra_info("socket")
    if sock is None:
        raise ConnectionResetError("the client is gone")
    peek = socket.socket(fileno=os.dup(sock.fileno()))
    readable = asyncio.Event()
    try:
        peek.setblocking(False)  # noqa: FBT003 - the library's signature
        loop.add_reader(peek.fileno(), readable.set)
        try:
            async with asyncio.timeout(_FIRST_BYTE_SECONDS):
                await readable.wait()
        finally:
            loop.remove_reader(peek.fileno())
        data = peek.recv(1, socket.MSG_PEEK)
    finally:
        peek.close()
    if not data:
        raise ConnectionResetError("the client sent nothing")
    return data[0]


def _refuse(
    proxy: EgressProxy, client: ClientConnection, deny: Deny, authority: Authority | None = None
) -> None:
    host = authority.host if authority else ""
    port = (authority.port or 0) if authority else 0
    proxy.record_refusal(deny, method=b"CONNECT", arrival=client.arrival, host=host, port=port)
    client.refuse(403, deny, host=host)


def _denied_connect(reason: str, message: str) -> Deny:
    return Deny(
        reason=reason,
        rule="egress.connect",
        message=message,
        next_step="Send CONNECT host:port to the proxy port, once, and TLS inside",
    )
