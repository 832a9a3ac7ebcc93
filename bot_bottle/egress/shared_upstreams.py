"""Upstream connections that several exchanges share: those that speak HTTP/2.

Nothing here imports HTTP/2 before a server has chosen it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bot_bottle.egress.upstream import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bot_bottle.egress.http2.upstream import Http2Upstream, UpstreamStream
    from bot_bottle.egress.pool import UpstreamPool
    from bot_bottle.egress.tls_stream import TlsStream
    from bot_bottle.egress.upstream import PoolKey, Upstream

#: How long it is remembered that a server speaks HTTP/1.1 alone.
_PLAIN_SECONDS = 60.0


class SharedUpstreams:
    """The HTTP/2 connections of one bottle, by all that they depend on."""

    def __init__(self) -> None:
        self._open: dict[PoolKey, list[Http2Upstream]] = {}
        self._dialling: dict[PoolKey, asyncio.Future[UpstreamError | None]] = {}
        self._plain: dict[PoolKey, float] = {}

    def stream(self, key: PoolKey) -> UpstreamStream | None:
        """Give a stream of a connection that has room for one more."""
        for connection in self._open.get(key, ()):
            stream = connection.stream()
            if stream is not None:
                return stream
        return None

    def add(self, pool: UpstreamPool, key: PoolKey, transport: TlsStream) -> UpstreamStream:
        """Speak HTTP/2 on ``transport`` from here on; gives its first stream."""
        from bot_bottle.egress.http2.upstream import Http2Upstream  # noqa: PLC0415 - few bottles speak it

        connection = Http2Upstream(pool, key)
        transport.set_protocol(connection)
        connection.connection_made(transport)
        stream = connection.stream()
        if stream is None:
            raise ConnectionResetError("the connection ended as it began")
        self._open.setdefault(key, []).append(connection)
        self._plain.pop(key, None)
        return stream

    def forget(self, connection: Http2Upstream) -> None:
        """Give no more streams of ``connection``; doing it twice is no error."""
        held = self._open.get(connection.key, [])
        if connection in held:
            held.remove(connection)
            if not held:
                del self._open[connection.key]

    async def dial(self, key: PoolKey, connect: Callable[[], Awaitable[Upstream]]) -> Upstream:
        """Connect, or wait for whoever is connecting to the same; raises :class:`UpstreamError`.

        Many streams that begin at once get one connection, unless its server speaks HTTP/1.1 alone.
        """
        loop = asyncio.get_running_loop()
        while self._plain.get(key, 0.0) <= loop.time():
            stream = self.stream(key)
            if stream is not None:
                return stream
            dialling = self._dialling.get(key)
            if dialling is None:
                return await self._dial_first(key, connect, loop)
            failure = await asyncio.shield(dialling)
            if failure is not None:
                raise UpstreamError(failure.reason, str(failure), denied=failure.denied)
        return await connect()

    async def _dial_first(
        self, key: PoolKey, connect: Callable[[], Awaitable[Upstream]], loop: asyncio.AbstractEventLoop
    ) -> Upstream:
        future = self._dialling[key] = loop.create_future()
        failed: UpstreamError | None = None
        try:
            upstream = await connect()
        except UpstreamError as error:
            failed = error
            raise
        finally:
            del self._dialling[key]
            future.set_result(failed)
        if not upstream.http2:
            self._plain[key] = loop.time() + _PLAIN_SECONDS
        return upstream

    def drop(self, unwanted: Callable[[str], bool]) -> int:
        """Use the connections to hosts that are ``unwanted`` no more; gives how many there were."""
        dropped = [one for key, held in self._open.items() if unwanted(key[1]) for one in held]
        for connection in dropped:
            connection.retire()
        return len(dropped)

    def sweep(self, now: float) -> None:
        """Close what has been idle too long, and forget what is no longer sure."""
        for held in tuple(self._open.values()):
            for connection in tuple(held):
                connection.sweep(now)
        for key in [key for key, until in self._plain.items() if until <= now]:
            del self._plain[key]
