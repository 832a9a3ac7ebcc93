"""One command's streams, carried until its end mark has come on both of them."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from bot_bottle.backend.docker.streams import STDERR, STDOUT
from bot_bottle.backend.inside import MarkedOutput
from bot_bottle.backend.streams import Source
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.backend.docker.streams import Multiplexed, Piece
    from bot_bottle.backend.streams import Input, Sink

_MAX_WORDS = 2000


class Running:
    """Moves bytes between the operator's side and a command in a container.

    ``broken`` is called once where a sink takes no more. ``words`` is what came last without an end mark:
    the engine's own explanation where the command never came up.
    """

    def __init__(
        self, mark: str, given: Input, stdout: Sink, stderr: Sink, broken: Callable[[], None]
    ) -> None:
        self._source = Source(given)
        self._sinks: dict[int, Sink] = {STDOUT: stdout, STDERR: stderr}
        self._marks = {STDOUT: MarkedOutput(mark), STDERR: MarkedOutput(mark)}
        self._broken = broken
        self._sending = True
        self._tail = b""

    @property
    def words(self) -> str:
        """Give the last line that came."""
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        return legible(lines[-1].strip()) if lines else ""

    def finish(self, streams: Multiplexed, timeout: float | None) -> int | None:
        """Carry everything; gives the exit code, None where the streams ended without a mark.

        Raises ``TimeoutError`` after ``timeout`` seconds, ``ValueError`` for what is no stream of a command,
        and whatever a sink raises but ``BrokenPipeError``.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            poller = select.poll()
            if self._feed(streams):
                poller.register(self._source.fd, select.POLLIN)
            unsent = streams.wants_to_write or (self._sending and self._source.pending)
            poller.register(streams.fileno(), select.POLLIN | (select.POLLOUT if unsent else 0))
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = dict(poller.poll(None if left is None else int(left * 1000) + 1))
            if not ready and left is not None and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"the process was killed after {timeout} s")
            if self._source.fd in ready:
                self._source.fill()
            pieces = self._receive(streams)
            if pieces is not None and not self._take(pieces):
                return None
            if all(mark.code is not None for mark in self._marks.values()):
                return self._marks[STDOUT].code

    def _feed(self, streams: Multiplexed) -> bool:
        """Send what can be sent now; tells whether more input is to be waited for."""
        source = self._source
        while True:
            self._send(streams)
            if not self._sending or source.pending or source.ended:
                return False
            if source.fd >= 0:
                return True
            source.fill()

    def _send(self, streams: Multiplexed) -> None:
        source = self._source
        try:
            streams.write_now(b"")
            while self._sending and source.pending and not streams.wants_to_write:
                taken = streams.write_now(source.pending)
                source.pending = source.pending[taken:]
            if self._sending and source.ended and not source.pending and not streams.wants_to_write:
                self._sending = False
                streams.half_close()
        except OSError:  # nobody reads any more; what was written before is still to come
            self._sending = False

    def _receive(self, streams: Multiplexed) -> list[Piece] | None:
        try:
            return streams.read_now()
        except OSError:  # a connection that broke is one that ended
            return []

    def _take(self, pieces: list[Piece]) -> bool:
        """Give output on; False at the end of the streams."""
        for stream, data in pieces:
            self._deliver(stream, self._marks[stream].feed(data))
        if not pieces:
            for stream, mark in self._marks.items():
                self._deliver(stream, mark.rest())
        return bool(pieces)

    def _deliver(self, stream: int, data: bytes) -> None:
        if not data:
            return
        self._tail = (self._tail + data)[-_MAX_WORDS:]
        sink = self._sinks.get(stream)
        if sink is None:
            return
        try:
            sink(data)
        except BrokenPipeError:
            del self._sinks[stream]
            self._broken()
