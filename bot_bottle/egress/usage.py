"""How much of a model an answer used, read as the answer streams by: numbers and a model's name, no content.

A route says by which API its host answers (``EgressRoute.usage``). What is read of an answer is a copy of it;
whatever goes wrong with that ends the reading, and the answer goes on as it came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bot_bottle.egress.frames import Begin, End, Payload
from bot_bottle.egress.json_pluck import Pluck, Wanted
from bot_bottle.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.egress.frames import Event
    from bot_bottle.egress.json_pluck import Path
    from bot_bottle.egress.routes import UsageApiName

#: A model as it is recorded and shown; what a server calls one otherwise is left out.
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageApi:
    """Where the answers of one API say what they used.

    ``input``, ``cached`` and ``output`` are places of numbers that are summed up, dotted, below ``usage``.
    All of it stands in the outermost object or in its member ``inside``. ``kinds`` are the events that say
    it, where the API names its events.
    """

    input: tuple[str, ...]
    cached: tuple[str, ...]
    output: tuple[str, ...]
    usage: str = "usage"
    model: str = "model"
    inside: str = ""
    kinds: frozenset[str] = frozenset()

    def places(self) -> dict[Path, str]:
        """Give every path that may hold one of the values, with the value's dotted place."""
        names = (self.model, *(f"{self.usage}.{one}" for one in (*self.input, *self.cached, *self.output)))
        outer = ((), (self.inside,)) if self.inside else ((),)
        return {(*before, *name.split(".")): name for before in outer for name in names}


#: The APIs that are known, by the word for them in manifests.
USAGE_APIS: Mapping[UsageApiName, UsageApi] = {
    # Of the prompt, what was written into a cache and what was read from one is counted apart.
    "messages": UsageApi(
        input=("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
        cached=("cache_read_input_tokens",),
        output=("output_tokens",),
        inside="message",
        kinds=frozenset({"message_start", "message_delta"}),
    ),
    "responses": UsageApi(
        input=("input_tokens",),
        cached=("input_tokens_details.cached_tokens",),
        output=("output_tokens",),
        inside="response",
        kinds=frozenset({"response.completed", "response.incomplete", "response.failed"}),
    ),
    "chat-completions": UsageApi(
        input=("prompt_tokens",),
        cached=("prompt_tokens_details.cached_tokens",),
        output=("completion_tokens",),
    ),
    "generate-content": UsageApi(
        usage="usageMetadata",
        model="modelVersion",
        input=("promptTokenCount", "toolUsePromptTokenCount"),
        cached=("cachedContentTokenCount",),
        output=("candidatesTokenCount", "thoughtsTokenCount"),
        inside="response",
    ),
}


class UsageSum:
    """What the parts of one answer say together.

    An API repeats its numbers, growing, as an answer streams; so of each place the largest one counts.
    """

    __slots__ = ("_api", "_numbers", "_places", "model")

    def __init__(self, api: UsageApi) -> None:
        self._api = api
        self._places = places_of(api)
        self._numbers: dict[str, int] = {}
        self.model = ""

    def take(self, found: Mapping[Path, str | int]) -> None:
        """Add what was found in one part."""
        for path, value in found.items():
            name = self._places.get(path, "")
            if name == self._api.model:
                if isinstance(value, str) and _MODEL.fullmatch(value):
                    self.model = value
            elif name and isinstance(value, int):
                self._numbers[name] = max(value, self._numbers.get(name, 0))

    def usage(self) -> Usage | None:
        """Give the sum; ``None`` where nothing was used, or nothing said."""
        api = self._api
        if not any(self._numbers.values()):
            return None
        return Usage(self.model, self._of(api.input), self._of(api.cached), self._of(api.output))

    def _of(self, names: tuple[str, ...]) -> int:
        return sum(self._numbers.get(f"{self._api.usage}.{name}", 0) for name in names)


class JsonAnswer:
    """An answer that is one JSON text."""

    __slots__ = ("_pluck", "_sum")

    def __init__(self, api: UsageApi) -> None:
        self._sum = UsageSum(api)
        # Not by its kind: that is how events are told apart.
        self._pluck = Pluck(Wanted(places_of(api)))

    def feed(self, data: bytes) -> None:
        """Read on."""
        self._pluck.feed(data)

    def usage(self) -> Usage | None:
        """Give what was said so far."""
        self._sum.take(self._pluck.found)
        return self._sum.usage()


#: WHATWG HTML, 9.2.5: a line ends with CR LF, LF or CR.
_LINE_END = re.compile(rb"\r\n?|\n")
_DATA = b"data:"


class EventStream:
    """An answer of server-sent events (WHATWG HTML, 9.2), each one's data a JSON text, however long."""

    __slots__ = ("_after_return", "_at_data", "_line", "_pluck", "_sum", "_wanted")

    def __init__(self, api: UsageApi) -> None:
        self._wanted = wanted_by(api)
        self._sum = UsageSum(api)
        self._pluck: Pluck | None = None
        #: How the current line begins, as far as that matters.
        self._line = b""
        self._at_data = False
        self._after_return = False

    def feed(self, data: bytes) -> None:
        """Read on."""
        position = 1 if self._after_return and data[:1] == b"\n" else 0
        if data:
            self._after_return = data[-1:] == b"\r"
        while position < len(data):
            match = _LINE_END.search(data, position)
            self._take(data[position : match.start() if match else len(data)])
            if match is None:
                return
            position = match.end()
            self._end_line()

    def usage(self) -> Usage | None:
        """Give what was said so far, by an event that is not whole yet too."""
        self._end_event()
        return self._sum.usage()

    def _take(self, piece: bytes) -> None:
        if not self._at_data:
            room = len(_DATA) - len(self._line)
            self._line += piece[:room]
            self._at_data = self._line == _DATA
            piece = piece[room:]
            if self._at_data and self._pluck is None:
                self._pluck = Pluck(self._wanted)
        if self._at_data and self._pluck is not None:
            self._pluck.feed(piece)

    def _end_line(self) -> None:
        empty = not self._line
        self._line, self._at_data = b"", False
        if empty:
            self._end_event()
        elif self._pluck is not None:
            self._pluck.feed(b"\n")

    def _end_event(self) -> None:
        if self._pluck is not None:
            self._sum.take(self._pluck.found)
            self._pluck = None


class ServerMessages:
    """What a server says on a WebSocket: each message one JSON text, some of them the end of an answer."""

    __slots__ = ("_api", "_begin", "_pluck")

    def __init__(self, api: UsageApi) -> None:
        self._api = api
        self._begin: Begin | None = None
        self._pluck: Pluck | None = None

    def take(self, event: Event) -> Usage | None:
        """Take what the reader of the server's frames gives; gives what an answer used, where it ends so."""
        if isinstance(event, Begin):
            self._begin = event
        if self._begin is None or self._begin.is_control:
            return None  # it may stand between the frames of a message
        if self._pluck is None:
            self._pluck = Pluck(wanted_by(self._api))
        if isinstance(event, Payload):
            self._pluck.feed(event.data)
        elif isinstance(event, End) and self._begin.final:
            said = UsageSum(self._api)
            said.take(self._pluck.found)
            self._pluck = None
            return said.usage()
        return None


@lru_cache(maxsize=16)
def places_of(api: UsageApi) -> Mapping[Path, str]:
    """Give ``api.places()``, made once."""
    return api.places()


@lru_cache(maxsize=16)
def wanted_by(api: UsageApi) -> Wanted:
    """Give what is looked for in one event of ``api``, made once."""
    return Wanted(places_of(api), api.kinds)
