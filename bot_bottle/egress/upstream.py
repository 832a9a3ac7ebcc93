"""One connection to an upstream: speaks HTTP/1.1 to it and hands the answer on as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from bot_bottle.egress.bodies import LAST_CHUNK, Body, ChunkedBody, EndlessBody, LengthBody, chunk
from bot_bottle.egress.grammar import BadMessageError, HeadBuffer, StatusLine, read_status_line
from bot_bottle.egress.headers import ResponseHeaders, read_response_headers

#: (scheme, host, port, token_ref): connections are never shared between credentials. Where HTTP/2 is offered
#: the scheme is ``h2``, so that a WebSocket is never given a connection that may speak it.
PoolKey: TypeAlias = tuple[str, str, int, str]

_MAX_HEAD_BYTES = 256 * 1024
#: How much of a request waits for its server above the socket.
_WRITE_BUFFER_BYTES = 64 * 1024

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.egress.pool import UpstreamPool


class ResponseSink(Protocol):
    """Who hears a response: one exchange."""

    def on_whole_response(
        self, line: StatusLine, headers: ResponseHeaders, message: bytes, head: int
    ) -> None:
        """Take a final response that came at once, head, body and end; nothing else follows.

        ``message`` is all of it as it came, of which the first ``head`` bytes are its head.
        """

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """Take a status line and headers; may come again after a 1xx one."""

    def on_response_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def on_response_end(self, trailers: Sequence[bytes] = ()) -> None:
        """Take the end of the response, and the lines of its trailers where its protocol gives them."""

    def on_tunnel_data(self, data: bytes) -> None:
        """Take bytes that follow a 101 response."""

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """Hear that the connection ended before the response did."""

    def on_upstream_writable(self, *, writable: bool) -> None:
        """Hear whether the server keeps up with the request."""

    def flush(self) -> None:
        """Send what has been gathered to the client."""


class Upstream(Protocol):
    """What carries one exchange to a server: a connection, or one stream of a connection.

    ``reused`` says that its connection has carried another exchange before, ``http2`` what is spoken on it.
    """

    reused: bool
    http2: bool

    @property
    def waiting(self) -> int:
        """How many bytes of the request wait to be sent."""

    def begin(self, sink: ResponseSink, *, head_request: bool, chunked: bool = False) -> None:
        """Carry ``sink``'s exchange.

        ``head_request`` says its response has no body (RFC 9110, 9.3.2), ``chunked`` that its request has one
        of unknown length.
        """

    def send_request(self, head: bytes, body: Sequence[bytes] = (), *, ended: bool) -> None:
        """Send a request's head, as HTTP/1.1 writes it, and what is there of its body."""

    def send_body(self, data: bytes) -> None:
        """Send a piece of the request's body; not empty."""

    def end_body(self) -> None:
        """End the request's body."""

    def write(self, data: bytes) -> None:
        """Send bytes of an upgraded connection."""

    def pause(self) -> None:
        """Stop reading: the client does not keep up."""

    def resume(self) -> None:
        """Read on."""

    def finish(self) -> None:
        """Send what is waiting and close: the end of an upgraded connection."""

    def abort(self) -> None:
        """Drop the exchange and tell nobody."""

    def release(self) -> None:
        """Give the connection back after a whole exchange."""


class UpstreamError(Exception):
    """The upstream could not be used.

    ``reason`` is a stable code, ``denied`` says it must not be used, ``unprocessed`` that it has not looked
    at the request, ``code`` is its HTTP/2 error (RFC 9113, 7), -1 where it gave none.
    """

    def __init__(
        self, reason: str, message: str, *, denied: bool = False, unprocessed: bool = False, code: int = -1
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.denied = denied
        self.unprocessed = unprocessed
        self.code = code


class UpstreamConnection(asyncio.Protocol):
    """One connection to one upstream; carries one exchange at a time."""

    http2 = False

    def __init__(self, pool: UpstreamPool, key: PoolKey) -> None:
        self.key = key
        self.idle_until = 0.0
        self.reused = False
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._sink: ResponseSink | None = None
        self._held = HeadBuffer(read_status_line, limit=_MAX_HEAD_BYTES)
        self._body: Body | None = None
        self._facts: ResponseHeaders | None = None
        self._head_request = False
        self._chunked = False
        self._tunnel = False
        self._done = False
        self._sound = False
        self._paused = False

    # What an exchange calls.

    @property
    def waiting(self) -> int:
        """How many bytes of the request wait to be sent."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def begin(self, sink: ResponseSink, *, head_request: bool, chunked: bool = False) -> None:
        """Carry ``sink``'s exchange."""
        self._sink = sink
        self._head_request = head_request
        self._chunked = chunked
        self._done = False

    def send_request(self, head: bytes, body: Sequence[bytes] = (), *, ended: bool) -> None:
        """Send a request's head and what is there of its body, in one write."""
        if self._chunked:
            end = LAST_CHUNK if ended else b""
            self.write(b"".join((head, *(chunk(data) for data in body), end)))
        else:
            self.write(b"".join((head, *body)) if body else head)

    def send_body(self, data: bytes) -> None:
        """Send a piece of the request's body."""
        self.write(chunk(data) if self._chunked else data)

    def end_body(self) -> None:
        """End the request's body."""
        if self._chunked:
            self.write(LAST_CHUNK)

    def write(self, data: bytes) -> None:
        """Send bytes of the request, or of an upgraded connection."""
        if self._transport:
            self._transport.write(data)

    def pause(self) -> None:
        """Stop reading: the client does not keep up."""
        self._paused = True
        if self._transport and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and self._transport and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def finish(self) -> None:
        """Send what is waiting and close: the end of an upgraded connection."""
        self._sink = None
        if self._transport:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection and tell nobody."""
        self._sink = None
        if self._transport:
            self._transport.abort()

    def release(self) -> None:
        """Give the connection back after a whole exchange, or close it where it cannot carry another."""
        self._sink = None
        facts, transport = self._facts, self._transport
        if transport is None or transport.is_closing():
            return
        if facts is None or not self._sound:
            transport.abort()
            return
        self._facts = self._body = None
        self.resume()
        self._pool.keep(self, facts.idle_seconds)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        self._transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Parse what the server sent and hand it on before returning, so that streams flow as they come."""
        sink = self._sink
        if sink is None or (self._done and not self._tunnel):
            self._pool.forget(self)
            self.abort()  # bytes nobody asked for
            return
        if self._tunnel:
            sink.on_tunnel_data(data)
            sink.flush()
            return
        try:
            self._read(sink, data)
        except BadMessageError as error:
            self._fail("upstream_protocol", str(error))
        except Exception as error:  # noqa: BLE001 - fail closed: what cannot be read is not passed on
            self._fail("upstream_protocol", f"egress failed inside ({type(error).__name__})")
        sink.flush()

    def eof_received(self) -> bool | None:
        """Take the end of the stream for the end of a body that says so itself (RFC 9112, 6.3)."""
        sink = self._sink
        if sink is not None and isinstance(self._body, EndlessBody) and not self._done:
            self._end(sink, sound=False)
            sink.flush()
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tell the exchange, if one was under way."""
        self._transport = None
        self._pool.forget(self)
        sink = self._sink
        if sink is not None:
            self._fail("upstream_closed", "the server closed the connection before its answer was whole")
            sink.flush()

    def pause_writing(self) -> None:
        """The server does not keep up with the request body."""
        if self._sink:
            self._sink.on_upstream_writable(writable=False)

    def resume_writing(self) -> None:
        """The server keeps up again."""
        if self._sink:
            self._sink.on_upstream_writable(writable=True)

    # Inside.

    def _read(self, sink: ResponseSink, data: bytes) -> None:
        """Read a piece of the response; raises :class:`BadMessageError`."""
        held = self._held
        position = 0
        if held.data:
            held.data += data
            if held.end() < 0:
                held.check()
                return
            data = bytes(held.data)
            held.clear()
        size = len(data)
        body = self._body
        while body is None:
            end = data.find(b"\r\n\r\n", position)
            if end < 0:
                if position < size:
                    held.set(data[position:])
                    held.check()
                return
            position = self._on_head(sink, data, position, end)
            if self._tunnel:
                if position < size:
                    sink.on_tunnel_data(data[position:])
                return
            body = self._body  # still none after an interim response
        if position < size:
            piece, position = body.take(data, position)
            if piece:
                sink.on_response_body(piece)
        if body.done:
            # Bytes behind the end were asked for by nobody: such a connection is not used again.
            self._end(sink, sound=position == size)

    def _on_head(self, sink: ResponseSink, data: bytes, start: int, end: int) -> int:
        """Judge the framing and pass a head on; gives where it ends."""
        if end - start > _MAX_HEAD_BYTES:
            raise BadMessageError("the server's response header is too large", status=502)
        eol = data.find(b"\r\n", start)
        line = read_status_line(data[start:eol])
        facts = read_response_headers(data[eol + 2 : end], http_1_0=line.http_1_0)
        status = line.status
        position = end + 4
        if status < 200:
            sink.on_response_head(line, facts)
            self._tunnel = status == 101
            return position
        length = 0 if self._head_request or status in {204, 304} else facts.content_length
        if length is not None and start == 0 and position + length == len(data) and not facts.chunked:
            self._on_whole(sink, line, facts, data, position)
            return len(data)
        sink.on_response_head(line, facts)
        self._facts = facts
        if length is not None and (length == 0 or not facts.chunked):
            self._body = LengthBody(length)
        else:
            self._body = ChunkedBody() if facts.chunked else EndlessBody()
        return position

    def _on_whole(
        self, sink: ResponseSink, line: StatusLine, facts: ResponseHeaders, data: bytes, position: int
    ) -> None:
        """Pass on a response of which nothing is missing and behind which there is nothing."""
        self._facts = facts
        self._sound = facts.keep_alive
        self._done = True
        try:
            sink.on_whole_response(line, facts, data, position)
        except BaseException:
            self._done = False  # its exchange has not heard the end, and hears of the failure
            raise

    def _end(self, sink: ResponseSink, *, sound: bool) -> None:
        facts = self._facts
        self._sound = sound and facts is not None and facts.keep_alive
        self._done = True
        sink.on_response_end()

    def _fail(self, reason: str, message: str) -> None:
        sink, self._sink = self._sink, None
        if self._transport:
            self._transport.abort()
        if sink and (not self._done or self._tunnel):
            sink.on_upstream_lost(UpstreamError(reason, message))
