"""One client connection that speaks HTTP/2: every stream of it is a request of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived

from bot_bottle.decision import Deny
from bot_bottle.egress.answering import internal_error
from bot_bottle.egress.clients import MAX_STREAMS_ALL
from bot_bottle.egress.denial import denial_body, denial_headers
from bot_bottle.egress.grammar import MAX_HEAD_BYTES, BadMessageError, is_origin_form
from bot_bottle.egress.headers import read_request_headers
from bot_bottle.egress.http2.endpoint import Endpoint
from bot_bottle.egress.http2.exchange import Http2Exchange
from bot_bottle.egress.http2.messages import read_request_fields, read_trailer_fields
from bot_bottle.egress.http2.own import own_fields
from bot_bottle.egress.http2.stream import Stream
from bot_bottle.egress.stalled import too_much_waits

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from h2.events import Event

    from bot_bottle.egress.answering import Answering
    from bot_bottle.egress.http2.frames import GoAway
    from bot_bottle.egress.http2.messages import Field, RequestParts
    from bot_bottle.egress.proxy import EgressProxy
    from bot_bottle.egress.reload import Successor
    from bot_bottle.egress.target import Arrival

#: How much of a request's body its client may send before it has gone on.
_WINDOW_BYTES = 65_535

_HEAD_SECONDS = 30.0
_IDLE_SECONDS = 120.0
_STALLED_SECONDS = 900.0
_LINGER_SECONDS = 2.0
#: How much of a body nobody needs is read and dropped, so that its client gets to its answer.
_MAX_DROPPED_BYTES = 64 * 1024 * 1024


class ClientStream(Stream):
    """One stream: what its exchange takes for the client."""

    def __init__(self, connection: Http2Client, number: int) -> None:
        super().__init__(number)
        self.connection = connection
        self.exchange: Http2Exchange | None = None
        #: Whether its answer is sent and its request is still coming.
        self.lingering = False
        self.dropped = 0
        #: What the client is told where its answer breaks off.
        self.code: int = ErrorCodes.INTERNAL_ERROR

    @property
    def proxy(self) -> EgressProxy:
        """The egress it came to."""
        return self.connection.proxy

    @property
    def arrival(self) -> Arrival:
        """How its connection came."""
        return self.connection.arrival

    @property
    def write_paused(self) -> bool:
        """Whether nothing more should be sent for now."""
        return self.throttled

    def send(self, data: bytes) -> None:  # noqa: ARG002 - the interface's signature
        """Refuse bytes of another protocol."""
        raise TypeError("an HTTP/2 stream is sent fields and data, not bytes")

    def flush(self) -> None:
        """Send what there is room for."""
        self.connection.flush()

    def finish(self) -> None:
        """End what has no end of its own."""
        self.abort()

    def abort(self) -> None:
        """Reset the stream: its answer will not be whole."""
        self.connection.drop(self, self.code)

    def hold_reading(self, exchange: Answering, *, hold: bool) -> None:  # noqa: ARG002 - it is the only one
        """Make no more room for the request's body, or make it again."""
        self.connection.hold(self, hold=hold)
        self.proxy.stalled.note(self, waits=hold or self.throttled)

    def enter_tunnel(self, exchange: Answering) -> None:
        """Refuse: nothing is upgraded here."""
        raise TypeError(f"{type(exchange).__name__} has no tunnel")

    def exchange_done(self, exchange: Answering) -> None:  # noqa: ARG002 - it is the only one
        """End the stream once its answer is sent."""
        self.exchange = None

    def on_writable(self, *, writable: bool) -> None:
        """Pass on whether the client keeps up."""
        self.proxy.stalled.note(self, waits=not writable or self.held)
        if self.exchange is not None:
            self.exchange.on_client_writable(writable=writable)

    @property
    def waiting(self) -> int:
        """How many bytes wait in memory, either way."""
        return super().waiting + (self.exchange.waiting if self.exchange is not None else 0)

    def give_way(self) -> None:
        """Refuse what is under way, or reset it where an answer has begun."""
        self.connection.end_stalled(self)


class Http2Client(Endpoint):
    """A connection from inside the bottle that chose ``h2`` in its TLS handshake."""

    #: What stands under a connection whose handshake is not over; this one's is.
    outer: asyncio.BaseTransport | None = None

    def __init__(self, proxy: EgressProxy, arrival: Arrival) -> None:
        super().__init__(proxy.loop, server=True, window=_WINDOW_BYTES, max_headers=MAX_HEAD_BYTES)
        self.proxy = proxy
        self.arrival = arrival
        #: Whether it has ever brought a request.
        self.served = False
        self._born = self.touched
        self._leaving = False

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""
        return bool(self._streams)

    @property
    def idle_since(self) -> float:
        """When it last brought something, or when it began where it never brought a request."""
        return self.touched if self.served else self._born

    def sweep(self, now: float) -> None:
        """End what has not moved for too long."""
        quiet = now - self.touched
        if self.write_paused and now - self._paused_at > _STALLED_SECONDS:
            self.abort()
        elif self._over:
            if quiet > _HEAD_SECONDS:
                self.abort()
        elif self._intake.block_since and now - self._intake.block_since > _HEAD_SECONDS:
            self.go_away(ErrorCodes.ENHANCE_YOUR_CALM)
            self._break("timeout", "a request's header did not arrive within 30 s")
        elif not self._streams:
            if quiet > _IDLE_SECONDS:
                self.close()
        elif quiet > _STALLED_SECONDS:
            self.abort()
        else:
            for stream in cast("tuple[ClientStream, ...]", tuple(self._streams.values())):
                still = now - stream.touched
                if stream.lingering and still > _LINGER_SECONDS:
                    self.reset(stream, ErrorCodes.NO_ERROR)
                elif stream.pending and still > _STALLED_SECONDS:
                    # A client that keeps the connection alive and makes no room for an answer (window stall).
                    self.drop(stream, ErrorCodes.CANCEL)

    def cut_off(self, successor: Successor, changed: Callable[[str], bool]) -> bool:
        """End what other routes than it was opened under do not permit; says whether that was so.

        A request under way must have a ``successor`` to its route; a connection for one host that waits for
        its next request is closed where the host's routes have ``changed``.
        """
        cut = False
        for stream in cast("tuple[ClientStream, ...]", tuple(self._streams.values())):
            if stream.exchange is not None and stream.exchange.cut_off(successor):
                self.drop(stream, ErrorCodes.CANCEL)
                cut = True
        if not self._streams and any(changed(name) for _where, name in self.arrival.claims):
            self.close()
            cut = True
        return cut

    # What the client says.

    def on_event(self, event: Event) -> None:
        """Take what the client said."""
        if isinstance(event, DataReceived):
            self._on_data(event)
        elif isinstance(event, RequestReceived):
            self._on_request(event.stream_id or 0, event.headers or (), ended=event.stream_ended is not None)
        elif isinstance(event, StreamEnded):
            self._on_end(event.stream_id)
        elif isinstance(event, TrailersReceived):
            self._guard(event.stream_id or 0, lambda _exchange: read_trailer_fields(event.headers or ()))
        elif isinstance(event, StreamReset):
            stream = self._stream(event.stream_id)
            if stream is not None:
                stream.drop()
                stream.heard = True  # RFC 9113, 5.4.2: no reset answers a reset
                self.drop(stream, ErrorCodes.NO_ERROR)

    def on_going(self, going: GoAway) -> None:  # noqa: ARG002 - of ours it has seen none
        """Close once what is under way is done."""
        self._leaving = True

    def on_worked(self) -> None:
        """Close where nothing more will come."""
        if self._leaving and not self._streams:
            self.close()

    def on_broken(self, reason: str, message: str) -> None:
        """Put on record why the connection ends."""
        self.proxy.record_refusal(broken(reason, message), arrival=self.arrival)
        self._abandon()

    def on_lost(self) -> None:
        """Give up everything under way."""
        self._abandon()
        self.proxy.clients.leave(self)
        self.proxy.stalled.note(self, waits=False)

    def on_unheard(self, stream: Stream) -> None:
        """Let a client that is still sending read its answer first.

        Several take the reset that would be right (RFC 9113, 8.1) for a failure of the whole request.
        """
        cast("ClientStream", stream).lingering = True
        stream.touched = self.loop.time()

    def on_forgotten(self, stream: Stream) -> None:
        """Count a stream out."""
        self.proxy.clients.streams -= 1
        self.proxy.stalled.note(cast("ClientStream", stream), waits=False)
        if self._leaving and not self._streams:
            self.loop.call_soon(self.on_worked)

    def drop(self, stream: ClientStream, code: int) -> None:
        """End a stream and whatever is under way for it."""
        exchange, stream.exchange = stream.exchange, None
        if exchange is not None:
            exchange.abandon()
        self.reset(stream, code)

    def pause_writing(self) -> None:
        """The client does not keep up with the connection."""
        super().pause_writing()
        self.proxy.stalled.note(self, waits=True)

    def resume_writing(self) -> None:
        """The client keeps up again."""
        self.proxy.stalled.note(self, waits=False)
        super().resume_writing()

    @property
    def waiting(self) -> int:
        """How many bytes wait in memory below the streams."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def give_way(self) -> None:
        """Cut a connection whose client does not read."""
        self.proxy.record_refusal(too_much_waits(), arrival=self.arrival)
        self.abort()

    def end_stalled(self, stream: ClientStream) -> None:
        """End a stream that has waited too long for one of its sides."""
        exchange = stream.exchange
        if exchange is None or exchange.response_begun:
            self.proxy.record_refusal(too_much_waits(), arrival=self.arrival)
            self.drop(stream, ErrorCodes.CANCEL)
        else:
            exchange.refuse(503, too_much_waits())
        self.flush()

    # Inside.

    def _stream(self, number: int) -> ClientStream | None:
        return cast("ClientStream | None", self._streams.get(number))

    def _abandon(self) -> None:
        for stream in tuple(self._streams.values()):
            self.drop(cast("ClientStream", stream), ErrorCodes.CANCEL)

    def _on_request(self, number: int, fields: Sequence[Field], *, ended: bool) -> None:
        self.served = True
        stream = ClientStream(self, number)
        stream.heard = ended
        stream.touched = self.touched
        self._streams[number] = stream
        clients = self.proxy.clients
        clients.streams += 1
        if clients.streams > MAX_STREAMS_ALL:
            self._answer(stream, 503, clients.crowded())
            return
        try:
            parts = read_request_fields(fields, scheme=self.arrival.scheme, ended=ended)
            stream.exchange = self._exchange(stream, parts)
        except BadMessageError as error:
            self._answer(stream, error.status, error.deny)
        except Exception as error:  # noqa: BLE001 - fail closed: what cannot be read is not guessed at
            self._answer(stream, 500, internal_error(error))
        else:
            stream.exchange.start()

    def _exchange(self, stream: ClientStream, parts: RequestParts) -> Http2Exchange:
        held = self.proxy.precedents
        key = (held.arrival_number(self.arrival), parts.method, parts.block)
        precedent = held.find(key) if is_origin_form(parts.target) else None
        facts = precedent.facts if precedent is not None else read_request_headers(parts.block)
        return Http2Exchange(stream, parts, facts, key=key, precedent=precedent)

    def _on_data(self, event: DataReceived) -> None:
        stream = self._stream(event.stream_id or 0)
        data, size = event.data, event.flow_controlled_length or 0
        if stream is None or stream.exchange is None:
            self._drop_data(stream, size)
            return
        stream.touched = self.touched
        if data:
            self._guard(stream.number, lambda exchange: exchange.on_request_body(data))
        self.taken(stream, size)

    def _drop_data(self, stream: ClientStream | None, size: int) -> None:
        """Make room for what nobody needs, so that its sender gets to its answer; but not without end."""
        if stream is None or not stream.lingering:
            self.taken(None, size)
            return
        stream.touched = self.touched
        stream.dropped += size
        if stream.dropped > _MAX_DROPPED_BYTES:
            self.taken(None, size)
            self.reset(stream, ErrorCodes.NO_ERROR)
        else:
            self.taken(stream, size)

    def _on_end(self, number: int) -> None:
        stream = self._stream(number)
        if stream is not None:
            self.heard(stream)
            if stream.exchange is not None and not stream.exchange.request_done:
                self._guard(number, lambda exchange: exchange.on_request_end())

    def _guard(self, number: int, step: Callable[[Http2Exchange], object]) -> None:
        """Let a request take a step; where that fails it is refused, and no other one."""
        stream = self._stream(number)
        if stream is None or stream.exchange is None:
            return
        exchange = stream.exchange
        try:
            step(exchange)
        except BadMessageError as error:
            self._refuse(stream, exchange, error.status, error.deny)
        except Exception as error:  # noqa: BLE001 - fail closed
            self._refuse(stream, exchange, 500, internal_error(error))

    def _refuse(self, stream: ClientStream, exchange: Http2Exchange, status: int, deny: Deny) -> None:
        if exchange.response_begun:
            self.drop(stream, ErrorCodes.PROTOCOL_ERROR)
        else:
            exchange.refuse(status, deny)

    def _answer(self, stream: ClientStream, status: int, deny: Deny) -> None:
        """Refuse what is no request to be judged."""
        self.proxy.record_refusal(deny, arrival=self.arrival)
        body = denial_body(deny, host="", identity=self.proxy.identity)
        fields = own_fields(status, len(body), denial_headers(deny))
        self.send_headers(stream, fields)
        self.send_data(stream, body)
        self.end(stream)


def broken(reason: str, message: str) -> Deny:
    """Describe a connection that is not heard any further."""
    return Deny(
        reason=reason,
        rule="egress.http2",
        message=message,
        next_step="Open a new connection and speak well-formed HTTP/2 (RFC 9113) at a bounded rate",
    )
