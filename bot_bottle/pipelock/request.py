"""The head of a request: its path, its query and its headers, judged in one pass, located in a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.pipelock.fields import joined, query_fields
from bot_bottle.pipelock.finding import Context, Finding, Where, value_id
from bot_bottle.pipelock.path_tokens import opaque_segment
from bot_bottle.pipelock.redaction import redacted
from bot_bottle.pipelock.selection import EVERYTHING, Selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.pipelock.finding import Place
    from bot_bottle.pipelock.scanner import Scanner

#: (name, value) as they came.
Header: TypeAlias = tuple[bytes, bytes]

#: Blocks of headers that were found clean, since a client sends the same ones with every request.
_REMEMBERED = 512
_LONGEST_NAME = 40
_REMEMBERED_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactedHead:
    """A head without what was found in it; ``taken`` says what, with how often it stood there."""

    query: bytes
    headers: tuple[Header, ...]
    taken: tuple[tuple[Finding, int], ...]


class RequestScanner:
    """Judges request heads with one scanner."""

    __slots__ = ("_clean", "_scanner")

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._clean: dict[tuple[bytes, Selection], None] = {}

    def scan(
        self,
        *,
        method: bytes,
        path: bytes,
        query: bytes,
        headers: Sequence[Header],
        selection: Selection = EVERYTHING,
    ) -> tuple[Finding, ...]:
        """Judge one head; ``path`` and ``query`` as written. Gives what counts in ``selection``.

        The method, names and values are all looked at. Never raises.
        """
        line = b"%b %b?%b" % (method, path, query) if query else b"%b %b" % (method, path)
        block = b"\n".join([b"%b: %b" % header for header in headers])
        rules = selection.rules
        if (block, selection) in self._clean:
            suspect = self._scan(line, "query", rules=rules)
            if suspect:
                suspect = self._locate(suspect, path=path, query=query, headers=(), selection=selection)
        else:
            suspect = self._scan(line + b"\n" + block, "query", rules=rules)
            if suspect:
                suspect = self._locate(suspect, path=path, query=query, headers=headers, selection=selection)
            suspect = suspect or self._divided(headers, "header")
            if not suspect:
                self._remember(block, selection)
        return suspect or self._target(path, query, selection)

    def scan_target(
        self, *, method: bytes, path: bytes, query: bytes, selection: Selection = EVERYTHING
    ) -> tuple[Finding, ...]:
        """Judge the target of a request whose header lines were found clean before; as :meth:`scan`."""
        line = b"%b %b?%b" % (method, path, query) if query else b"%b %b" % (method, path)
        suspect = self._scan(line, "query", rules=selection.rules)
        if suspect:
            suspect = self._locate(suspect, path=path, query=query, headers=(), selection=selection)
        return suspect or self._target(path, query, selection)

    def redacted(
        self, *, query: bytes, headers: Sequence[Header], selection: Selection = EVERYTHING
    ) -> RedactedHead | None:
        """Take what was found out of the query and the values of headers; ``None`` where that is not safe.

        What comes of it is to be judged by :meth:`scan` as a head of its own.
        """
        taken: list[tuple[Finding, int]] = []
        context = Context(place="query", rules=selection.rules)
        if any(map(selection.counts, self._scanner.scan(query, context))):
            done = redacted(self._scanner, query, context, selection)
            if done is None:
                return None
            query = done.data
            taken += done.taken
        lines: list[Header] = []
        for name, value in headers:
            line = b"%b: %b" % (name, value)
            context = Context(
                place=_place_of(name), field=name.decode("latin-1")[:_LONGEST_NAME], rules=selection.rules
            )
            if any(map(selection.counts, self._scanner.scan(line, context))):
                done = redacted(self._scanner, line, context, selection)
                if done is None or not done.data.startswith(name + b": "):
                    return None  # a name is what it is
                value = done.data[len(name) + 2 :]  # noqa: PLW2901
                taken += done.taken
            lines.append((name, value))
        return RedactedHead(query=query, headers=tuple(lines), taken=tuple(taken)) if taken else None

    def _target(self, path: bytes, query: bytes, selection: Selection) -> tuple[Finding, ...]:
        """Look for what only shows in the parts of a target: a divided value, an opaque token."""
        if b"&" in query and (divided := self._divided(query_fields(query), "query")):
            return divided
        if selection.rules and "opaque_token" in selection.detectors and (segment := opaque_segment(path)):
            found = _opaque(path, segment)
            return (found,) if selection.counts(found) else ()
        return ()

    def _scan(self, data: bytes, place: Place, *, rules: bool, field: str = "") -> tuple[Finding, ...]:
        return self._scanner.scan(data, Context(place=place, field=field, rules=rules))

    def _divided(self, fields: Sequence[Header], place: Place) -> tuple[Finding, ...]:
        """Put the values together: a guarded one may be divided over them."""
        own = self._scanner.own.search(joined(fields))
        if own is None:
            return ()
        where = Where(place=place, layers=(*own.layers, "divided"))
        return (Finding(kind="own_secret", rule=f"own-secret:{own.name}", where=where),)

    def _locate(
        self,
        suspect: tuple[Finding, ...],
        *,
        path: bytes,
        query: bytes,
        headers: Sequence[Header],
        selection: Selection,
    ) -> tuple[Finding, ...]:
        rules = selection.rules
        found = [*self._scan(path, "path", rules=rules), *self._scan(query, "query", rules=rules)]
        for name, value in headers:
            found += self._scan(
                b"%b: %b" % (name, value), _place_of(name), rules=rules, field=self._shown(name)
            )
        # What only the whole shows (a value divided over headers) stays where the first pass saw it.
        shown = {one.rule for one in found}
        found += [one for one in suspect if one.rule not in shown]
        return tuple(one for one in found if selection.counts(one))

    def _shown(self, name: bytes) -> str:
        """Show a header's name unless it is a value itself, in whatever form."""
        if len(name) > _LONGEST_NAME or self._scan(name, "header", rules=True):
            return f"a name of {len(name)} characters"
        return name.decode("latin-1")

    def _remember(self, block: bytes, selection: Selection) -> None:
        if len(block) <= _REMEMBERED_BYTES:
            if len(self._clean) >= _REMEMBERED:
                self._clean.pop(next(iter(self._clean)), None)
            self._clean[block, selection] = None


def _place_of(name: bytes) -> Place:
    return "cookie" if name.lower() in {b"cookie", b"cookie2"} else "header"


def _opaque(path: bytes, segment: bytes) -> Finding:
    where = Where(place="path", offset=path.find(segment))
    return Finding(
        kind="opaque_token",
        rule="opaque-path-token",
        where=where,
        excerpt=f"{len(segment)} characters",
        message="a part of the path is a long random-looking token",
        value_id=value_id(segment),
    )
