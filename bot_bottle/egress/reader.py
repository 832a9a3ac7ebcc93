"""Cuts what a client sends into requests, no further than there is room for; no I/O happens here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bot_bottle.egress.grammar import MAX_HEAD_BYTES, HeadBuffer, header_too_large, read_request_line

if TYPE_CHECKING:
    from bot_bottle.egress.bodies import Body


class RequestSink(Protocol):
    """Who hears the requests: one client connection. What it raises ends the reading."""

    def may_go_on(self, *, in_body: bool) -> bool | None:
        """Say whether another piece may be read: not yet (``False``) or never again (``None``)."""

    def on_request(self, line: bytes, block: bytes, *, last: bool) -> Body | None:
        """Take a request's first line and header lines; gives how its body is read, if it has one.

        ``last`` says that nothing has come behind them so far.
        """

    def on_body(self, data: bytes) -> None:
        """Take a piece of the body."""

    def on_request_end(self) -> None:
        """Take the end of a request that has a body."""


class RequestReader:
    """The bytes of one connection and how far they have been read."""

    __slots__ = ("_body", "_held", "_sink", "begun", "stopped")

    def __init__(self, sink: RequestSink) -> None:
        self._sink = sink
        self._body: Body | None = None
        self._held = HeadBuffer(read_request_line)
        #: Whether something waits here for room, and not for the client to say more.
        self.stopped = False
        #: Set where a request has begun whose header has not ended; who notices it takes it back.
        self.begun = False

    @property
    def in_body(self) -> bool:
        """Whether a body is being read."""
        return self._body is not None

    @property
    def in_head(self) -> bool:
        """Whether a request has begun whose header has not ended."""
        return bool(self._held.data) and not self.stopped

    @property
    def empty(self) -> bool:
        """Whether nothing is held back."""
        return not self._held.data

    def feed(self, data: bytes) -> None:
        """Read what has come; raises :class:`BadMessageError` and what the sink raises."""
        held = self._held
        if held.data:
            held.data += data
            if self.stopped:
                return
            if held.end() < 0 and not held.data.startswith(b"\r\n"):
                held.check()
                return
            data = bytes(held.data)
            held.clear()
        self._read(data)

    def resume(self) -> None:
        """Read on in what was held back for want of room; raises as :meth:`feed` does."""
        if self.stopped:
            self.stopped = False
            data = bytes(self._held.data)
            self._held.clear()
            self._read(data)

    def drop(self) -> None:
        """Forget what is held: nothing more is read."""
        self._held.clear()
        self.stopped = False

    def _read(self, data: bytes) -> None:
        sink, position, size = self._sink, 0, len(data)
        while position < size:
            body = self._body
            go_on = sink.may_go_on(in_body=body is not None)
            if not go_on:
                if go_on is False:
                    self.stopped = True
                    self._held.set(data[position:])
                return
            if body is not None:
                piece, position = body.take(data, position)
                if piece:
                    sink.on_body(piece)
                if body.done:
                    self._body = None
                    sink.on_request_end()
                continue
            # RFC 9112, 2.2: empty lines before a request line are passed over.
            while data.startswith(b"\r\n", position):
                position += 2
            end = data.find(b"\r\n\r\n", position)
            if end < 0:
                if position < size:
                    self.begun = True
                    self._held.set(data[position:])
                    self._held.check()
                return
            if end - position > MAX_HEAD_BYTES:
                raise header_too_large()
            eol = data.find(b"\r\n", position)
            line, block = data[position:eol], data[eol + 2 : end]
            position = end + 4
            self._body = sink.on_request(line, block, last=position == size)
