"""An upgraded connection: its frames read, what the client says judged, and written anew.

A message of the client's is judged as a body is, as it flows; nothing of a match goes on. One that fits into
a block is judged whole. Together the messages of a connection are judged too, and control frames with them,
since their payload leaves like any other. What the server says is read for its form, and on a route with a
credential its messages are written anew without it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.egress import content_denial
from bot_bottle.egress.frames import (
    BINARY,
    CONTINUATION,
    TEXT,
    Begin,
    FrameError,
    FrameReader,
    Payload,
    frame,
)
from bot_bottle.egress.notice import notices
from bot_bottle.egress.redact import Redactor
from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.session import Session
from bot_bottle.pipelock.stream import StreamScanner

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.egress.frames import Event
    from bot_bottle.egress.notice import Notice
    from bot_bottle.egress.redact import Needles
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.pipelock.finding import Finding
    from bot_bottle.pipelock.scanner import Scanner
    from bot_bottle.pipelock.selection import Selection
    from bot_bottle.pipelock.stream import Step


@dataclass(slots=True)
class Counts:
    """What went one way: whole messages, those of them that were binary, bytes of payload."""

    messages: int = 0
    binary: int = 0
    size: int = 0

    def by_name(self) -> tuple[tuple[str, int], ...]:
        """Give the numbers with their names."""
        return ("messages", self.messages), ("binary", self.binary), ("bytes", self.size)

    def note(self, event: Begin) -> None:
        """Count a frame that begins."""
        if not event.is_control:
            self.messages += event.final
            self.binary += event.opcode == BINARY
            self.size += event.length


class Conversation:
    """Both directions of one WebSocket."""

    def __init__(
        self,
        scanner: Scanner,
        selection: Selection,
        *,
        host: str,
        route: EgressRoute,
        needles: Needles | None = None,
        hear: Callable[[Event], None] | None = None,
        human: content_denial.Human | None = None,
        draw: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        """Judge what the client says to ``host``, whose ``route`` it is.

        ``needles`` are what no message of the server's may show; ``hear`` is told of the server's frames;
        ``human`` is asked where the route says so; ``draw`` gives random bytes for masks.
        """
        self._scanner = scanner
        self._selection = selection
        self._host = host
        self._route = route
        self._human = human
        self._hear = hear
        self._draw = draw
        self._session = Session(scanner.own)
        self._from_client = FrameReader(masked=True)
        self._from_server = FrameReader(masked=False)
        self._begin: Begin | None = None
        self._control = b""
        self._message: StreamScanner | None = None
        self._opcode = CONTINUATION
        self._size = 0
        self._answers = Answers(needles) if needles else None
        #: What is to be said of what was passed on since this was emptied; for the record.
        self.notices: tuple[Notice, ...] = ()
        #: What went to the server and what came from it.
        self.sent, self.received = Counts(), Counts()

    def summary(self) -> dict[str, int]:
        """Give what went through, for the record."""
        return {
            **{f"sent_{name}": count for name, count in self.sent.by_name()},
            **{f"received_{name}": count for name, count in self.received.by_name()},
        }

    def from_client(self, data: bytes) -> tuple[bytes, Deny | None]:
        """Take bytes of the client's: gives what goes on, and why nothing more may where that is so."""
        out: list[bytes] = []
        try:
            for event in self._from_client.feed(data):
                if isinstance(event, Begin):
                    deny = self._on_begin(event)
                elif isinstance(event, Payload):
                    deny = self._on_payload(event.data, out)
                else:
                    deny = self._on_end(out)
                if deny is not None:
                    return b"".join(out), deny
        except FrameError as error:
            return b"".join(out), _malformed(str(error), self._host)
        return b"".join(out), None

    @property
    def found(self) -> bool:
        """Whether a credential was taken out of what the server said."""
        return self._answers is not None and self._answers.found

    def from_server(self, data: bytes) -> tuple[bytes, Deny | None]:
        """Take bytes of the server's: gives what goes on, and why nothing more may where that is so."""
        answers = self._answers
        try:
            for event in self._from_server.feed(data):
                if isinstance(event, Begin):
                    self.received.note(event)
                if self._hear is not None:
                    self._hear(event)
                if answers is not None:
                    answers.take(event)
        except FrameError as error:
            return b"", _malformed(str(error), self._host)
        return (data if answers is None else answers.written()), None

    def _on_begin(self, event: Begin) -> Deny | None:
        self._begin = event
        self._control = b""
        if event.is_control:
            return None
        self.sent.note(event)
        if event.opcode != CONTINUATION:
            self._opcode, self._size = event.opcode, 0
            self._message = self._judge_of(text=event.opcode == TEXT)
        self._size += event.length
        if self._route.max_body is not None and self._size > self._route.max_body:
            return content_denial.too_large(self._host, self._route)
        return None

    def _on_payload(self, data: bytes, out: list[bytes]) -> Deny | None:
        if self._begin is None or self._begin.is_control or self._message is None:
            self._control += data
            return None
        step = self._message.feed(data)
        if step.refusals:
            return self._denial(step.refusals)
        self._note(step)
        if step.release:
            self._write(step.release, out, final=False)
        return None

    def _on_end(self, out: list[bytes]) -> Deny | None:
        begin, message = self._begin, self._message
        if begin is None:
            raise FrameError("a frame ends that did not begin")
        if begin.is_control:
            judge = self._judge_of(text=False)
            found = (judge.feed(self._control).refusals or judge.finish().refusals) if self._control else ()
            found = found or (self._session.message(judge.small) if judge.small else ())
            if found:
                return self._denial(found)
            out.append(frame(begin.opcode, self._control, key=self._draw(4)))
            return None
        if not begin.final or message is None:
            return None
        self._message = None
        step = message.finish()
        found = step.refusals or (self._session.message(message.small) if message.small else ())
        if found:
            return self._denial(found)
        self._note(step)
        self._write(step.release, out, final=True)
        return None

    def _note(self, step: Step) -> None:
        if step.notes or step.redacted:
            self.notices += notices("unread", ((one, 1) for one in step.notes))
            self.notices += notices("redacted", step.redacted)

    def _write(self, data: bytes, out: list[bytes], *, final: bool) -> None:
        out.append(frame(self._opcode, data, final=final, key=self._draw(4)))
        self._opcode = CONTINUATION

    def _judge_of(self, *, text: bool) -> StreamScanner:
        context = Context(
            place="websocket", content_type="text/plain" if text else "", rules=self._selection.rules
        )
        return StreamScanner(
            self._scanner,
            context,
            on_opaque=self._route.on_opaque,
            selection=self._selection,
            redact=text and self._route.on_match == "redact",
        )

    def _denial(self, found: tuple[Finding, ...]) -> Deny:
        return content_denial.denial(found, self._host, self._route, self._human)


class Answers:
    """A server's messages written anew, without the credentials that ``needles`` knows.

    Nothing of a message is kept longer than the message: its end is no beginning of a credential.
    """

    def __init__(self, needles: Needles) -> None:
        self._needles = needles
        self._redactor = Redactor(needles)
        self._begin: Begin | None = None
        self._control = b""
        self._opcode = CONTINUATION
        self._ready: list[bytes] = []
        self._out: list[bytes] = []
        self._found = False

    @property
    def found(self) -> bool:
        """Whether there was one."""
        return self._found or self._redactor.found

    def take(self, event: Event) -> None:
        """Take what the reader of the server's frames gives."""
        if isinstance(event, Begin):
            self._begin, self._control = event, b""
            if not event.is_control and event.opcode != CONTINUATION:
                self._opcode = event.opcode
        elif isinstance(event, Payload):
            if self._begin is not None and self._begin.is_control:
                self._control += event.data
            else:
                self._ready.append(self._redactor.feed(event.data))
        elif self._begin is not None and self._begin.is_control:
            masked = self._needles.masked(self._control)
            self._found = self._found or masked is not self._control
            self._flush()
            self._out.append(frame(self._begin.opcode, masked))
        elif self._begin is not None and self._begin.final:
            self._ready.append(self._redactor.finish())
            self._out.append(frame(self._opcode, b"".join(self._ready)))
            self._ready.clear()

    def written(self) -> bytes:
        """Give what can go on by now."""
        self._flush()
        out, self._out = b"".join(self._out), []
        return out

    def _flush(self) -> None:
        data = b"".join(self._ready)
        self._ready.clear()
        if data:
            self._out.append(frame(self._opcode, data, final=False))
            self._opcode = CONTINUATION


def _malformed(why: str, host: str) -> Deny:
    return Deny(
        reason="websocket_protocol",
        rule="egress.websocket",
        message=f"the WebSocket with {host} does not keep to its protocol (RFC 6455): {why}",
        next_step="Use a client and a server that speak it, without extensions",
    )
