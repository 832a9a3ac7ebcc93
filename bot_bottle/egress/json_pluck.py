"""A few values out of JSON that flows by (RFC 8259), in constant memory however long and deep it is.

What is not asked for is read over and never kept. Nothing is validated: of a text that is no JSON some of
the values may come out, or none.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The names of the members that lead to a value from the outside in. Nothing inside an array has one.
Path: TypeAlias = tuple[str, ...]

#: The path by which an event says what it is.
KIND: Path = ("type",)

_TOKEN = re.compile(rb'[{}\[\],:"]|[^\s{}\[\],:"]+')
_LITERAL = re.compile(rb'[^\s{}\[\],:"]*')
#: Up to the closing quote, the end of what is there, or a backslash at that end. Possessive, since a matcher
#: that may step back remembers every step.
_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_COUNT = re.compile(rb"[0-9]{1,15}")
#: What a name or a text may be long, in bytes as written; a longer one counts as not there.
_LONGEST = 256


class Wanted:
    """What is looked for: values by their ``paths``; with ``kinds`` only in a text of one of these kinds."""

    __slots__ = ("deepest", "kinds", "last", "paths")

    def __init__(self, paths: Iterable[Path], kinds: frozenset[str] = frozenset()) -> None:
        self.paths = frozenset((*paths, KIND) if kinds else paths)
        self.kinds = kinds
        self.deepest = max(map(len, self.paths), default=0)
        #: The innermost names, by which most of what is read can be told from what is wanted at once.
        self.last = frozenset(path[-1] for path in self.paths)


class Pluck:
    """Reads one JSON text, fed in pieces of any size."""

    __slots__ = (
        "_deepest",
        "_depth",
        "_escaped",
        "_in_string",
        "_is_object",
        "_kept",
        "_literal",
        "_names",
        "_over",
        "_wanted",
        "_wants_name",
        "found",
    )

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._deepest = wanted.deepest
        # Of each container around this place, down to the deepest that matters: its sort, and which member of
        # it is read (None: an element of an array).
        self._is_object = [False] * self._deepest
        self._names: list[str | None] = [None] * self._deepest
        self._depth = 0
        self._wants_name = False
        self._in_string = self._escaped = False
        self._kept: bytearray | None = None
        self._literal = b""
        self._over = False
        #: Texts and whole numbers from 0 on that stood where they were looked for; the last one each.
        self.found: dict[Path, str | int] = {}

    def feed(self, data: bytes) -> None:
        """Read on."""
        position, size = 0, len(data)
        if self._literal and size:
            position = self._literal_from(data, 0)
        while position < size and not self._over:
            if self._in_string:
                position = self._string_from(data, position)
                continue
            match = _TOKEN.search(data, position)
            if match is None:
                return
            position = match.end()
            token = data[match.start()]
            if token == 0x22:  # "
                self._begin_string()
            elif token in b"{[":
                self._open(is_object=token == 0x7B)
            elif token in b"}]":
                self._depth -= 1
                self._wants_name = False
                self._over = self._depth < 0
            elif token == 0x2C:  # ,
                self._wants_name = 0 < self._depth <= self._deepest and self._is_object[self._depth - 1]
            elif token == 0x3A:  # :
                self._wants_name = False
            else:
                position = self._literal_from(data, match.start())

    def _open(self, *, is_object: bool) -> None:
        self._depth += 1
        self._wants_name = is_object and self._depth <= self._deepest
        if self._depth <= self._deepest:
            self._is_object[self._depth - 1] = is_object
            self._names[self._depth - 1] = None

    def _begin_string(self) -> None:
        self._in_string = True
        self._kept = bytearray() if self._wants_name or self._here() else None

    def _string_from(self, data: bytes, position: int) -> int:
        begin = position
        if self._escaped:
            self._escaped = False
            position += 1
        match = _STRING.match(data, position)
        end = match.end() if match else position
        ended = data[end : end + 1] == b'"'
        self._escaped = not ended and end < len(data)
        if self._kept is not None:
            self._kept += data[begin : end if ended else len(data)]
            if len(self._kept) > _LONGEST:
                self._kept = None
                if self._wants_name:
                    self._names[self._depth - 1] = None
        if not ended:
            return len(data)
        self._in_string = False
        if self._kept is not None:
            self._take_text(_text(bytes(self._kept)))
        return end + 1

    def _take_text(self, text: str) -> None:
        if self._wants_name:
            self._names[self._depth - 1] = text
            return
        path = self._here()
        self.found[path] = text
        if path == KIND and self._wanted.kinds and text not in self._wanted.kinds:
            self.found.clear()
            self._over = True

    def _literal_from(self, data: bytes, position: int) -> int:
        match = _LITERAL.match(data, position)
        end = match.end() if match else position
        literal = self._literal + data[position:end]
        if end == len(data):
            self._literal = literal[: _LONGEST + 1]  # it may go on with the next piece
            return end
        self._literal = b""
        if _COUNT.fullmatch(literal) and (path := self._here()):
            self.found[path] = int(literal)
        return end

    def _here(self) -> Path:
        """Give the path of the value that stands here where it is wanted."""
        if not 0 < self._depth <= self._deepest or self._names[self._depth - 1] not in self._wanted.last:
            return ()
        path = tuple(name for name in self._names[: self._depth] if name is not None)
        return path if len(path) == self._depth and path in self._wanted.paths else ()


def _text(raw: bytes) -> str:
    try:
        text = json.loads(b'"%b"' % raw)
    except ValueError:
        return ""
    return text if isinstance(text, str) else ""
