"""One HTTP/2 connection, whichever side we are: bytes in, events out, and data sent as fast as it is taken.

Nothing is sent that its receiver has not made room for: data waits in its stream's own queue, whose owner is
told to bring no more, and the streams that have room take turns. What is received is made room for again only
once it has gone on.
"""

from __future__ import annotations

import abc
import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RemoteSettingsChanged
from h2.exceptions import H2Error, ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from bot_bottle.egress.http2.frames import EARNED, MAX_FRAME_BYTES, FrameError, GoAway, Intake

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h2.events import Event
    from hpack import HeaderTuple

    from bot_bottle.egress.http2.stream import Stream

#: How much of a message waits in its stream's queue before its owner is told to bring no more.
_HIGH_BYTES = 64 * 1024
_LOW_BYTES = 16 * 1024
#: How much of our own answers may wait for a peer that does not read, before we do not read either.
_MAX_UNSENT_BYTES = 256 * 1024
#: The window of the connection as a whole. It is made room in at once, so that no stream holds up another.
_CONNECTION_WINDOW = 1024 * 1024
_CREDIT_BYTES = 16 * 1024
#: How large a table of our own headers a peer may have us keep (RFC 9113, 6.5.2: it may ask for 4 GiB).
_MAX_TABLE_BYTES = 4096


#: How many streams of one connection are under way at a time.
MAX_STREAMS: Final = 100


class _Connection(H2Connection):
    """The library's state of a connection; how streams ended is remembered of the last ones only."""

    MAX_CLOSED_STREAMS = 512


class Endpoint(asyncio.Protocol, abc.ABC):
    """The transport and the streams of one connection."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, *, server: bool, window: int, max_headers: int
    ) -> None:
        """Speak as a server or a client; ``window`` is a stream's, ``max_headers`` a head's (bytes)."""
        self.loop = loop
        self.write_paused = False
        self._paused_at = 0.0
        self.touched = loop.time()
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._pending: deque[Stream] = deque()
        self._unheard: list[Stream] = []
        self._window = window
        self._credit = 0
        self._working = False
        self._reading = True
        self._over = False
        self._intake = Intake(now=self.touched, from_client=server, max_block=max_headers)
        self._h2 = _Connection(
            # What headers may hold is judged in messages.py, in one pass and stream by stream.
            H2Configuration(
                client_side=not server,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        values = {
            SettingCodes.INITIAL_WINDOW_SIZE: window,
            SettingCodes.MAX_HEADER_LIST_SIZE: max_headers,
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
        }
        if not server:
            values[SettingCodes.ENABLE_PUSH] = 0
        self._h2.local_settings = Settings(client=not server, initial_values=values)
        self._h2.decoder.max_header_list_size = max_headers

    # What the two sides say.

    @abc.abstractmethod
    def on_event(self, event: Event) -> None:
        """Take what the peer said."""

    @abc.abstractmethod
    def on_going(self, going: GoAway) -> None:
        """Hear that the peer takes no new streams."""

    @abc.abstractmethod
    def on_broken(self, reason: str, message: str) -> None:
        """Hear that the connection ends because of what the peer said."""

    def on_worked(self) -> None:
        """Hear that everything that had come has been taken."""

    def on_unheard(self, stream: Stream) -> None:
        """Hear that our message is sent and the peer's is not whole."""

    def on_forgotten(self, stream: Stream) -> None:
        """Hear that a stream is over."""

    @abc.abstractmethod
    def on_lost(self) -> None:
        """Hear that the connection is gone."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say our settings."""
        self._transport = cast("asyncio.Transport", transport)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_CONNECTION_WINDOW - 65_535)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        if self._transport is None or self._transport.is_closing():
            return
        self.touched = self.loop.time()
        self._working = True
        going = self._intake.going
        try:
            for event in self._h2.receive_data(self._intake.feed(data, self.touched)):
                if isinstance(event, RemoteSettingsChanged):
                    self._bound_table()
                self.on_event(event)
            if self._intake.going is not None and self._intake.going is not going:
                self.on_going(self._intake.going)
        except FrameError as error:
            self.go_away(error.code)
            self._break(error.reason, str(error))
        except ProtocolError as error:
            # The library has written its GOAWAY; its text may quote what the peer sent.
            self._break("bad_request", f"HTTP/2 is not spoken as it must be ({type(error).__name__})")
        except Exception as error:  # noqa: BLE001 - fail closed: what cannot be read is not guessed at
            self.go_away(ErrorCodes.INTERNAL_ERROR)
            self._break("internal_error", f"egress failed inside ({type(error).__name__})")
        finally:
            self._working = False
        self.on_worked()
        self.flush()

    def eof_received(self) -> bool:
        """End with the peer: a stream cannot be half of a connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give up everything under way."""
        self._transport = None
        self._over = True
        self._pending.clear()
        self._unheard.clear()
        self.on_lost()
        for stream in tuple(self._streams.values()):
            self.forget(stream)

    def pause_writing(self) -> None:
        """The peer does not keep up with the connection."""
        self.write_paused = True
        self._paused_at = self.loop.time()

    def resume_writing(self) -> None:
        """The peer keeps up again."""
        self.write_paused = False
        self._update_reading()
        self.flush()

    # Sending.

    # A stream may have ended in what was received with the bytes that are being worked on: the library knows
    # it already, and the event that says so is still to come. Then there is nothing to send it.

    def send_headers(self, stream: Stream, fields: Sequence[HeaderTuple], *, ended: bool = False) -> None:
        """Send a head; with ``ended`` it is the whole message."""
        if stream.ended or self._over:
            return
        try:
            self._h2.send_headers(stream.number, fields, end_stream=ended)
        except H2Error:
            stream.drop()
            return
        if ended:
            self._on_sent(stream)

    def send_data(self, stream: Stream, data: bytes) -> None:
        """Send a piece of a body, now or when there is room."""
        if stream.ended or self._over:
            return
        if not stream.pending:
            self._pending.append(stream)
            stream.touched = self.loop.time()
        stream.bring(data)
        if stream.unsent > _HIGH_BYTES:
            self._pump()
            if stream.unsent > _HIGH_BYTES and not stream.throttled:
                stream.throttled = True
                stream.on_writable(writable=False)

    def end(self, stream: Stream, trailers: Sequence[HeaderTuple] = ()) -> None:
        """End a message once all of it is sent."""
        if stream.ended or self._over:
            return
        if not stream.pending:
            self._pending.append(stream)
            stream.touched = self.loop.time()
        stream.close_with(trailers)

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream in both directions; what is unsent of it is dropped."""
        self.forget(stream)
        if stream in self._pending:
            self._pending.remove(stream)
        if not (stream.ended and stream.heard) and not self._over:
            stream.drop()
            try:
                self._h2.reset_stream(stream.number, code)
            except H2Error:
                return  # it has ended already, or the whole connection has
        self.flush()

    def go_away(self, code: int) -> None:
        """Say that no new streams are taken; those under way go on."""
        frame = GoAwayFrame(0)
        frame.last_stream_id = self._h2.highest_inbound_stream_id
        frame.error_code = code
        if self._transport is not None:
            self._transport.write(self._h2.data_to_send() + frame.serialize())

    def flush(self) -> None:
        """Send what there is room for."""
        if self._working or self._transport is None:
            return
        if not self._over:
            self._working = True
            try:
                self._pump()
                unheard, self._unheard = self._unheard, []
                for stream in unheard:
                    if not stream.heard:
                        self.on_unheard(stream)
            finally:
                self._working = False
        data = self._h2.data_to_send()
        if data:
            self._transport.write(data)
        if self.write_paused:
            self._update_reading()

    def _pump(self) -> None:
        """Let the streams that have room take turns of one frame."""
        blocked: list[Stream] = []
        pending = self._pending
        unsent = 0
        while pending and not self.write_paused:
            stream = pending.popleft()
            try:
                sent = self._send_some(stream)
            except H2Error:
                stream.drop()
                continue
            if sent < 0:
                blocked.append(stream)
                continue
            if stream.pending:
                pending.append(stream)
            if stream.throttled and stream.unsent <= _LOW_BYTES:
                stream.throttled = False
                stream.on_writable(writable=True)
            unsent += sent
            if unsent >= _HIGH_BYTES and self._transport is not None:
                self._transport.write(self._h2.data_to_send())
                unsent = 0
        pending.extend(blocked)

    def _send_some(self, stream: Stream) -> int:
        """Send a frame of a stream; gives how many bytes, or -1 where there is no room."""
        number, sent = stream.number, 0
        if stream.has_data:
            room = min(self._h2.local_flow_control_window(number), MAX_FRAME_BYTES)
            if room <= 0:
                return -1
            data = stream.take(room)
            sent = len(data)
            last = stream.at_end and not stream.last_fields
            self._h2.send_data(number, data, end_stream=last)
            self._intake.earn(EARNED)
            stream.touched = self.loop.time()
            if last:
                self._on_sent(stream)
                return sent
        if stream.at_end:
            if stream.last_fields:
                self._h2.send_headers(number, stream.last_fields, end_stream=True)
            else:
                self._h2.end_stream(number)
            self._on_sent(stream)
        return sent

    def _on_sent(self, stream: Stream) -> None:
        stream.ended = True
        if stream.heard:
            self.forget(stream)
        else:
            self._unheard.append(stream)

    # Receiving.

    def taken(self, stream: Stream | None, size: int) -> None:
        """Make room for ``size`` bytes again: on the connection, and on the stream unless it is held."""
        self._credit += size
        if self._credit >= _CREDIT_BYTES:
            self._h2.increment_flow_control_window(self._credit)
            self._credit = 0
        if stream is not None:
            stream.credit += size
            self._make_room(stream, least=min(_CREDIT_BYTES, self._window // 2))

    def hold(self, stream: Stream, *, hold: bool) -> None:
        """Make no more room for a stream, or make it again."""
        stream.held = hold
        if not hold and stream.credit:
            self._make_room(stream, least=1)
            self.flush()

    def _make_room(self, stream: Stream, *, least: int) -> None:
        if stream.held or stream.heard or stream.credit < least or stream.number not in self._streams:
            return
        try:
            self._h2.increment_flow_control_window(stream.credit, stream.number)
        except (H2Error, KeyError):
            return  # it ends with what came behind
        stream.credit = 0

    def heard(self, stream: Stream) -> None:
        """Note that the peer's message is whole."""
        stream.heard = True
        if stream.ended:
            self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """Let go of a stream that is over; doing it twice is no error."""
        if self._streams.pop(stream.number, None) is not None:
            self.on_forgotten(stream)

    def _bound_table(self) -> None:
        encoder = self._h2.encoder
        if encoder.header_table_size > _MAX_TABLE_BYTES:
            encoder.table_size_changes.clear()  # of the size we do not take nothing need be said
            encoder.header_table_size = _MAX_TABLE_BYTES

    def _update_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        reading = not self.write_paused or transport.get_write_buffer_size() <= _MAX_UNSENT_BYTES
        if reading != self._reading:
            self._reading = reading
            transport.resume_reading() if reading else transport.pause_reading()

    # Ending.

    def abort(self) -> None:
        """Drop the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self, code: int = ErrorCodes.NO_ERROR) -> None:
        """Say that this is the end, and close."""
        if self._transport is not None and not self._over:
            self.go_away(code)
            self._over = True
            self._transport.close()

    def _break(self, reason: str, message: str) -> None:
        self._over = True
        self._pending.clear()
        self.on_broken(reason, message)
        transport = self._transport
        if transport is not None and not transport.is_closing():
            data = self._h2.data_to_send()
            if data:
                transport.write(data)
            transport.close()
