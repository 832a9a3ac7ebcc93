"""One stream of an HTTP/2 connection: what waits to be sent on it, in pieces that fill frames; no I/O."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpack import HeaderTuple


class Stream:
    """What one stream still has to send, and how much it may still be sent."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.touched = 0.0
        #: Whether the owner of what is sent was told to bring no more.
        self.throttled = False
        #: Whether what came of the peer's message is held up where it goes on to.
        self.held = False
        #: Whether the peer's message is whole.
        self.heard = False
        #: Whether ours is sent, or will never be.
        self.ended = False
        #: What our message ends with, once it is known that it ends.
        self.last_fields: tuple[HeaderTuple, ...] = ()
        #: How many bytes of the peer's message have gone on and are not made room for yet.
        self.credit = 0
        #: How many bytes wait to be sent.
        self.unsent = 0
        self._queue: deque[bytes] = deque()
        self._ending = False

    @property
    def pending(self) -> bool:
        """Whether something waits to be sent."""
        return not self.ended and (self._ending or bool(self._queue))

    @property
    def has_data(self) -> bool:
        """Whether pieces of a body wait to be sent."""
        return bool(self._queue)

    @property
    def at_end(self) -> bool:
        """Whether nothing of the body is left to be sent, and nothing more will come."""
        return self._ending and not self._queue

    @property
    def waiting(self) -> int:
        """How many bytes wait in memory for this stream; its owner may hold more of them than are unsent."""
        return self.unsent

    def bring(self, data: bytes) -> None:
        """Let a piece of the body wait for its turn."""
        self._queue.append(data)
        self.unsent += len(data)

    def close_with(self, trailers: Sequence[HeaderTuple]) -> None:
        """Say that the body is whole, and what follows it."""
        self._ending = True
        self.last_fields = tuple(trailers)

    def take(self, room: int) -> bytes:
        """Take what fills a frame of ``room`` bytes (1 or more), as far as it has come.

        Called only where there is data.
        """
        queue = self._queue
        data = queue.popleft()
        if len(data) > room:
            queue.appendleft(data[room:])
            data = data[:room]
        elif len(data) < room and queue:
            data = _gather(queue, data, room)
        self.unsent -= len(data)
        return data

    def drop(self) -> None:
        """Send nothing more."""
        self.ended = True
        self._queue.clear()
        self.unsent = 0

    def on_writable(self, *, writable: bool) -> None:
        """Hear that no more should be brought, or that there is room again."""


def _gather(queue: deque[bytes], data: bytes, room: int) -> bytes:
    """Fill a frame from the small pieces that have come meanwhile."""
    parts, size = [data], len(data)
    while queue and size < room:
        piece = queue.popleft()
        if size + len(piece) > room:
            queue.appendleft(piece[room - size :])
            piece = piece[: room - size]
        parts.append(piece)
        size += len(piece)
    return b"".join(parts)
