"""One client connection: parses requests, keeps their order, and answers what cannot be a request."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import httptools

from bot_bottle.egress.denial import denial_body, denial_headers, header_timeout, own_head
from bot_bottle.egress.exchange import Exchange, internal_error
from bot_bottle.egress.headers import BadMessageError, RawHeader, header_too_large, read_request_headers
from bot_bottle.egress.target import with_sni
from bot_bottle.egress.tls import SniSSLObject

if TYPE_CHECKING:
    from bot_bottle.decision import Deny
    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.proxy import EgressProxy
    from bot_bottle.egress.target import Arrival

_MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 200
#: How much of our own answers is gathered before the loop gets a chance to send it and to say "enough".
_MAX_GATHERED_BYTES = 64 * 1024

_HEAD_SECONDS = 30.0
_IDLE_SECONDS = 120.0
_STALLED_SECONDS = 900.0
_TUNNEL_SECONDS = 4 * 3600.0
_LINGER_SECONDS = 2.0


class ClientConnection(asyncio.Protocol):
    """A connection from inside the bottle, plain or with its TLS already taken off."""

    def __init__(self, proxy: EgressProxy, arrival: Arrival, *, admitted: bool = False) -> None:
        self.proxy = proxy
        self.arrival = arrival
        self.write_paused = False
        self._admitted = admitted
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._held = b""
        self._parsing = False
        self._going_on = False
        self._queue: deque[Exchange] = deque()
        self._receiving: Exchange | None = None
        self._tunnel: Exchange | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._in_head = False
        self._head_done = False
        self._head_bytes = 0
        self._unparsed = 0
        self._body_left = 0
        self._url = b""
        self._headers: list[RawHeader] = []
        self._connect: tuple[bytes, RequestHeaders] | None = None
        self._resumed_body: Exchange | None = None
        self._poison: tuple[int, Deny] | None = None
        self._holding = False
        self._reading = True
        self._closing = False
        self._lingering = False
        self._touched = 0.0
        self._head_began = 0.0
        self._paused_at = 0.0

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection from a listener, or turn it away where there are too many."""
        self.attach(transport)
        if not self._admitted and not self.proxy.admit(self):
            deny = self.proxy.crowded()
            self.proxy.record_refusal(deny, arrival=self.arrival)
            self.refuse(503, deny, linger=False)  # nobody counts or sweeps this connection

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """Start on a transport that is connected already, with what it has delivered so far."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio subclasses
        self._touched = self.proxy.loop.time()
        session = transport.get_extra_info("ssl_object")
        if isinstance(session, SniSSLObject):
            self.arrival = with_sni(self.arrival, session.sni)
        early, self._early = self._early, []
        for data in early:
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent."""
        if self._transport is None:
            self._early.append(data)
            return
        if self._closing or self._poison:
            return
        self._touched = self.proxy.loop.time()
        if self._tunnel is not None:
            self._tunnel.on_client_bytes(data)
            return
        self._held = self._held + data if self._held else data
        self._parse()
        self.flush()

    def eof_received(self) -> bool:
        """Let a client that has said all it will say still get its answer."""
        waiting = bool(self._queue) and self._tunnel is None and self._queue[-1].request_done
        if waiting:
            self._queue[-1].close_after = True
        return waiting and self.arrival.scheme == "http"

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give up everything under way."""
        self._transport = None
        self._held = b""
        queue, self._queue = self._queue, deque()
        for exchange in queue:
            exchange.abandon()
        self.proxy.leave(self)

    def pause_writing(self) -> None:
        """The client does not keep up: nothing more is fetched or answered for it."""
        self.write_paused = True
        self._paused_at = self.proxy.loop.time()
        if self._queue:
            self._queue[0].on_client_writable(writable=False)
        self._update_reading()

    def resume_writing(self) -> None:
        """The client keeps up again."""
        self.write_paused = False
        self._head_began = max(self._head_began, self._paused_at)  # we have not been reading since
        if self._queue:
            self._queue[0].on_client_writable(writable=True)
            self.proxy.loop.call_soon(self._next)
        self._update_reading()

    def sweep(self, now: float) -> None:
        """End the connection where nothing has moved for too long."""
        quiet = now - self._touched
        if self.write_paused and now - self._paused_at > _STALLED_SECONDS:
            self.abort()  # it does not read: a close would wait for it without end
        elif self._transport and self._transport.is_closing():
            if quiet > _STALLED_SECONDS:
                self.abort()
        elif self._lingering:
            if quiet > _LINGER_SECONDS and self._transport:
                self._transport.close()
        elif self._tunnel is not None:
            if quiet > _TUNNEL_SECONDS:
                self.abort()
        elif self._queue:
            if quiet > _STALLED_SECONDS:
                self.abort()
        elif self.write_paused:
            return  # what it has begun to say waits because we do not read
        elif self._in_head:
            if now - self._head_began > _HEAD_SECONDS:  # from its first byte: dripping more does not help
                self._answer(408, header_timeout())
        elif quiet > _IDLE_SECONDS and self._transport:
            self._transport.close()

    def finish(self) -> None:
        """Send what is waiting and close: the end of an upgraded connection."""
        self.flush()
        self._close(clean=True)

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport:
            self._transport.abort()

    # The exchanges' side.

    def send(self, data: bytes) -> None:
        """Gather bytes for the client; :meth:`flush` sends them."""
        self._out.append(data)
        self._out_bytes += len(data)

    def flush(self) -> None:
        """Send what was gathered in one write."""
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._touched = self.proxy.loop.time()
            if self._transport:
                self._transport.write(data)

    def hold_reading(self, exchange: Exchange, *, hold: bool) -> None:
        """Stop or go on reading, as ``exchange`` can take more of its request or not."""
        if exchange is self._receiving or not hold:
            self._holding = hold
            self._update_reading()

    def enter_tunnel(self, exchange: Exchange) -> None:
        """From here on bytes belong to ``exchange``'s upgraded connection."""
        self._tunnel = exchange
        self._holding = False
        if self._held:
            self.abort()  # said before the answer, so no part of the new protocol
        self._update_reading()

    def exchange_done(self, exchange: Exchange) -> None:
        """Go on with the next request, if there is one."""
        if not self._queue or self._queue[0] is not exchange:
            return
        self._queue.popleft()
        if exchange is self._receiving:
            self._holding = False
        if exchange.close_after:
            self.flush()
            # A refusal may be ready before the parser says that a request without a body has ended.
            self._close(clean=exchange.request_done or not exchange.facts.has_body)
        elif self._queue:
            # Not within the callbacks of the answer that has just ended.
            self.proxy.loop.call_soon(self._next)
        elif self._poison:
            status, deny = self._poison
            self._answer(status, deny)
        else:
            self._update_reading()

    def _next(self) -> None:
        if self._queue and not self._closing and not self.write_paused and not self._queue[0].started:
            self._update_reading()
            self._queue[0].start()
            self.flush()

    def take_over(self) -> asyncio.Transport | None:
        """Hand the transport to another protocol; this one forgets it."""
        transport, self._transport = self._transport, None
        return transport

    # Parsing.

    def _parse(self) -> None:
        """Parse what is held, a message at a time, for as long as what comes of it has room."""
        data, self._held = self._held, b""
        position = 0
        self._parsing = True
        while position < len(data) and self._transport and not self._closing and not self._poison:
            last = self._queue[-1] if self._queue else None
            if last and last.websocket:
                self.abort()  # RFC 6455, 4.1: nothing may follow the handshake before its answer
                break
            if last and last.close_after and last.request_done:
                break  # what follows a "Connection: close" request is nobody's
            if not self._has_room() or self._out_bytes > _MAX_GATHERED_BYTES:
                self._held = data[position:]
                break
            try:
                position = self._feed(data, position)
            except BaseException:
                self.abort()  # fail closed: what cannot be parsed is not guessed at
                raise
        self._parsing = False
        self._update_reading()

    def _go_on(self) -> None:
        self._going_on = False
        if self._held and self._has_room() and not self._closing:
            self._parse()
            self.flush()

    def _has_room(self) -> bool:
        """Whether another piece may be parsed; a body may, also from a client that does not read answers."""
        if self._holding:
            return False
        if self._closing or self._tunnel is not None:
            return True
        if len(self._queue) > 1:
            return False
        return not self.write_paused or self._in_body()

    def _in_body(self) -> bool:
        return self._receiving is not None and not self._receiving.request_done

    def _feed(self, data: bytes, start: int) -> int:
        """Give the parser the piece at ``start`` that reaches into no second message; gives where it ends."""
        if self._receiving is not None and self._in_body() and not self._receiving.facts.chunked:
            end = min(len(data), start + max(1, self._body_left))
        else:
            # A head ends in an empty line, and so does a chunked body (RFC 9112, 2.1 and 7.1).
            found = data.find(b"\r\n\r\n", start)
            end = len(data) if found < 0 else found + 4
        piece = data[start:end]
        behind = self._feed_parser(piece)
        if behind is not None:
            return self._upgraded(data, start + behind)
        if self._in_head and not self._poison and not self._closing:
            self._unparsed += len(piece)
            if self._unparsed > _MAX_HEAD_BYTES:
                self._broken(431, header_too_large().deny)
        return end

    def _feed_parser(self, piece: bytes) -> int | None:
        """Parse ``piece``; gives where its head ends if the parser expects another protocol there."""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            return int(upgrade.args[0])
        except httptools.HttpParserCallbackError as error:
            if self._closing:
                return None
            cause = error.__context__
            if isinstance(cause, BadMessageError):
                self._broken(cause.status, cause.deny)
            else:
                self._broken(500, internal_error(cause or error))
        except httptools.HttpParserError as error:
            if not self._closing:
                self._malformed(piece, error)
        return None

    def _malformed(self, data: bytes, error: httptools.HttpParserError) -> None:
        if self._queue and self._queue[-1].close_after and self._queue[-1].request_done:
            return
        connect = data.lstrip(b"\r\n").startswith(b"CONNECT ")
        reason = "bad_authority" if connect else "bad_request"
        bad = BadMessageError(f"the request is not well-formed HTTP/1.1 ({error})", reason=reason)
        self._broken(403 if connect else 400, bad.deny)

    def _broken(self, status: int, deny: Deny) -> None:
        """Refuse what cannot be parsed: at once, or once the requests before it are answered."""
        receiving = self._receiving
        self._in_head = False
        if receiving is not None and not receiving.request_done:
            self._receiving = None
            if self._queue and self._queue[0] is receiving and not receiving.response_begun:
                receiving.refuse(status, deny)
            else:
                self.flush()
                self.abort()
        elif self._queue:
            self._poison = (status, deny)
            self._update_reading()
        else:
            self._answer(status, deny)

    def on_message_begin(self) -> None:
        """Start a request."""
        if self._resumed_body is not None:
            return
        if self._closing:
            raise ConnectionAbortedError("nothing more is read from this connection")
        self._in_head = True
        self._head_done = False
        self._head_bytes = 0
        self._unparsed = 0
        self._url = b""
        self._headers = []
        self._head_began = self.proxy.loop.time()

    def on_url(self, url: bytes) -> None:
        """Collect the request target."""
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; trailers come after the head and are dropped."""
        if not self._head_done:
            self._headers.append((name, value))
            self._count(len(name) + len(value) + 4)

    def _count(self, size: int) -> None:
        # What one read brings is counted here, what trickles in without becoming a header by _feed().
        self._head_bytes += size
        if self._head_bytes > _MAX_HEAD_BYTES or len(self._headers) > _MAX_HEADERS:
            raise header_too_large()

    def on_headers_complete(self) -> None:
        """Make an exchange of the request and start it if it is its turn."""
        if self._resumed_body is not None:
            return
        parser = self._parser
        self._head_done = True
        self._in_head = False
        version = parser.get_http_version()
        if version not in {"1.1", "1.0"}:
            raise BadMessageError(f"HTTP/{version} is not spoken here", reason="http_version", status=505)
        facts = read_request_headers(self._headers, http_1_0=version == "1.0")
        method = parser.get_method()
        if method == b"CONNECT":
            self._connect = (self._url, facts)
            return
        websocket = (
            parser.should_upgrade()
            and facts.upgrade == b"websocket"
            and method == b"GET"
            and version == "1.1"
        )
        if websocket and facts.has_body:
            raise BadMessageError("a WebSocket handshake has no body")
        exchange = Exchange(
            self,
            method=method,
            target=self._url,
            facts=facts,
            http_1_0=version == "1.0",
            keep_alive=bool(parser.should_keep_alive()),
            websocket=websocket,
        )
        self._receiving = exchange
        self._body_left = facts.content_length or 0
        if parser.should_upgrade() and facts.has_body:
            self._resumed_body = exchange
        self._queue.append(exchange)
        if len(self._queue) == 1 and not self.write_paused:
            exchange.start()

    def on_body(self, data: bytes) -> None:
        """Pass a piece of the body to its exchange."""
        self._body_left -= len(data)
        if self._receiving is not None:
            self._receiving.on_request_body(data)

    def on_message_complete(self) -> None:
        """End the request, unless the parser only thinks so because of an upgrade that is not made."""
        exchange = self._receiving
        if exchange is None or exchange.request_done:
            return  # the end of a CONNECT
        if self._resumed_body is None or not self._parser.should_upgrade():
            self._resumed_body = None
            exchange.on_request_end()

    def _upgraded(self, data: bytes, position: int) -> int:
        """Go on behind a head after which the parser expects another protocol; gives where to go on."""
        self._parser = httptools.HttpRequestParser(self)
        if self._connect is not None:
            (target, facts), self._connect = self._connect, None
            if self._queue:
                self._broken(400, BadMessageError("CONNECT came before the answers to earlier requests").deny)
            elif position < len(data):
                self._answer(400, BadMessageError("bytes came before the CONNECT was answered").deny)
            else:
                self.proxy.connect(self, target, facts)
            return len(data)
        exchange = self._receiving
        if self._resumed_body is not None and exchange is not None:
            # Another upgrade than WebSocket is ignored (RFC 9110, 7.8), but the parser has left out the body:
            # a new one is given the framing alone and reads it.
            facts = exchange.facts
            framing = (
                b"Transfer-Encoding: chunked"
                if facts.chunked
                else b"Content-Length: %d" % (facts.content_length or 0)
            )
            self._feed_parser(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        return position

    # Closing and answering.

    def refuse(self, status: int, deny: Deny, *, host: str = "", linger: bool = True) -> None:
        """Answer a refusal that is on record already, and close."""
        body = denial_body(deny, host=host, identity=self.proxy.identity)
        self.send(own_head(status, len(body), denial_headers(deny), close=True) + body)
        self.flush()
        self._close(clean=not linger)

    def _answer(self, status: int, deny: Deny) -> None:
        self.proxy.record_refusal(deny, arrival=self.arrival)
        self.refuse(status, deny)

    def _close(self, *, clean: bool) -> None:
        """Close; where the client may still be sending, read and drop for a moment so that it can read us."""
        self._closing = True
        self._held = b""
        if self._transport is None:
            return
        if clean:
            self._transport.close()
            return
        self._lingering = True
        self._touched = self.proxy.loop.time()
        self._holding = False
        self._update_reading()
        if self.arrival.scheme == "http" and self._transport.can_write_eof():
            self._transport.write_eof()

    def _update_reading(self) -> None:
        transport = self._transport
        if self._parsing or transport is None or transport.is_closing():
            return
        room = self._has_room()
        if room and self._held and not self._going_on:
            self._going_on = True
            self.proxy.loop.call_soon(self._go_on)
        reading = room and not self._held
        if reading == self._reading:
            return
        self._reading = reading
        if reading:
            transport.resume_reading()
        else:
            transport.pause_reading()
