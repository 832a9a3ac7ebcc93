"""Stands before an exchange where its route says how its answers tell their usage, and hears them first.

Nothing of an answer depends on it: whatever it meets, the answer goes on as it came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.egress.passing import PassingOn
from bot_bottle.egress.usage import USAGE_APIS, EventStream, JsonAnswer, ServerMessages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.decision import Deny
    from bot_bottle.egress.frames import Event
    from bot_bottle.egress.grammar import StatusLine
    from bot_bottle.egress.headers import ResponseHeaders
    from bot_bottle.egress.reflection import Answered
    from bot_bottle.egress.routes import UsageApiName
    from bot_bottle.egress.upstream import UpstreamError
    from bot_bottle.pipelock.unpack import Unpacker
    from bot_bottle.usage import Usage


class Metered(PassingOn):
    """One answer on its way to ``exchange``; ``note`` is told at its end what it used, where it says so."""

    __slots__ = ("_api", "_note", "_plain", "_reader")

    def __init__(self, exchange: Answered, api: UsageApiName, note: Callable[[Usage], None]) -> None:
        super().__init__(exchange)
        self._api = USAGE_APIS[api]
        self._note = note
        self._reader: EventStream | JsonAnswer | None = None
        #: Opens content that comes encoded; on a route with a credential none does.
        self._plain: Unpacker | None = None

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """See whether and how the content says what was used."""
        if 200 <= line.status < 300:
            try:
                self._begin(headers)
            except Exception:  # noqa: BLE001 - an answer is worth more than what can be counted of it
                self._reader = None
        self._exchange.on_response_head(line, headers)

    def on_response_body(self, data: bytes) -> None:
        """Read a copy."""
        if self._reader is not None:
            try:
                self._reader.feed(self._plain.feed(data) if self._plain is not None else data)
            except Exception:  # noqa: BLE001 - as above; a coding that cannot be read among it
                self.settle()
        self._exchange.on_response_body(data)

    def on_response_end(self, trailers: Sequence[bytes] = ()) -> None:
        """Tell what was used."""
        self.settle()
        self._exchange.on_response_end(trailers)

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """Tell what was used of an answer that breaks off."""
        self.settle()
        self._exchange.on_upstream_lost(error)

    def refuse(self, status: int, deny: Deny) -> None:
        """Pass on a refusal in the answer's place."""
        self.settle()
        self._exchange.refuse(status, deny)

    def settle(self) -> None:
        """Tell what was used, once, as far as it was said; the answer may be cut off here."""
        reader, self._reader = self._reader, None
        if reader is None:
            return
        try:
            usage = reader.usage()
        except Exception:  # noqa: BLE001 - as above
            return
        if usage is not None:
            self._note(usage)

    def _begin(self, headers: ResponseHeaders) -> None:
        said = {name.strip().lower(): value.strip() for name, _, value in _fields(headers)}
        content_type = said.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type == b"text/event-stream":
            self._reader = EventStream(self._api)
        elif content_type == b"application/json" or content_type.endswith(b"+json"):
            self._reader = JsonAnswer(self._api)
        if self._reader is not None and (coding := said.get(b"content-encoding")):
            from bot_bottle.pipelock.unpack import unpacker  # noqa: PLC0415 - rare

            self._plain = unpacker(coding.decode("latin-1"))


def _fields(headers: ResponseHeaders) -> list[tuple[bytes, bytes, bytes]]:
    return [line.partition(b":") for line in headers.kept]


def hears_messages(api: UsageApiName, note: Callable[[Usage], None]) -> Callable[[Event], None]:
    """Give what hears the frames of a server on an upgraded connection, and tells of each answer in them."""
    reader: ServerMessages | None = ServerMessages(USAGE_APIS[api])

    def hear(event: Event) -> None:
        nonlocal reader
        if reader is None:
            return
        try:
            usage = reader.take(event)
        except Exception:  # noqa: BLE001 - as in Metered
            reader = None
            return
        if usage is not None:
            note(usage)

    return hear
