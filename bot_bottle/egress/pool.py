"""The way out: resolve, check, dial, keep alive. Only requests that policy allowed get here.

A host's addresses are resolved once a connection and every one is checked; what is dialled is an address
that passed, as a literal, so nothing can change between check and connect (DNS rebinding). The server's
certificate is always verified for the host's name.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle.egress.roads import Roads, system_resolver
from bot_bottle.egress.shared_upstreams import SharedUpstreams
from bot_bottle.egress.tls_stream import TlsStream
from bot_bottle.egress.upstream import PoolKey, Upstream, UpstreamConnection, UpstreamError
from bot_bottle.egress.way import first_of, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bot_bottle.egress.http2.upstream import Http2Upstream
    from bot_bottle.egress.redact import Needles
    from bot_bottle.egress.request import Scheme
    from bot_bottle.egress.roads import Resolver
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.sidecar.config import Pin, Roots, UpstreamProxy

_CONNECT_SECONDS = 5.0
_HANDSHAKE_SECONDS = 10.0
_IDLE_SECONDS = 30.0
#: As many as were needed at once, since a new one costs a handshake; those unused end by their time.
_MAX_IDLE = 1024

#: Where distributions keep the roots when OpenSSL's compiled-in path is wrong (portable Python builds).
_ROOTS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


class Destination(NamedTuple):
    """Where one allowed request goes.

    ``needles`` are what its answer may not show: the credentials of the table that made its head, whatever
    table holds once the answer comes. There are none where the host never got a credential on any route.
    """

    scheme: Scheme
    host: str
    port: int
    route: EgressRoute
    http2: bool = False
    needles: Needles | None = None

    @property
    def key(self) -> PoolKey:
        """What a pooled connection is kept under."""
        protocol = "h2" if self.http2 else self.scheme
        return (protocol, self.host, self.port, self.route.auth.token_ref if self.route.auth else "")


class UpstreamPool:
    """Makes upstream connections and keeps idle ones."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        pins: Mapping[str, Pin],
        upstream_ca_pem: str = "",
        roots: Roots | None = None,
        proxy: UpstreamProxy | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        self.loop = loop
        self._now = loop.time
        self._upstream_ca_pem = upstream_ca_pem
        self._roots = roots
        self.roads = Roads(loop=loop, pins=pins, proxy=proxy, resolver=resolver)
        self._idle: dict[PoolKey, list[UpstreamConnection]] = {}
        self._idle_count = 0
        #: By whether HTTP/2 is offered.
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._shared = SharedUpstreams()

    def take(self, key: PoolKey) -> Upstream | None:
        """Give a stream of a shared connection, or the idle connection used last, if there is one."""
        if key[0] == "h2" and (stream := self._shared.stream(key)) is not None:
            return stream
        held = self._idle.get(key)
        while held:
            connection = held.pop()
            self._idle_count -= 1
            if connection.idle_until > self._now():
                connection.reused = True
                return connection
            connection.abort()
        return None

    def keep(self, connection: UpstreamConnection, idle_seconds: float | None) -> None:
        """Hold an idle connection for a while; the server's own Keep-Alive timeout is honoured."""
        if self._idle_count >= _MAX_IDLE:
            connection.abort()
            return
        held = self._idle.get(connection.key)
        if held is None:
            held = self._idle[connection.key] = []
        seconds = _IDLE_SECONDS if idle_seconds is None else min(_IDLE_SECONDS, idle_seconds - 1.0)
        connection.idle_until = self._now() + seconds
        held.append(connection)
        self._idle_count += 1

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that has ended."""
        held = self._idle.get(connection.key)
        if held and connection in held:
            held.remove(connection)
            self._idle_count -= 1
            if not held:
                del self._idle[connection.key]

    def drop(self, unwanted: Callable[[str], bool]) -> int:
        """Close the idle connections to hosts that are ``unwanted``; gives how many there were."""
        dropped = [one for key, held in self._idle.items() if unwanted(key[1]) for one in held]
        for connection in dropped:
            self.forget(connection)
            connection.abort()
        return len(dropped) + self._shared.drop(unwanted)

    def forget_shared(self, connection: Http2Upstream) -> None:
        """Give no more streams of a connection that has ended or takes none."""
        self._shared.forget(connection)

    def sweep(self, now: float) -> None:
        """Close what has been idle too long."""
        self._shared.sweep(now)
        for key in list(self._idle):
            for connection in [c for c in self._idle[key] if c.idle_until <= now]:
                self.forget(connection)
                connection.abort()
            if not self._idle.get(key, True):
                del self._idle[key]  # all in use: a name that was once asked for is not remembered for ever

    def close(self) -> None:
        """Close every idle connection."""
        self.sweep(float("inf"))

    async def dial(self, destination: Destination) -> Upstream:
        """Resolve, check and connect; raises :class:`UpstreamError`."""
        if destination.http2:
            return await self._shared.dial(destination.key, lambda: self._dial(destination))
        return await self._dial(destination)

    async def _dial(self, destination: Destination) -> Upstream:
        addresses, port = await self.roads.addresses(
            destination.host, destination.port, exempt=destination.route.ssrf_ip_allowlist
        )
        if len(addresses) == 1:
            return await self._connect(destination, addresses[0], port)
        # The handshake is part of the race: an address without the host's certificate leads nowhere.
        attempts = [partial(self._connect, destination, address, port) for address in in_order(addresses)]
        return await first_of(attempts, discard=lambda late: late.abort())

    async def _connect(self, destination: Destination, address: str, port: int) -> Upstream:
        tls = destination.scheme == "https"
        host = destination.host
        connection = UpstreamConnection(self, destination.key)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS + (_HANDSHAKE_SECONDS if tls else 0)):
                if tls:
                    return await self._secure(connection, destination, address, port)
                await self.roads.open(connection, host, address, port)
        except OSError as error:
            raise _connect_failure(host, error) from error
        return connection

    async def _secure(
        self, connection: UpstreamConnection, destination: Destination, address: str, port: int
    ) -> Upstream:
        host = destination.host
        loop = asyncio.get_running_loop()
        secured: asyncio.Future[Upstream] = loop.create_future()

        def done(error: BaseException | None) -> None:
            if secured.done():
                return
            if error is not None:
                secured.set_exception(error)
            elif stream.speaks_http2:
                try:  # at once: what its server says first is HTTP/2 already
                    secured.set_result(self._shared.add(self, destination.key, stream))
                except OSError as failure:
                    secured.set_exception(failure)
            else:
                secured.set_result(connection)

        stream = TlsStream(
            connection,
            self._tls_context(http2=destination.http2),
            loop=loop,
            handshake_seconds=_HANDSHAKE_SECONDS,
            server_hostname=host,
            done=done,
        )
        try:
            await self.roads.open(stream, host, address, port)
            return await secured
        except BaseException:
            secured.cancel()
            stream.abort()
            raise

    def _tls_context(self, *, http2: bool) -> ssl.SSLContext:
        # Made at the first need: reading the system's roots takes some 20 ms.
        held = self._contexts.get(http2)
        if held is None:
            context = _rooted_context(self._roots) if self._roots else _system_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
            if self._upstream_ca_pem:
                context.load_verify_locations(cadata=self._upstream_ca_pem)
            held = self._contexts[http2] = context
        return held


def _system_context() -> ssl.SSLContext:
    """Trust what this system does."""
    context = ssl.create_default_context()
    found = ssl.get_default_verify_paths()
    if not (found.cafile or found.capath) and (roots := _file_of_roots()):
        context.load_verify_locations(roots)
    return context


def _rooted_context(roots: Roots) -> ssl.SSLContext:
    """Trust what was given in place of this system's file or folder, and the other one as it is."""
    found = ssl.get_default_verify_paths()
    given = "".join(filter(None, (roots.file, roots.folder)))
    file = (found.cafile or _file_of_roots()) if roots.file is None else None
    folder = found.capath if roots.folder is None else None
    if not (given or file or folder):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # create_default_context would take the system's
    return ssl.create_default_context(cafile=file, capath=folder, cadata=given or None)


def _file_of_roots() -> str | None:
    return next((roots for roots in _ROOTS if Path(roots).is_file()), None)


def _connect_failure(host: str, error: OSError) -> UpstreamError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UpstreamError(
            "upstream_tls", f"the certificate of {host} does not hold: {error.verify_message}"
        )
    if isinstance(error, ssl.SSLError):
        return UpstreamError("upstream_tls", f"no TLS with {host}: {error.reason or 'handshake failed'}")
    if isinstance(error, TimeoutError):
        return UpstreamError("upstream_unreachable", f"{host} did not answer in time")
    return UpstreamError(
        "upstream_unreachable", f"{host} cannot be reached ({error.strerror or 'no connection'})"
    )
