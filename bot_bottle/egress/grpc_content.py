"""The content of gRPC calls: each message is judged as a body of its own, and goes on as it ends.

A body that is judged as one is held back until its end, which for a call that waits for its answers never
comes. What is said in pieces over several messages is put together by the session, as over several requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.egress.grpc import MessageEnds

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.egress.body_guard import BodyGuard
    from bot_bottle.egress.notice import Notice


class GrpcGuard:
    """Judges the messages of one call; what it gives back may go on, what it objects to ends the call."""

    __slots__ = ("_guard", "_make", "_most", "_prefix", "_seen", "_splitter", "_too_large", "notices")

    def __init__(
        self, make: Callable[[bool], BodyGuard], *, most: int | None, too_large: Callable[[], Deny]
    ) -> None:
        """Judge each message by what ``make`` gives, called with whether it is compressed.

        ``most`` bytes are taken of all of them together; more is ``too_large``.
        """
        self._make = make
        self._most = most
        self._too_large = too_large
        self._splitter = MessageEnds()
        self._guard: BodyGuard | None = None
        self._prefix = b""
        self._seen = 0
        #: What is to be said of what was passed on since this was emptied; for the record.
        self.notices: tuple[Notice, ...] = ()

    def feed(self, data: bytes) -> bytes | Deny:
        """Take a piece; gives the bytes that may go on now."""
        self._seen += len(data)
        if self._most is not None and self._seen > self._most:
            return self._too_large()
        released: list[bytes] = []
        for prefix, content, ended in self._splitter.cut(data):
            if prefix:
                self._guard, self._prefix = self._make(prefix[0] != 0), prefix
            passed = self._judge(content, ended=ended)
            if isinstance(passed, Deny):
                return passed
            released.append(passed)
        return b"".join(released)

    def finish(self) -> bytes | Deny:
        """Take the end; gives what is left of a message that is not whole."""
        passed = self._judge(b"", ended=True)
        return passed if isinstance(passed, Deny) else passed + self._splitter.rest()

    def _judge(self, content: bytes, *, ended: bool) -> bytes | Deny:
        guard = self._guard
        if guard is None:
            return b""
        passed = guard.feed(content) if content else b""
        if isinstance(passed, Deny):
            return passed
        if ended:
            self._guard = None
            last = guard.finish()
            if isinstance(last, Deny):
                return last
            passed += last
        self.notices += guard.notices
        guard.notices = ()
        if passed or ended:
            passed, self._prefix = self._prefix + passed, b""
        return passed
