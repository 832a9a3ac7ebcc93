"""YAML as data with the place of every key and value, in the small and safe part of YAML that manifests use.

Built from the parser's events, never through a constructor. Plain scalars follow the YAML 1.2 core schema
(10.3.2), so ``no`` and ``on`` are text. Refused: anchors and aliases (they multiply: the "billion laughs"
attack, CVE-2003-1564 in its XML form), merge keys, tags, repeated keys, several documents, deep nesting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from bot_bottle.manifest.problem import KeyPath, Problem, key_text, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: How deep mappings and lists may nest; the manifest itself needs six.
MAX_DEPTH = 16

_Loader: type[yaml.SafeLoader | yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCT = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)

_MAX_NUMBER_LENGTH = 64

Place = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlTree:
    """Plain data (dict, list, str, int, float, bool, None) and where each part of it stands in the file."""

    data: object
    keys: Mapping[KeyPath, Place]
    values: Mapping[KeyPath, Place]
    problems: tuple[Problem, ...]

    def place(self, path: KeyPath, *, of_key: bool = False) -> Place:
        """Give (line, column) of the value at ``path`` or of its key; of the nearest parent if absent."""
        first, second = (self.keys, self.values) if of_key else (self.values, self.keys)
        while True:
            place = first.get(path) or second.get(path)
            if place:
                return place
            if not path:
                return (1, 1)
            path = path[:-1]


def parse_yaml(text: str, *, file: str, first_line: int = 1) -> YamlTree:
    """Read one YAML document; ``first_line`` is the line of ``file`` on which ``text`` starts.

    Never raises for bad input: whatever is wrong is in ``problems``, and ``data`` is then not to be used.
    """
    builder = _Builder(file, first_line)
    try:
        builder.read(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        builder.syntax_error(error, text)
    except yaml.reader.ReaderError as error:
        line = first_line + text[: max(error.position, 0)].count("\n")
        builder.problems.append(
            Problem(
                file=file, line=line, column=1, key="", message="a control character stands here; remove it"
            )
        )
    return YamlTree(
        data=builder.data, keys=builder.keys, values=builder.values, problems=tuple(builder.problems)
    )


class _TooDeep(Exception):  # noqa: N818 - a signal inside this module, not an error others see
    """Ends the walk over a document that nests beyond :data:`MAX_DEPTH`."""


class _Builder:
    """Turns the parser's events into data, collecting places and problems on the way."""

    def __init__(self, file: str, first_line: int) -> None:
        self.file = file
        self.first_line = first_line
        self.data: object = None
        self.keys: dict[KeyPath, Place] = {}
        self.values: dict[KeyPath, Place] = {}
        self.problems: list[Problem] = []

    def read(self, events: Iterator[Event]) -> None:
        documents = 0
        try:
            for event in events:
                if isinstance(event, DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self.problem(event, (), "a second YAML document starts here; write one only")
                        return
                    if event.version or event.tags:
                        self.problem(event, (), "YAML directives are not accepted; remove the line")
                    self.data = self.node(next(events), events, ())
                elif isinstance(event, StreamEndEvent):
                    return
        except _TooDeep:
            return

    def node(self, event: Event, events: Iterator[Event], path: KeyPath) -> object:
        place = self.place_of(event)
        self.values[path] = place
        if isinstance(event, AliasEvent):
            self.problem(event, path, "YAML aliases (*name) are not accepted; write the value out")
            return None
        if getattr(event, "anchor", None):
            self.problem(
                event, path, "YAML anchors (&name) are not accepted; write the value out where it is used"
            )
        if getattr(event, "tag", None):
            self.problem(
                event, path, "YAML tags (!name) are not accepted; remove it, quote the value if it is text"
            )
        if len(path) > MAX_DEPTH:
            self.problem(event, path[:MAX_DEPTH], f"nests deeper than {MAX_DEPTH} levels")
            raise _TooDeep
        if isinstance(event, MappingStartEvent):
            return self.mapping(events, path)
        if isinstance(event, SequenceStartEvent):
            return self.sequence(events, path)
        assert isinstance(event, ScalarEvent)  # noqa: S101 - the parser's grammar leaves no other event here
        return self.scalar(event, path)

    def mapping(self, events: Iterator[Event], path: KeyPath) -> dict[str, object]:
        result: dict[str, object] = {}
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            key = self.key(event, events, path)
            sub = (*path, key)
            if sub in self.keys:
                line, _ = self.keys[sub]
                self.problem(event, sub, f"is written twice (first on line {line}); keep one")
                sub = (*path, key, "")  # the second value's own places must not replace the first's
                self.node(next(events), events, sub)
                continue
            self.keys[sub] = self.place_of(event)
            result[key] = self.node(next(events), events, sub)
        return result

    def key(self, event: Event, events: Iterator[Event], path: KeyPath) -> str:
        """Give a mapping key's text; keys are text whatever they look like (``on``, ``1``)."""
        if not isinstance(event, ScalarEvent):
            self.problem(event, path, "a key must be plain text")
            self.node(event, events, (*path, ""))
            return ""
        if event.anchor:
            self.problem(event, path, "YAML anchors (&name) are not accepted; remove it")
        if event.tag:
            self.problem(event, path, "YAML tags (!name) are not accepted; remove it")
        text = str(event.value)
        if text == "<<" and event.implicit[0]:
            self.problem(event, path, "YAML merge keys (<<) are not accepted; write the keys out")
        return text

    def sequence(self, events: Iterator[Event], path: KeyPath) -> list[object]:
        result: list[object] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            result.append(self.node(event, events, (*path, len(result))))
        return result

    def scalar(self, event: ScalarEvent, path: KeyPath) -> object:
        text = str(event.value)
        if not event.implicit[0]:  # quoted or a block: always text
            return text
        try:
            return core_scalar(text)
        except ValueError:
            self.problem(event, path, "is too long for a number; quote it if it is text")
            return None

    def place_of(self, event: Event) -> Place:
        mark = event.start_mark
        assert mark is not None  # noqa: S101 - every event of a parser has one
        return (self.first_line + mark.line, mark.column + 1)

    def problem(self, event: Event, path: KeyPath, message: str) -> None:
        line, column = self.place_of(event)
        self.problems.append(
            Problem(file=self.file, line=line, column=column, key=key_text(path), message=message)
        )

    def syntax_error(self, error: yaml.MarkedYAMLError, text: str) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (self.first_line + mark.line, mark.column + 1) if mark else (self.first_line, 1)
        said = shown(" ".join(part for part in (error.context, error.problem) if part), 160)
        message = f"not valid YAML: {said}; check the indentation, the quotes and the colons of this line"
        if mark and _tab_at(text, mark.line, mark.column):
            message = "a tab stands here, and YAML is indented by spaces alone; write spaces in its place"
        if "nesting depth" in said:  # PyYAML from 6.0.4 on stops by itself
            message = f"nests deeper than {MAX_DEPTH} levels"
        self.problems.append(Problem(file=self.file, line=line, column=column, key="", message=message))


def _tab_at(text: str, line: int, column: int) -> bool:
    """Tell whether a tab stands at a place, counted from 0."""
    lines = text.split("\n")
    return line < len(lines) and lines[line][column : column + 1] == "\t"


def core_scalar(text: str) -> object:
    """Resolve one plain scalar by the YAML 1.2 core schema; raises ``ValueError`` for an overlong number."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    for pattern, base in ((_INT, 10), (_OCT, 8), (_HEX, 16)):
        if pattern.fullmatch(text):
            _bounded(text)
            return int(text[2:] if base != 10 else text, base)
    if _FLOAT.fullmatch(text):
        _bounded(text)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _bounded(text: str) -> None:
    if len(text) > _MAX_NUMBER_LENGTH:
        raise ValueError(len(text))
