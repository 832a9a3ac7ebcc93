"""What a server answers, read for text that orders an agent about (``responses`` of a route).

Stands before the exchange, behind the search for credentials where there is one. ``warn`` passes every byte
on as it came and puts what was seen on record; ``block`` keeps a window back and cuts the answer off.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from bot_bottle.decision import Deny
from bot_bottle.egress.passing import PassingOn
from bot_bottle.pipelock.instructions import OVERLAP, Instruction, InstructionStream
from bot_bottle.pipelock.unpack import OpaqueError, unpacker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.egress.grammar import StatusLine
    from bot_bottle.egress.headers import ResponseHeaders
    from bot_bottle.egress.pool import Destination
    from bot_bottle.egress.reflection import Answered
    from bot_bottle.egress.upstream import UpstreamError
    from bot_bottle.pipelock.instructions import Reader
    from bot_bottle.pipelock.unpack import Unpacker

RULE: Final = "pipelock.responses"
#: ``warn`` delays nothing, so it looks at what comes in pieces of this size.
_PIECE = 16 * 1024
_TEXT = re.compile(
    rb"(?i)text/|application/(?:[\w.+-]*[+.-])?(?:json|xml|xhtml|yaml|x-ndjson|jsonl|markdown|javascript)\b"
)
_JSON = re.compile(rb"(?i)(?:text/event-stream|[\w./+-]*(?:json|javascript))")


class AnswerReader(PassingOn):
    """One response; ``note`` is told what was seen in it and whether that was held up."""

    __slots__ = (
        "_block", "_events", "_head", "_head_request", "_held", "_note", "_over", "_plain",
        "_reader", "_stream",
    )  # fmt: skip

    def __init__(
        self,
        exchange: Answered,
        reader: Reader,
        *,
        block: bool,
        head_request: bool,
        note: Callable[[Instruction], None],
    ) -> None:
        super().__init__(exchange)
        self._reader = reader
        self._block = block
        self._head_request = head_request
        self._note = note
        self._stream: InstructionStream | None = None
        self._plain: Unpacker | None = None
        self._events = False
        self._over = False
        # With ``block``: what is kept back until more of the answer was read.
        self._head: tuple[StatusLine, ResponseHeaders] | None = None
        self._held = b""

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """See whether the answer is text, and how it can be read."""
        if line.status < 200 or self._head_request or line.status in {204, 304}:
            self._exchange.on_response_head(line, headers)
            return
        kind = _value(headers, b"content-type")
        if kind and not _TEXT.match(kind):
            self._exchange.on_response_head(line, headers)
            return
        try:
            self._plain = unpacker(_value(headers, b"content-encoding").decode("latin-1"))
        except OpaqueError as error:
            if self._block:
                self._unreadable(error)
            else:
                self._exchange.on_response_head(line, headers)
            return
        self._events = kind[:17].lower() == b"text/event-stream"
        self._stream = InstructionStream(self._reader, is_json=_JSON.match(kind) is not None)
        if not self._block:
            self._exchange.on_response_head(line, headers)
            return
        if self._plain is not None:  # what was read is what goes on
            kept = [one for one in headers.kept if one[:17].lower() != b"content-encoding:"]
            headers = replace(headers, kept=kept, content_length=None)
        self._head = line, headers

    def on_response_body(self, data: bytes) -> None:
        """Pass on what may go on by now."""
        if self._over:
            return
        stream = self._stream
        if stream is None:
            self._exchange.on_response_body(data)
            return
        if not self._block:
            self._exchange.on_response_body(data)
            self._look(stream, data)
            return
        try:
            plain = self._plain.feed(data) if self._plain is not None else data
        except OpaqueError as error:
            self._unreadable(error)
            return
        if plain:
            self._pass_on(stream, plain)

    def on_response_end(self, trailers: Sequence[bytes] = ()) -> None:
        """Pass on what was kept back, and the end."""
        if self._over:
            return
        stream = self._stream
        if stream is not None and not self._block:
            self._tell(self._found(stream, b"", last=True))
        elif stream is not None:
            try:
                rest = self._plain.finish() if self._plain is not None else b""
            except OpaqueError as error:
                self._unreadable(error)
                return
            if rest and not self._pass_on(stream, rest):
                return
            self._release(len(self._held))
        self._exchange.on_response_end(trailers)

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """Pass on that the connection ended early; what was kept back is never shown."""
        if not self._over:
            self._exchange.on_upstream_lost(error)

    def refuse(self, status: int, deny: Deny) -> None:
        """Pass on a refusal of who searches the answer before."""
        self._over = True
        self._exchange.refuse(status, deny)

    def _look(self, stream: InstructionStream, data: bytes) -> None:
        """Read what has gone on already; where that cannot be done it is left at that."""
        if self._plain is not None:
            try:
                data = self._plain.feed(data)
            except OpaqueError:
                self._stream = None
                return
        if data:
            self._tell(self._found(stream, data))

    def _found(
        self, stream: InstructionStream, data: bytes, *, last: bool = False
    ) -> tuple[Instruction, ...]:
        """Read on; a reader that breaks reads no more, and says so."""
        try:
            return stream.finish() if last else stream.feed(data, least=0 if self._block else _PIECE)
        except Exception as error:  # noqa: BLE001 - fail closed under block, on record under warn
            self._stream = None
            return (Instruction(rule="scan-failed", message=f"reading it broke ({type(error).__name__})"),)

    def _tell(self, found: tuple[Instruction, ...]) -> None:
        for one in found:
            self._note(one)

    def _pass_on(self, stream: InstructionStream, plain: bytes) -> bool:
        """Read what came and let go what is before the last window; says whether nothing was found."""
        found = self._found(stream, plain)
        if self._stream is None:
            self._refuse("scan_failed", "what reads it broke")
            return False
        if found:
            self._tell(found)
            self._refuse("answer_gives_orders", f"{found[0].rule}: {found[0].message}")
            return False
        self._held += plain
        # A whole event goes on at once, or who reads them would wait for the next one.
        events = self._held.rfind(b"\n\n") + 2 if self._events else 0
        self._release(max(events if events > 1 else 0, len(self._held) - OVERLAP))
        return True

    def _release(self, size: int) -> None:
        """Let ``size`` bytes of what is kept back go, and the head before them."""
        if self._head is not None and (size > 0 or not self._held):
            line, headers = self._head
            self._head = None
            self._exchange.on_response_head(line, headers)
        if size > 0:
            data, self._held = self._held[:size], self._held[size:]
            self._exchange.on_response_body(data)

    def _unreadable(self, error: OpaqueError) -> None:
        self._refuse("response_unreadable", f"it cannot be read: {error}")

    def _refuse(self, reason: str, why: str) -> None:
        self._over = True
        self._held = b""
        self._exchange.refuse(
            403,
            Deny(
                reason=reason,
                rule=RULE,
                message=f"this route lets no answer pass that orders an agent about; it is held back: {why}",
                next_step="Do without it; where the answer is honest, the operator can set responses: warn",
            ),
        )


def orders_nothing(
    reader: Reader, line: StatusLine, headers: ResponseHeaders, message: bytes, head: int
) -> bool:
    """Tell of a response that came at once that an :class:`AnswerReader` would find nothing in it."""
    if line.status in {204, 304} or head == len(message):
        return False  # what becomes of these depends on more than their content
    kind = _value(headers, b"content-type")
    if kind and not _TEXT.match(kind):
        return True
    if _value(headers, b"content-encoding"):
        return False
    return reader.finds_nothing(message[head:], is_json=_JSON.match(kind) is not None)


class Record(Protocol):
    """Puts an event on record."""

    def __call__(self, event: str, **fields: str | int) -> None:
        """Append ``event`` with its fields."""


def read_for(
    exchange: Answered, reader: Reader, destination: Destination, *, head_request: bool, record: Record
) -> AnswerReader:
    """Give what reads an answer from ``destination`` for ``exchange``, as its route says."""
    block = destination.route.answers == "block"

    def note(found: Instruction) -> None:
        record(
            "content_warning",
            host=destination.host,
            rule=f"{RULE}.{found.rule}",
            message=found.message
            if found.rule == "scan-failed"
            else f"it orders an agent about: {found.message}",
            action="held back" if block else "passed on",
        )

    return AnswerReader(exchange, reader, block=block, head_request=head_request, note=note)


def _value(headers: ResponseHeaders, name: bytes) -> bytes:
    mark = name + b":"
    size = len(mark)
    return b",".join([one[size:].strip() for one in headers.kept if one[:size].lower() == mark])
