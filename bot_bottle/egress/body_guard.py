"""One request's body judged as it flows, and what is to be said of what was passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.egress import content_denial
from bot_bottle.egress.notice import Notice, notices

if TYPE_CHECKING:
    from bot_bottle.decision import Deny
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.pipelock.finding import Finding
    from bot_bottle.pipelock.session import Session
    from bot_bottle.pipelock.stream import Step, StreamScanner


class BodyGuard:
    """Judges one body; what it gives back may go on, and what it objects to ends the request."""

    __slots__ = ("_content_type", "_host", "_human", "_route", "_seen", "_session", "_stream", "notices")

    def __init__(
        self,
        stream: StreamScanner,
        session: Session,
        *,
        host: str,
        route: EgressRoute,
        content_type: str,
        human: content_denial.Human | None = None,
    ) -> None:
        self._human = human
        self._stream = stream
        self._session = session
        self._host = host
        self._route = route
        self._content_type = content_type
        self._seen = 0
        #: What is to be said of what was passed on since this was emptied; for the record.
        self.notices: tuple[Notice, ...] = ()

    def feed(self, data: bytes) -> bytes | Deny:
        """Take a piece; gives the bytes that may go on now."""
        self._seen += len(data)
        if self._route.max_body is not None and self._seen > self._route.max_body:
            return content_denial.too_large(self._host, self._route)
        step = self._stream.feed(data)
        self._note(step)
        return self._denial(step.refusals) if step.refusals else step.release

    def finish(self) -> bytes | Deny:
        """Take the end; gives what was held back until it was known."""
        step = self._stream.finish()
        self._note(step)
        found = step.refusals
        if not found and self._stream.small:
            found = self._session.body(self._stream.small, self._content_type)
        if not found and self._stream.aside:
            found = self._session.beside(self._stream.aside)
        return self._denial(found) if found else step.release

    def _note(self, step: Step) -> None:
        if step.notes or step.redacted:
            self.notices += notices("unread", ((one, 1) for one in step.notes))
            self.notices += notices("redacted", step.redacted)

    def _denial(self, found: tuple[Finding, ...]) -> Deny:
        return content_denial.denial(found, self._host, self._route, self._human)
