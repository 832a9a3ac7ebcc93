"""What one client sends in pieces: over consecutive requests, and over the messages of a WebSocket.

A bounded window of what was variable in the last requests is searched again with every new one, as it came
and by field: the values of a query parameter ``d`` over ten requests make one text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from bot_bottle.pipelock.fields import body_fields, query_fields
from bot_bottle.pipelock.finding import Context, Finding, Where
from bot_bottle.pipelock.own_secrets import skeleton

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bot_bottle.pipelock.fields import Field
    from bot_bottle.pipelock.finding import Place
    from bot_bottle.pipelock.own_secrets import OwnSecrets
    from bot_bottle.pipelock.request import Header
    from bot_bottle.pipelock.scanner import Scanner

_WINDOW = 8 * 1024
_FIELD_WINDOW = 1024
_MOST_FIELDS = 128
_LARGEST_VALUE = 2048
_CONSTANT = 8
_LARGEST_BODY = 16 * 1024


class Session:
    """The window over one client's requests; one a client connection, or one a bottle, which sees more."""

    __slots__ = ("_fields", "_headers", "_own", "_tail")

    def __init__(self, own: OwnSecrets) -> None:
        self._own = own
        self._tail = b""
        self._fields: dict[tuple[str, bytes], bytes] = {}
        self._headers: dict[bytes, bytes] = {}

    def request(
        self, *, path: bytes, query: bytes, headers: Sequence[Header], host: str = ""
    ) -> tuple[Finding, ...]:
        """Take the head of the next request, which was found clean by itself."""
        if not self._own:
            return ()
        fields: list[tuple[str, Field]] = []
        segments = path.split(b"/")
        fields += [("path", (b"%d" % index, part)) for index, part in enumerate(segments) if part]
        if query:
            fields += [("query", field) for field in query_fields(query)]
        if host:
            labels = host.encode("ascii", "replace").split(b".")
            fields += [("host", (b"%d" % index, label)) for index, label in enumerate(reversed(labels))]
        for name, value in headers:
            # What every request repeats is no message; it would only push the window on.
            if self._headers.get(name) != value:
                if len(self._headers) < _MOST_FIELDS:
                    self._headers[name] = value
                fields.append(("header", (name.lower(), value)))
        return self._take(fields)

    def body(self, data: bytes, content_type: str) -> tuple[Finding, ...]:
        """Take a small body that was found clean by itself; large ones are left alone."""
        if not self._own or len(data) > _LARGEST_BODY:
            return ()
        found = body_fields(data, content_type) or [(b"", data)]
        return self._take([("body", field) for field in found])

    def message(self, data: bytes) -> tuple[Finding, ...]:
        """Take a WebSocket message that was found clean by itself."""
        if not self._own or len(data) > _LARGEST_BODY:
            return ()
        found = body_fields(data, "") or [(b"", data)]
        return self._take([("websocket", field) for field in found])

    def _take(self, fields: Iterable[tuple[Place | str, Field]]) -> tuple[Finding, ...]:
        plains: list[bytes] = []
        for place, (name, value) in fields:
            value = value[:_LARGEST_VALUE]  # noqa: PLW2901
            plain = skeleton(unquote_to_bytes(value) if b"%" in value else value)
            if not plain:
                continue
            plains.append(plain)
            key = (place, name[:64])
            before = self._fields.pop(key, b"")
            if len(self._fields) >= _MOST_FIELDS:
                self._fields.pop(next(iter(self._fields)))
            # A longer value that comes again is a constant; of short ones each may be the next letter.
            again = len(plain) >= _CONSTANT and before.endswith(plain)
            text = self._fields[key] = before if again else before + plain
            if len(text) > _FIELD_WINDOW:
                self._fields[key] = text[-_FIELD_WINDOW:]
            found = self._own.search_skeleton(text) if before and text is not before else None
            if found is not None:
                return (_finding(found.name, found.layers, place),)
        self._tail += b"".join(plains)
        found = self._own.search_skeleton(self._tail) if self._tail else None
        self._tail = self._tail[-_WINDOW:]
        return (_finding(found.name, found.layers, "query"),) if found is not None else ()


def _finding(name: str, layers: tuple[str, ...], place: str) -> Finding:
    spot: Place = place if place in _PLACES else "query"  # type: ignore[assignment]
    where = Where(place=spot, layers=(*layers, "divided over requests"))
    return Finding(kind="own_secret", rule=f"own-secret:{name}", where=where)


_PLACES = frozenset({"path", "query", "header", "host", "body", "websocket"})


class MessageScanner:
    """Judges the messages of one WebSocket connection, each by itself and together with those before."""

    __slots__ = ("_rules", "_scanner", "_session")

    def __init__(self, scanner: Scanner, session: Session, *, rules: bool = True) -> None:
        self._scanner = scanner
        self._session = session
        self._rules = rules

    def message(self, data: bytes, *, text: bool) -> tuple[Finding, ...]:
        """Judge one whole, unmasked, uncompressed message."""
        kind = "text/plain" if text else ""
        context = Context(place="websocket", content_type=kind, rules=self._rules)
        return self._scanner.scan(data, context) or self._session.message(data)
