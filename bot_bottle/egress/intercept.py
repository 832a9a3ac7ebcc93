"""Taking TLS off: behind a CONNECT and on the transparent port.

A denied *name* is intercepted too and refused inside TLS, so that every client reads the same words; only
where no TLS client could be waiting (another port, an IP literal, nonsense) is the CONNECT itself refused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from bot_bottle.decision import Deny
from bot_bottle.egress.denial import HEADER_DECISION
from bot_bottle.egress.downstream import ClientConnection
from bot_bottle.egress.hosts import EGRESS_LOCAL_HOST, Authority, HostError, is_ip_literal, parse_authority
from bot_bottle.egress.policy import CONNECT_POLICIES, decide
from bot_bottle.egress.request import EgressRequest
from bot_bottle.egress.target import Arrival
from bot_bottle.egress.tls_stream import TlsStream

if TYPE_CHECKING:
    import ssl

    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.proxy import EgressProxy

_HANDSHAKE_SECONDS = 15.0
_FIRST_BYTE_SECONDS = 30.0
_TLS_HANDSHAKE_RECORD = 0x16


class TlsFront(asyncio.Protocol):
    """The transparent TLS port: a connection counts from its first packet, and its handshake is on record."""

    def __init__(self, proxy: EgressProxy, arrival: Arrival) -> None:
        self._proxy = proxy
        self._inner = ClientConnection(proxy, arrival, admitted=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or turn it away where there are too many."""
        proxy, inner = self._proxy, self._inner
        stream = cast("asyncio.Transport", transport)  # uvloop's transports are not asyncio subclasses
        if proxy.clients.admit(inner):
            _take_tls_off(proxy, stream, inner, proxy.contexts.transparent())
        else:
            proxy.record_refusal(proxy.clients.crowded(), arrival=inner.arrival)
            stream.abort()


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
    if deny is None:
        proxy.content.begin()  # while the client and we agree on TLS
    arrival = Arrival(via="connect", scheme="https", port=port, claims=(("CONNECT authority", host),))
    mark = f"{HEADER_DECISION}: deny\r\n".encode("ascii") if deny else b""
    transport.write(b"HTTP/1.1 200 Connection established\r\n" + mark + b"\r\n")
    if port == 443:
        _enter(proxy, client, transport, arrival, host)
    else:
        # Both TLS and plain HTTP (ws:// through a proxy) stand behind a CONNECT to another port.
        transport.set_protocol(_FirstByte(proxy, client, transport, arrival, host))
        transport.resume_reading()
    del headers  # a CONNECT's own headers (Proxy-Authorization, User-Agent, Host) mean nothing here


def _objection(proxy: EgressProxy, host: str, port: int) -> Deny | None:
    if host == EGRESS_LOCAL_HOST and port in {80, 443}:
        return None
    request = EgressRequest(via="connect", scheme="https", method="CONNECT", host=host, port=port)
    decision = decide(request, proxy.table, CONNECT_POLICIES).decision
    return decision if isinstance(decision, Deny) else None


def _enter(
    proxy: EgressProxy, outer: ClientConnection, transport: asyncio.Transport, arrival: Arrival, host: str
) -> ClientConnection:
    """Let a new connection speak inside the tunnel, behind TLS where ``arrival`` says so."""
    inner = ClientConnection(proxy, arrival, admitted=True)
    proxy.clients.replace(outer, inner)
    if arrival.scheme == "https":
        _take_tls_off(proxy, transport, inner, proxy.contexts.context_for(host))
    else:
        transport.set_protocol(inner)
        inner.connection_made(transport)
    transport.resume_reading()
    return inner


def _take_tls_off(
    proxy: EgressProxy, transport: asyncio.Transport, inner: ClientConnection, context: ssl.SSLContext
) -> None:
    """Do the server's side of a TLS handshake and let ``inner`` speak inside."""

    def done(error: BaseException | None) -> None:
        inner.outer = None
        if error is not None:
            proxy.clients.leave(inner)
            _record_failure(proxy, inner.arrival, error)
        elif stream.speaks_http2:
            _speak_http2(proxy, stream, inner)

    stream = TlsStream(inner, context, loop=proxy.loop, handshake_seconds=_HANDSHAKE_SECONDS, done=done)
    inner.outer = stream
    transport.set_protocol(stream)
    stream.connection_made(transport)


def _speak_http2(proxy: EgressProxy, stream: TlsStream, inner: ClientConnection) -> None:
    """Let HTTP/2 be spoken in place of ``inner``, which knows by now how its client came."""
    from bot_bottle.egress.http2.client import Http2Client  # noqa: PLC0415 - few bottles speak it

    inner.take_over()
    front = Http2Client(proxy, inner.arrival)
    proxy.clients.replace(inner, front)
    stream.set_protocol(front)
    front.connection_made(stream)


class _FirstByte(asyncio.Protocol):
    """Waits for the first byte of a tunnel, which tells TLS from plain HTTP."""

    def __init__(
        self,
        proxy: EgressProxy,
        outer: ClientConnection,
        transport: asyncio.Transport,
        arrival: Arrival,
        host: str,
    ) -> None:
        self._proxy = proxy
        self._outer = outer
        self._transport = transport
        self._arrival = arrival
        self._host = host
        self._timer = proxy.loop.call_later(_FIRST_BYTE_SECONDS, transport.abort)
        outer.outer = transport

    def data_received(self, data: bytes) -> None:
        """Choose, and pass on what came."""
        self._timer.cancel()
        arrival = self._arrival
        if data[0] != _TLS_HANDSHAKE_RECORD:
            arrival = Arrival(via="connect", scheme="http", port=arrival.port, claims=arrival.claims)
        _enter(self._proxy, self._outer, self._transport, arrival, self._host)
        protocol = cast("asyncio.Protocol", self._transport.get_protocol())
        protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Count the connection out."""
        self._timer.cancel()
        self._proxy.clients.leave(self._outer)


def _record_failure(proxy: EgressProxy, arrival: Arrival, error: BaseException) -> None:
    proxy.record_event(
        "tls_failed",
        host=proxy.shown_name(next((name for _where, name in arrival.claims), "")),
        port=arrival.port,
        via=arrival.via,
        message=f"no TLS with the client ({type(error).__name__}): does it trust the bottle's CA?",
    )


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
