"""What one client sends in pieces: over consecutive requests, and over the messages of a WebSocket.

A bounded window of what was variable in the last requests is searched again with every new one, as it came
and by field: the values of a query parameter ``d`` over ten requests make one text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import unquote_to_bytes

from bot_bottle.pipelock.fields import body_fields, query_fields
from bot_bottle.pipelock.finding import Finding, Where
from bot_bottle.pipelock.own_secrets import skeleton
from bot_bottle.pipelock.stream import SMALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bot_bottle.pipelock.finding import Place
    from bot_bottle.pipelock.own_secrets import OwnSecrets
    from bot_bottle.pipelock.request import Header

#: Where a value stood: a part of the path by its number, a label of the host by its negative one, or a mark
#: of :data:`_MARKS` and the field's name.
Key: TypeAlias = int | bytes

_WINDOW = 8 * 1024
_FIELD_WINDOW = 512
_MOST_FIELDS = 128
_LARGEST_VALUE = 2048
_LONGEST_NAME = 64

_MARKS: Final[dict[bytes, Place]] = {
    b"?": "query",
    b":": "header",
    b".": "body",
    b"~": "body",
    b">": "websocket",
}


class Session:
    """The window over one client's requests; one a client connection, or one a bottle, which sees more."""

    __slots__ = ("_fields", "_headers", "_last", "_own", "_tail")

    def __init__(self, own: OwnSecrets) -> None:
        self._own = own
        self._tail = b""
        self._fields: dict[Key, bytes] = {}
        self._last: dict[Key, bytes] = {}
        self._headers: dict[bytes, bytes] = {}

    def request(
        self, *, path: bytes, query: bytes, headers: Sequence[Header], host: str = ""
    ) -> tuple[Finding, ...]:
        """Take the head of the next request, which was found clean by itself."""
        if not self._own:
            return ()
        values: list[tuple[Key, bytes]] = list(enumerate(path.split(b"/")))
        if query:
            values += [(b"?" + name[:_LONGEST_NAME], value) for name, value in query_fields(query)]
        if host:
            labels = host.encode("ascii", "replace").split(b".")
            values += [(-1 - index, label) for index, label in enumerate(reversed(labels))]
        # What every request repeats is no message; it would only push the window on.
        changed = [header for header in headers if self._headers.get(header[0]) != header[1]]
        if changed:
            values += [(b":" + name.lower()[:_LONGEST_NAME], value) for name, value in changed]
        found = self._take(values)
        if changed and not found:
            self._remember(changed)
        return found

    def body(self, data: bytes, content_type: str) -> tuple[Finding, ...]:
        """Take a small body that was found clean by itself; large ones are left alone."""
        return self._content(b".", data, content_type)

    def beside(self, data: bytes) -> tuple[Finding, ...]:
        """Take what a compressed body says beside its content (a file's name), found clean by itself."""
        return self._content(b"~", data, "")

    def message(self, data: bytes) -> tuple[Finding, ...]:
        """Take a WebSocket message that was found clean by itself; large ones are left alone."""
        return self._content(b">", data, "")

    def _content(self, mark: bytes, data: bytes, content_type: str) -> tuple[Finding, ...]:
        if not self._own or len(data) > SMALL:
            return ()
        fields = body_fields(data, content_type) or [(b"", data)]
        return self._take([(mark + name[:_LONGEST_NAME], value) for name, value in fields])

    def _take(self, values: Iterable[tuple[Key, bytes]]) -> tuple[Finding, ...]:
        """Search what ``values`` make of the window; it moves on only where nothing was found in it.

        What is refused does not leave, so it must not stand in the window of what comes after.
        """
        fields, last = self._fields, self._last
        new: dict[Key, bytes] = {}
        plains: list[bytes] = [self._tail]
        texts: dict[Key, bytes] = {}
        for key, value in values:
            # What comes again is a constant; a letter by itself may be the next one of a value.
            if not value or (last.get(key) == value and len(value) > 1):
                continue
            if len(value) > _LARGEST_VALUE:
                value = value[:_LARGEST_VALUE]  # noqa: PLW2901
            plain = skeleton(unquote_to_bytes(value) if b"%" in value else value)
            if not plain:
                continue
            plains.append(plain)
            texts[key] = ((texts.get(key) or fields.get(key, b"")) + plain)[-_FIELD_WINDOW:]
            new[key] = value
        if not texts:
            return ()
        tail = b"".join(plains)
        # One search for all; no needle has a line's end in it.
        found = self._own.search_skeleton(b"\n".join((tail, *texts.values())))
        if found is not None:
            where = Where(place=self._place_of(texts), layers=(*found.layers, "divided over requests"))
            return (Finding(kind="own_secret", rule=f"own-secret:{found.name}", where=where),)
        self._tail = tail[-_WINDOW:]
        fields.update(texts)
        last.update(new)
        while len(fields) > _MOST_FIELDS:
            oldest = next(iter(fields))
            del fields[oldest], last[oldest]
        return ()

    def _remember(self, headers: Iterable[Header]) -> None:
        for name, value in headers:
            if len(self._headers) >= _MOST_FIELDS and name not in self._headers:
                self._headers.clear()
            self._headers[name] = value

    def _place_of(self, texts: dict[Key, bytes]) -> Place:
        """Say which field shows it, if one alone does."""
        for key, text in texts.items():
            if self._own.search_skeleton(text) is not None:
                return _MARKS[key[:1]] if isinstance(key, bytes) else "path" if key >= 0 else "host"
        return "query"
