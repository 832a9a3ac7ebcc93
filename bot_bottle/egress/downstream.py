"""One client connection: keeps its requests in order, and answers what cannot be a request."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from bot_bottle.egress.answering import internal_error
from bot_bottle.egress.bodies import ChunkedBody, LengthBody
from bot_bottle.egress.denial import denial_body, denial_headers, header_timeout, own_head
from bot_bottle.egress.exchange import Exchange
from bot_bottle.egress.grammar import BadMessageError, is_origin_form, read_request_line
from bot_bottle.egress.headers import read_request_headers
from bot_bottle.egress.reader import RequestReader
from bot_bottle.egress.stalled import too_much_waits
from bot_bottle.egress.target import with_sni
from bot_bottle.egress.tls import SniSSLObject

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.decision import Deny
    from bot_bottle.egress.answering import Answering
    from bot_bottle.egress.bodies import Body
    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.precedent import Precedents
    from bot_bottle.egress.proxy import EgressProxy
    from bot_bottle.egress.reload import Successor
    from bot_bottle.egress.target import Arrival

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
        #: What is under this connection until its TLS handshake is over.
        self.outer: asyncio.BaseTransport | None = None
        #: Whether it has ever brought a request.
        self.served = False
        self._born = self._touched = proxy.loop.time()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._reader = RequestReader(self)
        self._parsing = False
        self._going_on = False
        self._queue: deque[Exchange] = deque()
        self._receiving: Exchange | None = None
        self._tunnel: Answering | None = None
        self._precedents: Precedents | None = None
        self._arrival_number = 0
        self._poison: tuple[int, Deny] | None = None
        self._holding = False
        self._reading = True
        self._closing = False
        self._lingering = False
        self._head_began = 0.0
        self._paused_at = 0.0

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, or turn it away where there are too many."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio subclasses
        self._touched = self.proxy.loop.time()
        session = transport.get_extra_info("ssl_object")
        if isinstance(session, SniSSLObject):
            self.arrival = with_sni(self.arrival, session.sni)
        if not self._admitted and not self.proxy.clients.admit(self):
            deny = self.proxy.clients.crowded()
            self.proxy.record_refusal(deny, arrival=self.arrival)
            self.refuse(503, deny, linger=False)  # nobody counts or sweeps this connection

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent."""
        if self._transport is None or self._closing or self._poison:
            return
        self._touched = self.proxy.loop.time()
        if self._tunnel is not None:
            self._tunnel.on_client_bytes(data)
            return
        self._read(data)

    def eof_received(self) -> bool:
        """Let a client that has said all it will say still get its answer."""
        waiting = bool(self._queue) and self._tunnel is None and self._queue[-1].request_done
        if waiting:
            self._queue[-1].close_after = True
        return waiting

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give up everything under way."""
        self._transport = None
        self._reader.drop()
        queue, self._queue = self._queue, deque()
        for exchange in queue:
            exchange.abandon()
        self.proxy.clients.leave(self)
        self.proxy.stalled.note(self, waits=False)

    def pause_writing(self) -> None:
        """The client does not keep up: nothing more is fetched or answered for it."""
        self.write_paused = True
        self._paused_at = self.proxy.loop.time()
        self.proxy.stalled.note(self, waits=True)
        if self._queue:
            self._queue[0].on_client_writable(writable=False)
        self._update_reading()

    def resume_writing(self) -> None:
        """The client keeps up again."""
        self.write_paused = False
        self.proxy.stalled.note(self, waits=self._holding)
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
        elif self._reader.in_head:
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
        elif self.outer is not None:
            cast("asyncio.Transport", self.outer).abort()

    def cut_off(self, successor: Successor, changed: Callable[[str], bool]) -> bool:
        """Close what other routes than it was opened under do not permit; says whether that was so.

        A request under way must have a ``successor`` to its route; a connection for one host that waits for
        its next request is closed where the host's routes have ``changed``.
        """
        cut = [exchange for exchange in self._queue if exchange.cut_off(successor)]
        if cut:
            self.abort()
            return True
        idle = not self._queue and self._transport is not None and not self._closing
        if idle and any(changed(name) for _where, name in self.arrival.claims):
            self._close(clean=True)
            return True
        return False

    @property
    def waiting(self) -> int:
        """How many bytes wait in memory, either way."""
        unsent = self._transport.get_write_buffer_size() if self._transport else 0
        return unsent + self._out_bytes + sum(exchange.waiting for exchange in self._queue)

    def give_way(self) -> None:
        """Refuse what is under way, or cut it where an answer has begun."""
        exchange = self._queue[0] if self._queue else None
        if exchange is None or exchange.response_begun:
            self.proxy.record_refusal(too_much_waits(), arrival=self.arrival)
            self.abort()
        else:
            exchange.refuse(503, too_much_waits())
            self.flush()

    @property
    def busy(self) -> bool:
        """Whether an answer or an upgraded connection is under way."""
        return self._tunnel is not None or any(not exchange.answered for exchange in self._queue)

    @property
    def idle_since(self) -> float:
        """When it last brought something, or when it began where it never brought a request."""
        return self._touched if self.served else self._born

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

    def hold_reading(self, exchange: Answering, *, hold: bool) -> None:
        """Stop or go on reading, as ``exchange`` can take more of its request or not."""
        if exchange is self._receiving or not hold:
            self._hold(hold=hold)
            self._update_reading()

    def _hold(self, *, hold: bool) -> None:
        if hold != self._holding:
            self._holding = hold
            self.proxy.stalled.note(self, waits=hold or self.write_paused)

    def enter_tunnel(self, exchange: Answering) -> None:
        """From here on bytes belong to ``exchange``'s upgraded connection."""
        self._tunnel = exchange
        self._hold(hold=False)
        if not self._reader.empty:
            self.abort()  # said before the answer, so no part of the new protocol
        self._update_reading()

    def exchange_done(self, exchange: Answering) -> None:
        """Go on with the next request, if there is one."""
        if not self._queue or self._queue[0] is not exchange:
            return
        self._queue.popleft()
        if exchange is self._receiving:
            self._hold(hold=False)
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
        elif not self._reading:
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

    # Reading requests.

    def _read(self, data: bytes | None = None) -> None:
        """Read what came, or go on with what was held back (``None``), and send what comes of it."""
        reader = self._reader
        self._parsing = True
        try:
            if data is None:
                reader.resume()
            else:
                reader.feed(data)
        except BadMessageError as error:
            self._broken(error.status, error.deny)
        except Exception as error:  # noqa: BLE001 - fail closed: what cannot be read is not guessed at
            self._broken(500, internal_error(error))
        finally:
            self._parsing = False
        if reader.begun:
            reader.begun = False
            self._head_began = self.proxy.loop.time()
        if not self._reading or reader.stopped or self._holding or self.write_paused or len(self._queue) > 1:
            self._update_reading()
        if self._out:
            self.flush()

    def _go_on(self) -> None:
        self._going_on = False
        if self._reader.stopped and self._has_room() and not self._closing:
            self._read()

    def may_go_on(self, *, in_body: bool) -> bool | None:
        """Say whether another piece may be read: not yet (``False``) or never again (``None``)."""
        if self._transport is None or self._closing or self._poison or self._tunnel is not None:
            return None
        if self._holding:
            return False
        if in_body:
            return True
        queue = self._queue
        if queue:
            last = queue[-1]
            if last.websocket:
                self.abort()  # RFC 6455, 4.1: nothing may follow the handshake before its answer
                return None
            if last.close_after and last.request_done:
                return None  # what follows a "Connection: close" request is nobody's
            if len(queue) > 1:
                return False
        return not self.write_paused and self._out_bytes <= _MAX_GATHERED_BYTES

    def _has_room(self) -> bool:
        """Whether another piece may be read; a body may, also from a client that does not read answers."""
        if self._holding:
            return False
        if self._closing or self._tunnel is not None:
            return True
        if len(self._queue) > 1:
            return False
        return not self.write_paused or self._reader.in_body

    def on_request(self, line: bytes, block: bytes, *, last: bool) -> Body | None:
        """Make an exchange of a request and start it if it is its turn; gives how its body is read.

        Raises :class:`BadMessageError`.
        """
        held = self.proxy.precedents
        if held is not self._precedents:
            self._precedents, self._arrival_number = held, held.arrival_number(self.arrival)
        method, _, rest = line.partition(b" ")
        target, _, version = rest.partition(b" ")
        key = (self._arrival_number, method, block)
        precedent = held.find(key) if version == b"HTTP/1.1" and is_origin_form(target) else None
        if precedent is not None:
            exchange = Exchange(self, method, target, precedent.facts, key=key, precedent=precedent)
        else:
            method, target, http_1_0 = read_request_line(line)
            facts = read_request_headers(block, http_1_0=http_1_0)
            if method == b"CONNECT":
                self._connect(target, facts, last=last)
                return None
            exchange = Exchange(self, method, target, facts, key=key, http_1_0=http_1_0)
        self.served = True
        self._receiving = exchange
        self._queue.append(exchange)
        if len(self._queue) == 1 and not self.write_paused:
            exchange.start()
        if exchange.request_done:
            return None
        facts = exchange.facts
        return ChunkedBody() if facts.chunked else LengthBody(facts.content_length or 0)

    def on_body(self, data: bytes) -> None:
        """Pass a piece of the body to its exchange."""
        if self._receiving is not None:
            self._receiving.on_request_body(data)

    def on_request_end(self) -> None:
        """End a request whose body has ended."""
        if self._receiving is not None:
            self._receiving.on_request_end()

    def _connect(self, target: bytes, facts: RequestHeaders, *, last: bool) -> None:
        if self._queue:
            raise BadMessageError("CONNECT came before the answers to earlier requests")
        if not last or facts.has_body:
            raise BadMessageError("bytes came before the CONNECT was answered")
        self.proxy.connect(self, target, facts)

    def _broken(self, status: int, deny: Deny) -> None:
        """Refuse what cannot be parsed: at once, or once the requests before it are answered."""
        receiving = self._receiving
        self._reader.drop()
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
        elif not self._closing:
            self._answer(status, deny)

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
        self._reader.drop()
        if self._transport is None:
            return
        if clean:
            self._transport.close()
            return
        self._lingering = True
        self._touched = self.proxy.loop.time()
        self._hold(hold=False)
        self._update_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def _update_reading(self) -> None:
        transport = self._transport
        if self._parsing or transport is None or transport.is_closing():
            return
        room = self._has_room()
        stopped = self._reader.stopped
        if room and stopped and not self._going_on:
            self._going_on = True
            self.proxy.loop.call_soon(self._go_on)
        reading = room and not stopped
        if reading == self._reading:
            return
        self._reading = reading
        if reading:
            transport.resume_reading()
        else:
            transport.pause_reading()
