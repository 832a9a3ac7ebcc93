"""A road for git and ssh through the operator's proxy, of which they see a port on loopback and nothing else.

Neither program is told the proxy, its user or its password: they reach this relay, which opens the road as
egress does (:mod:`~bot_bottle.egress.roads`) and passes bytes. It leads to one upstream, and takes only
connections of this account's programs, so that it opens nothing to others of the machine. TLS and ssh stay
between git and the upstream: the certificate, or the pinned host key, is judged at their ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING

from bot_bottle.egress.hosts import format_authority
from bot_bottle.egress.upstream import UpstreamError
from bot_bottle.egress.way import first_of, in_order
from bot_bottle.socket_table import owner_of, read_table

if TYPE_CHECKING:
    from bot_bottle.egress.roads import Roads

_QUESTION_SECONDS = 20.0
_CONNECT_SECONDS = 15.0
#: How long one side may still speak once the other has said all.
_LINGER_SECONDS = 60.0
_PIECE = 64 * 1024
_MAX_QUESTION = 16 * 1024


class Relay:
    """Leads to ``host:port``; :meth:`open` then :meth:`close`, on one event loop.

    With ``asked`` a client asks by CONNECT first (RFC 9110, 9.3.6), as one of HTTP's does; otherwise it finds
    itself at the upstream at once.
    """

    def __init__(self, roads: Roads, host: str, port: int, *, asked: bool) -> None:
        self._roads = roads
        self._host, self._port = host, port
        self._asked = asked
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        #: Why the last connection led nowhere, in words that are safe to show; empty where it did not fail.
        self.failure = ""

    async def open(self) -> None:
        """Listen on loopback; raises ``OSError``."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_PIECE)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening and drop what is under way."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        try:
            if not _is_ours(writer):
                return
            if self._asked and not await self._is_for_here(reader):
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            try:
                far_reader, far = await self._dial()
            except (UpstreamError, OSError) as error:
                self.failure = _words(error, self._host)
                if self._asked:
                    writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            if self._asked:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _join((reader, writer), (far_reader, far))
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # one of the two is gone, which the other hears
        finally:
            writer.close()
            if far is not None:
                far.close()

    async def _is_for_here(self, reader: asyncio.StreamReader) -> bool:
        async with asyncio.timeout(_QUESTION_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head[:_MAX_QUESTION].partition(b" ")
        target = rest.partition(b" ")[0].decode("latin-1").lower()
        return method == b"CONNECT" and target == format_authority(self._host, self._port).lower()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        addresses, port = await self._roads.addresses(self._host, self._port, declared=True)
        attempts = [partial(self._connect, address, port) for address in in_order(addresses)]
        return await first_of(attempts, discard=lambda late: late[1].transport.abort())

    async def _connect(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_PIECE, loop=loop)
        kept: list[asyncio.Transport] = []
        protocol = _Far(reader, kept)
        async with asyncio.timeout(_CONNECT_SECONDS):
            await self._roads.open(protocol, self._host, address, port, server_first=not self._asked)
        return reader, asyncio.StreamWriter(kept[0], protocol, reader, loop)


class _Far(asyncio.StreamReaderProtocol):
    """The upstream's end of a stream, whose transport is noted for who made it."""

    def __init__(self, reader: asyncio.StreamReader, kept: list[asyncio.Transport]) -> None:
        super().__init__(reader)
        self._kept = kept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        super().connection_made(transport)
        self._kept.append(transport)  # type: ignore[arg-type]  # uvloop's transports are no subclasses


_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _join(near: _Stream, far: _Stream) -> None:
    """Pass bytes both ways until both sides have said all, or one has and the other says no more for long."""
    pumps = {asyncio.ensure_future(_pump(near[0], far[1])), asyncio.ensure_future(_pump(far[0], near[1]))}
    try:
        done, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        if rest and all(pump.exception() is None for pump in done):
            await asyncio.wait(rest, timeout=_LINGER_SECONDS)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_PIECE):
        sink.write(data)
        await sink.drain()
    with contextlib.suppress(OSError):
        sink.write_eof()


def _words(error: OSError | UpstreamError, host: str) -> str:
    if isinstance(error, UpstreamError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"{host} did not answer in time"
    return f"{host} cannot be reached ({error.strerror or 'no connection'})"


def _is_ours(writer: asyncio.StreamWriter) -> bool:
    """Tell whether the program at the other end runs for this account; what cannot be told is not ours."""
    peer, here = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
    if not peer or not here:
        return False
    try:
        table = read_table()
    except OSError:
        return False
    return owner_of(table, peer, here) == os.getuid()
