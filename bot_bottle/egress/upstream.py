"""One connection to an upstream: speaks HTTP/1.1 to it and hands the answer on as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeAlias

import httptools

from bot_bottle.egress.headers import BadMessageError, RawHeader, ResponseHeaders, read_response_headers

#: (scheme, host, port, token_ref): connections are never shared between credentials.
PoolKey: TypeAlias = tuple[str, str, int, str]

_MAX_HEAD_BYTES = 256 * 1024
#: How much of a request waits for its server above the socket; uvloop's own bound for TLS is 512 KiB.
_WRITE_BUFFER_BYTES = 64 * 1024

if TYPE_CHECKING:
    from bot_bottle.egress.pool import UpstreamPool


class ResponseSink(Protocol):
    """Who hears a response: one exchange."""

    def on_response_head(self, status: int, phrase: bytes, headers: ResponseHeaders) -> None:
        """Take a status line and headers; may come again after a 1xx one."""

    def on_response_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def on_response_end(self) -> None:
        """Take the end of the response."""

    def on_tunnel_data(self, data: bytes) -> None:
        """Take bytes that follow a 101 response."""

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """Hear that the connection ended before the response did."""

    def on_upstream_writable(self, *, writable: bool) -> None:
        """Hear whether the server keeps up with the request."""

    def flush(self) -> None:
        """Send what has been gathered to the client."""


class UpstreamError(Exception):
    """The upstream could not be used: ``reason`` is a stable code, ``address`` says it must not be."""

    def __init__(self, reason: str, message: str, *, denied: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.denied = denied


class UpstreamConnection(asyncio.Protocol):
    """One connection to one upstream; carries one exchange at a time."""

    def __init__(self, pool: UpstreamPool, key: PoolKey) -> None:
        self.key = key
        self.idle_until = 0.0
        self.reused = False
        self._pool = pool
        self._transport: asyncio.Transport | None = None
        self._socket: asyncio.Transport | None = None
        self._sink: ResponseSink | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[RawHeader] = []
        self._phrase = b""
        self._head_bytes = 0
        self._unparsed = 0
        self._facts: ResponseHeaders | None = None
        self._bodyless = False
        self._head_request = False
        self._until_eof = False
        self._tunnel = False
        self._done = False
        self._feeding = False
        self._released = False

    # What an exchange calls.

    def begin(self, sink: ResponseSink, *, head_request: bool) -> None:
        """Carry ``sink``'s exchange; ``head_request`` says its response has no body (RFC 9110, 9.3.2)."""
        self._sink = sink
        self._head_request = head_request
        self._done = False

    def write(self, data: bytes) -> None:
        """Send bytes of the request."""
        if self._transport:
            self._transport.write(data)

    def pause(self) -> None:
        """Stop reading: the client does not keep up.

        The socket is paused, not the TLS layer above it: that one throws away what it has decrypted, and
        nobody has read, when it hears the end of the stream meanwhile (uvloop, ``SSLProtocol.eof_received``).
        """
        if self._socket and not self._socket.is_closing():
            self._socket.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._socket and not self._socket.is_closing():
            self._socket.resume_reading()

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
        if self._feeding:
            self._released = True  # the rest of what is being parsed decides whether this one is still sound
        else:
            self._keep()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = self._socket = transport  # type: ignore[assignment]  # uvloop's are no subclasses

    def secured(self, transport: asyncio.Transport) -> None:
        """Speak through ``transport``, the TLS layer over the socket, from here on."""
        self._transport = transport
        transport.set_write_buffer_limits(_WRITE_BUFFER_BYTES)

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
        self._feeding = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switched(sink, data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._fail(
                "upstream_protocol", str(cause) if isinstance(cause, BadMessageError) else "broken response"
            )
        except httptools.HttpParserError:
            if not self._done:  # else it is only what follows a "Connection: close" or HEAD response
                self._fail("upstream_protocol", "the server's answer is not HTTP/1.1")
        if self._facts is None:
            self._unparsed += len(data)
            if self._unparsed > _MAX_HEAD_BYTES:
                self._fail("upstream_protocol", "the server's response header is too large")
        self._feeding = False
        if self._released:
            self._released = False
            self._keep()
        sink.flush()

    def eof_received(self) -> bool | None:
        """Take the end of the stream for the end of a body that says so itself (RFC 9112, 6.3)."""
        sink = self._sink
        if sink is not None and self._until_eof and not self._done:
            self._end()
            sink.flush()
        return None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tell the exchange, if one was under way."""
        self._transport = self._socket = None
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

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Start a response (a 1xx one, or the one)."""
        self._headers = []
        self._phrase = b""
        self._facts = None
        self._head_bytes = 0
        self._unparsed = 0

    def on_status(self, phrase: bytes) -> None:
        """Collect the reason phrase."""
        self._phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers come after the head and are dropped."""
        if self._facts is None:
            self._headers.append((name, value))
            self._head_bytes += len(name) + len(value) + 4
            if self._head_bytes > _MAX_HEAD_BYTES:
                raise BadMessageError("the server's response header is too large", status=502)

    def on_headers_complete(self) -> None:
        """Judge the framing and pass the head on."""
        status = self._parser.get_status_code()
        facts = read_response_headers(self._headers, http_1_0=self._parser.get_http_version() == "1.0")
        self._facts = facts
        self._bodyless = self._head_request or status < 200 or status in {204, 304}
        self._until_eof = not self._bodyless and not facts.chunked and facts.content_length is None
        if self._sink is None or self._done:
            raise BadMessageError("the server sent an answer nobody asked for", status=502)
        self._sink.on_response_head(status, self._phrase, facts)
        self._tunnel = status == 101
        if self._head_request and status >= 200:
            self._end()

    def on_body(self, data: bytes) -> None:
        """Pass a piece of the body on."""
        if self._bodyless or self._sink is None or self._done:
            raise BadMessageError("the server sent a body where there is none", status=502)
        self._sink.on_response_body(data)

    def on_message_complete(self) -> None:
        """End the exchange, unless this was an interim (1xx) response."""
        if not self._tunnel and not self._done and self._parser.get_status_code() >= 200:
            self._end()

    def _keep(self) -> None:
        facts, transport = self._facts, self._transport
        if transport is None or transport.is_closing():
            return
        if facts is None or not facts.keep_alive or self._until_eof or self._tunnel:
            transport.abort()
            return
        if self._head_request:
            # The parser waits for the body that a HEAD response announces; a new one does not.
            self._parser = httptools.HttpResponseParser(self)
        self.resume()
        self._pool.keep(self, facts.idle_seconds)

    def _switched(self, sink: ResponseSink, rest: bytes) -> None:
        if not self._tunnel:
            self._fail("upstream_protocol", "the server switched protocols unasked")
        elif rest:
            sink.on_tunnel_data(rest)

    def _end(self) -> None:
        self._done = True
        if self._sink:
            self._sink.on_response_end()

    def _fail(self, reason: str, message: str) -> None:
        sink, self._sink = self._sink, None
        if self._transport:
            self._transport.abort()
        if sink and (not self._done or self._tunnel):
            sink.on_upstream_lost(UpstreamError(reason, message))
