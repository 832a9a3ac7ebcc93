"""One HTTP/2 connection to an upstream, shared by the exchanges that have its destination and credential."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error

from bot_bottle.egress.grammar import BadMessageError
from bot_bottle.egress.http2.endpoint import MAX_STREAMS, Endpoint
from bot_bottle.egress.http2.frames import EARNED
from bot_bottle.egress.http2.messages import (
    read_response_fields,
    read_trailer_fields,
    write_request_fields,
)
from bot_bottle.egress.http2.stream import Stream
from bot_bottle.egress.upstream import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from h2.events import Event

    from bot_bottle.egress.http2.frames import GoAway
    from bot_bottle.egress.pool import UpstreamPool
    from bot_bottle.egress.upstream import PoolKey, ResponseSink

#: How much of an answer its server may send before its client has taken it.
_WINDOW_BYTES = 256 * 1024
_MAX_HEADER_BYTES = 256 * 1024

#: A connection on which a request waited this long and nothing at all came is not used for another one.
_SILENT_SECONDS = 20.0
_IDLE_SECONDS = 30.0


class UpstreamStream(Stream):
    """One stream: what its exchange takes for the upstream."""

    http2 = True

    def __init__(self, connection: Http2Upstream, *, reused: bool) -> None:
        super().__init__(0)
        self.connection = connection
        self.reused = reused
        self.sink: ResponseSink | None = None
        self.trailers: tuple[bytes, ...] = ()
        #: Whether the final head has come.
        self.answered = False
        self.began = 0.0

    def begin(self, sink: ResponseSink, *, head_request: bool, chunked: bool = False) -> None:  # noqa: ARG002 - frames say both
        """Carry ``sink``'s exchange."""
        self.sink = sink

    def send_request(self, head: bytes, body: Sequence[bytes] = (), *, ended: bool) -> None:
        """Open the stream and send what there is."""
        self.connection.open(self, head, ended=ended and not body)
        for data in body:
            self.connection.send_data(self, data)
        if ended and body:
            self.connection.end(self)
        self.connection.flush()

    def send_body(self, data: bytes) -> None:
        """Send a piece of the request's body."""
        self.connection.send_data(self, data)
        self.connection.flush()

    def end_body(self) -> None:
        """End the request."""
        self.connection.end(self)
        self.connection.flush()

    def write(self, data: bytes) -> None:  # noqa: ARG002 - the interface's signature
        """Refuse bytes of another protocol."""
        raise TypeError("an HTTP/2 stream is sent fields and data, not bytes")

    def pause(self) -> None:
        """Make no more room for the answer."""
        self.connection.hold(self, hold=True)

    def resume(self) -> None:
        """Make room again."""
        self.connection.hold(self, hold=False)

    def finish(self) -> None:
        """End what has no end of its own."""
        self.abort()

    def abort(self) -> None:
        """Reset the stream and tell nobody."""
        self.sink = None
        self.connection.leave(self)

    def release(self) -> None:
        """Let go of a stream whose exchange is whole."""
        self.sink = None
        self.connection.leave(self)

    def on_writable(self, *, writable: bool) -> None:
        """Pass on whether the server keeps up."""
        if self.sink is not None:
            self.sink.on_upstream_writable(writable=writable)


class Http2Upstream(Endpoint):
    """A connection to a server that chose ``h2`` in its TLS handshake."""

    def __init__(self, pool: UpstreamPool, key: PoolKey) -> None:
        super().__init__(pool.loop, server=False, window=_WINDOW_BYTES, max_headers=_MAX_HEADER_BYTES)
        self.key = key
        self._pool = pool
        self._retired = False
        self._used = False
        #: How many streams have been given out that have not begun.
        self._promised = 0
        self._dirty: list[UpstreamStream] = []

    # What the pool calls.

    def stream(self) -> UpstreamStream | None:
        """Give a stream for one exchange, or ``None`` where the server takes no more of them."""
        if self._retired or self._over or self._transport is None or self._transport.is_closing():
            return None
        most = min(MAX_STREAMS, self._h2.remote_settings.max_concurrent_streams)
        if len(self._streams) + self._promised >= most:
            return None
        self._promised += 1
        reused, self._used = self._used, True
        return UpstreamStream(self, reused=reused)

    def sweep(self, now: float) -> None:
        """Close where nothing has been asked for a while."""
        if not self._streams and not self._promised and (self._retired or now - self.touched > _IDLE_SECONDS):
            self.close()

    def retire(self) -> None:
        """Give no more streams, and close after the last one; doing it twice is no error."""
        if not self._retired:
            self._retired = True
            self._pool.forget_shared(self)
            self.loop.call_soon(self.sweep, 0.0)

    # What its streams call.

    def open(self, stream: UpstreamStream, head: bytes, *, ended: bool) -> None:
        """Send a request's head."""
        if stream.ended:
            return
        self._promised -= 1
        stream.began = stream.touched = self.loop.time()
        try:
            if self._over or self._transport is None:
                raise H2Error("the connection has ended")
            stream.number = self._h2.get_next_available_stream_id()
            self._streams[stream.number] = stream
            self._h2.send_headers(stream.number, write_request_fields(head), end_stream=ended)
        except H2Error:
            self.retire()
            stream.drop()
            stream.heard = True
            self.loop.call_soon(self._lose, stream, _unprocessed())
            return
        self._intake.earn(EARNED + 10)  # the server may refuse it with a reset
        if ended:
            stream.ended = True

    def leave(self, stream: UpstreamStream) -> None:
        """Let go of a stream, and reset it where it is not over."""
        if not stream.number and not stream.ended:
            stream.drop()  # given out, and its exchange was over before it began
            self._promised -= 1
        if stream.number not in self._streams:
            return
        if self.loop.time() - max(stream.began, self.touched) > _SILENT_SECONDS:
            self.retire()
        self.reset(stream, ErrorCodes.CANCEL)

    # What the server says.

    def on_event(self, event: Event) -> None:
        """Take what the server said."""
        if isinstance(event, DataReceived):
            self._on_data(event)
        elif isinstance(event, ResponseReceived | InformationalResponseReceived):
            final = isinstance(event, ResponseReceived)
            self._guard(
                event.stream_id, lambda stream: self._on_head(stream, event.headers or (), final=final)
            )
        elif isinstance(event, TrailersReceived):
            self._guard(event.stream_id, lambda stream: self._on_trailers(stream, event.headers or ()))
        elif isinstance(event, StreamEnded):
            self._guard(event.stream_id, self._on_end)
        elif isinstance(event, StreamReset):
            self._on_reset(event)

    def on_going(self, going: GoAway) -> None:
        """Use the connection no more; what the server has not looked at is asked for elsewhere."""
        self.retire()
        for stream in tuple(self._streams.values()):
            if stream.number > going.last_stream:
                stream.drop()
                stream.heard = True
                self._lose(cast("UpstreamStream", stream), _unprocessed())

    def on_broken(self, reason: str, message: str) -> None:  # noqa: ARG002 - it is the server's doing
        """Tell the exchanges."""
        self.retire()
        self._lose_all(UpstreamError("upstream_protocol", f"the server's connection broke: {message}"))

    def on_lost(self) -> None:
        """Tell the exchanges."""
        self.retire()
        self._lose_all(
            UpstreamError("upstream_closed", "the server closed the connection before its answer was whole")
        )

    def on_forgotten(self, stream: Stream) -> None:  # noqa: ARG002 - they are counted, not told apart
        """Close a connection that is used no more after its last stream."""
        if self._retired and not self._streams:
            self.loop.call_soon(self.sweep, 0.0)

    def on_worked(self) -> None:
        """Send on what has been gathered for the clients."""
        dirty, self._dirty = self._dirty, []
        for stream in dict.fromkeys(dirty):
            if stream.sink is not None:
                stream.sink.flush()

    # Inside.

    def _guard(self, number: int | None, step: Callable[[UpstreamStream], None]) -> None:
        """Let an answer take a step; one that cannot be passed on ends, and no other one."""
        stream = cast("UpstreamStream | None", self._streams.get(number or 0))
        if stream is None or stream.sink is None:
            return
        self._dirty.append(stream)
        try:
            step(stream)
        except BadMessageError as error:
            self._fail(stream, str(error))
        except Exception as error:  # noqa: BLE001 - fail closed: what cannot be read is not passed on
            self._fail(stream, f"egress failed inside ({type(error).__name__})")

    def _fail(self, stream: UpstreamStream, message: str) -> None:
        sink, stream.sink = stream.sink, None
        self.reset(stream, ErrorCodes.PROTOCOL_ERROR)
        if sink is not None:
            sink.on_upstream_lost(UpstreamError("upstream_protocol", message))
            sink.flush()

    @staticmethod
    def _on_head(stream: UpstreamStream, fields: Sequence[tuple[bytes, bytes]], *, final: bool) -> None:
        line, headers = read_response_fields(fields)
        if final != (line.status >= 200):
            raise BadMessageError("the server's status is out of place", status=502)
        stream.answered = final
        if stream.sink is not None:
            stream.sink.on_response_head(line, headers)

    @staticmethod
    def _on_trailers(stream: UpstreamStream, fields: Sequence[tuple[bytes, bytes]]) -> None:
        stream.trailers = read_trailer_fields(fields)

    def _on_data(self, event: DataReceived) -> None:
        size, data = event.flow_controlled_length or 0, event.data
        stream = cast("UpstreamStream | None", self._streams.get(event.stream_id or 0))
        if data:
            self._guard(
                event.stream_id,
                lambda stream: stream.sink.on_response_body(data) if stream.sink is not None else None,
            )
        self.taken(stream, size)

    def _on_end(self, stream: UpstreamStream) -> None:
        sink = stream.sink
        self.heard(stream)
        if sink is not None:
            sink.on_response_end(stream.trailers)
            sink.flush()

    def _on_reset(self, event: StreamReset) -> None:
        stream = cast("UpstreamStream | None", self._streams.get(event.stream_id or 0))
        if stream is None:
            return
        stream.drop()
        stream.heard = True
        code = int(event.error_code or 0)
        if code == ErrorCodes.REFUSED_STREAM:
            self._lose(stream, _unprocessed())
        else:
            self._lose(
                stream,
                UpstreamError(
                    "upstream_closed", "the server reset the stream before its answer was whole", code=code
                ),
            )

    def _lose(self, stream: UpstreamStream, error: UpstreamError) -> None:
        sink, stream.sink = stream.sink, None
        self.reset(stream, ErrorCodes.CANCEL)
        if sink is not None:
            sink.on_upstream_lost(error)
            sink.flush()

    def _lose_all(self, error: UpstreamError) -> None:
        for stream in tuple(self._streams.values()):
            self._lose(cast("UpstreamStream", stream), error)


def _unprocessed() -> UpstreamError:
    return UpstreamError(
        "upstream_closed",
        "the server went away before it looked at the request",
        unprocessed=True,
        code=ErrorCodes.REFUSED_STREAM,
    )
