"""Text that was written for an agent to obey, in what a server answers. Pure.

A language model takes whatever it reads for something it was told, so pages, tool descriptions and fields of
an API carry orders for it (indirect prompt injection; OWASP LLM01). Such text cannot be told from honest text
for certain. What is looked for is of few kinds: to set former instructions aside, to take on other powers, to
use a tool or to run something at once, to keep it from the human; and text that no human sees.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bot_bottle.pipelock.deadline import OverBudgetError
from bot_bottle.pipelock.decode import Shape, decoded
from bot_bottle.pipelock.instruction_signs import FIRST_WORDS, SIGNS
from bot_bottle.pipelock.patterns import PatternSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from bot_bottle.pipelock.instruction_signs import Sign

#: How far apart two signs may be and still be one order, in bytes.
NEAR: Final = 600
#: How much of what came before is looked at again with what comes next.
OVERLAP: Final = 1024
_LONGEST = 400
#: More spots than this in one stretch are a sign by themselves: honest pages have a handful.
_MOST_SPOTS = 2000
#: No more signs than this fit into the stretch that is near.
_NEIGHBOURS = 64
_TOO_MANY: Final = "too-many-signs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What orders an agent about in an answer: the ``rule`` that saw it, and what it is in words."""

    rule: str
    message: str


_MESSAGES: Final = {
    "former-orders-set-aside": "it tells its reader to set former instructions aside",
    "decode-and-run": "it tells its reader to decode something and to do what that says",
    "kept-from-the-user": "it tells its reader to keep something from the user",
    "tool-order": "it orders its reader to use a tool",
    "other-role": "it gives its reader another role",
    "other-orders": "it gives its reader other instructions",
    "from-now-on": "it tells its reader how to behave from now on",
    "other-powers": "it says that its reader has other powers",
    "speaks-as-system": "it speaks as the system or its administrator would",
    "run-at-once": "it orders its reader to run something at once",
    "speaks-to-agents": "it speaks to language models",
    "turn-markup": "it has the marks by which a model's turns are told apart",
    "unseen-text": "it has text in characters that nobody sees",
    "too-many-signs": "it has more signs of orders than can be looked at",
}

#: Quoted by someone who writes about such text.
_QUOTE = re.compile(
    rb"(?:\\\"|\"|'|`|\xe2\x80[\x98\x9c]|\xc2\xab|&quot;|<code>|<q>|<em>)\W{0,3}$", re.IGNORECASE
)
#: The quotation mark that begins a JSON string quotes nobody.
_DELIMITER = re.compile(rb"(?:[^\\]\"\s{0,8}[:,]|[\[{])\s{0,40}\"\W{0,3}$")
_ABOUT = re.compile(
    rb"(?i)\b(?:attack\w{0,3}|inject\w{0,4}|examples?(?!\.)|patterns?|such as|e\.g\.|phrases?|malicious"
    rb"|jailbreaks?|detect\w{0,4}|defen[ds]\w{0,4}|adversar\w{0,4}|payloads?|strings? like|prompts? like)\b"
)
#: Not said to the reader: what somebody tries, is able to do, or need not heed.
_REPORTED = re.compile(
    rb"(?i)\b(?:(?:attempts?|attempting|tr(?:y|ies|ied|ying)|designed|used|able|wants?|how|ways?|asked) to"
    rb"|(?:it|they|which|that|attackers?|models?|who) (?:will|can|could|may|might|would|simply|then)"
    rb"|you (?:can|may|could|might)(?: safely)?|safely|if you)\W{1,3}$"
)
_HIDDEN_TAG = re.compile(
    rb"(?i)<\w{1,12}\b[^<>]{0,200}?(?:display\s{0,2}:\s{0,2}none|visibility\s{0,2}:\s{0,2}hidden"
    rb"|font-size\s{0,2}:\s{0,2}[01](?![\d.])|(?<![-\w])color\s{0,2}:\s{0,2}(?:white|transparent|#fff\b|#ffffff)|opacity\s{0,2}:\s{0,2}0(?![.\d])|\bhidden\b)[^<>]{0,100}>[^<>]{0,300}$"
)
_BEFORE = 240

_ESCAPES: Final = (Shape.ESCAPE, Shape.UNICODE)


@dataclass(frozen=True, slots=True)
class _Spot:
    sign: Sign
    start: int
    end: int
    hidden: bool


class Reader:
    """Reads text for orders; one a process does for all. Thread-safe but for its first finds.

    A first pass tells honest data from text that speaks to somebody; what looks closer is loaded for the
    latter. Compiling them takes 40 ms and half a second, so ``folder`` keeps both for the next process.
    """

    __slots__ = ("_closer", "_first", "_folder")

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        words = [b"(?i)" + b"".join(b"\\x%02x" % byte for byte in word) for word in FIRST_WORDS]
        first = [*(shape.value for shape in _ESCAPES), *words]
        self._first = PatternSet.kept(first, once=True, folder=folder, name="answers-first")
        self._closer: PatternSet | None = None

    def find(self, data: bytes) -> tuple[Instruction, ...]:
        """Give what of ``data`` orders an agent about, each rule once."""
        try:
            return tuple(Instruction(rule=rule, message=_MESSAGES[rule]) for rule in self._rules(data))
        except OverBudgetError:
            return (Instruction(rule=_TOO_MANY, message=_MESSAGES[_TOO_MANY]),)

    def finds_nothing(self, data: bytes, *, is_json: bool = False) -> bool:
        """Tell of a whole text that nothing in it orders an agent about; as :class:`InstructionStream`."""
        return not self.find(_spaced(data, is_json=is_json))

    def warm(self) -> PatternSet:
        """Compile what looks closer, or load what was kept of it, so that no answer waits for that."""
        if self._closer is not None:
            return self._closer
        patterns = [sign.loose() for sign in SIGNS]
        once = [sign.weight == "unseen" for sign in SIGNS]
        _exact()
        self._closer = PatternSet.kept(patterns, once=once, folder=self._folder, name="answers")
        return self._closer

    def _rules(self, data: bytes) -> Iterable[str]:
        hits = self._first.hits(data)
        if not hits:
            return ()
        shapes = [_ESCAPES[index] for index, _end in hits if index < len(_ESCAPES)]
        closer = self._closer or self.warm()
        found = dict.fromkeys(_orders(_spots(data, closer.hits(data))))
        for _layer, text in decoded(data, shapes, (), None) if shapes else ():
            found.update(dict.fromkeys(_orders(_spots(text, closer.hits(text)))))
        return found


class InstructionStream:
    """The same for an answer as it comes: what spans its pieces is seen, memory stays flat."""

    __slots__ = ("_is_json", "_pending", "_reader", "_size", "_tail", "_told")

    def __init__(self, reader: Reader, *, is_json: bool = False) -> None:
        """With ``is_json`` line ends come as escapes."""
        self._reader = reader
        self._is_json = is_json
        self._tail = b""
        self._pending: list[bytes] = []
        self._size = 0
        self._told: set[str] = set()

    def feed(self, data: bytes, *, least: int = 0) -> tuple[Instruction, ...]:
        """Take a piece; gives what is new. With ``least`` it is judged once so many bytes have come."""
        self._pending.append(data)
        self._size += len(data)
        return self.finish() if self._size >= least else ()

    def finish(self) -> tuple[Instruction, ...]:
        """Judge what was taken and not judged yet."""
        if not self._size:
            return ()
        text = b"".join((self._tail, *self._pending))
        self._pending.clear()
        self._size = 0
        self._tail = text[-OVERLAP:]
        found = self._reader.find(_spaced(text, is_json=self._is_json))
        new = tuple(one for one in found if one.rule not in self._told)
        self._told.update(one.rule for one in new)
        return new


def _spaced(data: bytes, *, is_json: bool) -> bytes:
    """Let written spaces and line ends be some, without a change of length."""
    if b"&nbsp;" in data:
        data = data.replace(b"&nbsp;", b"      ")
    if not is_json or b"\\" not in data:
        return data
    return data.replace(b"\\n", b"\n ").replace(b"\\r", b"\n ").replace(b"\\t", b"\t ")


@functools.cache
def _exact() -> tuple[re.Pattern[bytes], ...]:
    return tuple(re.compile(sign.pattern) for sign in SIGNS)


def _spots(data: bytes, hits: list[tuple[int, int]]) -> list[_Spot]:
    """Find where each sign begins, and leave out what is only reported."""
    found: list[_Spot] = []
    behind: dict[int, int] = {}
    if len(hits) > _MOST_SPOTS:
        raise OverBudgetError("there are too many signs to judge")
    for index, end in hits:
        if end <= behind.get(index, -1):
            continue
        sign = SIGNS[index]
        match = _exact()[index].search(data, max(behind.get(index, 0), end - _LONGEST), end + 1)
        if match is None:
            continue
        behind[index] = match.end()
        before = data[max(0, match.start() - _BEFORE) : match.start()]
        hidden = _is_hidden(data, match.start())
        if hidden or not _is_reported(sign, before, data[match.end() : match.end() + _BEFORE]):
            found.append(_Spot(sign, match.start(), match.end(), hidden))
    return found


def _is_hidden(data: bytes, start: int) -> bool:
    """Tell text inside of a comment, or of an element that is not shown."""
    begun = data.rfind(b"<!--", max(0, start - OVERLAP), start)
    if begun >= 0 and data.find(b"-->", begun, start) < 0:
        return True
    return _HIDDEN_TAG.search(data[max(0, start - 2 * _BEFORE) : start]) is not None


def _is_reported(sign: Sign, before: bytes, after: bytes) -> bool:
    """Tell what somebody says about such orders, and not to the reader."""
    if sign.weight not in {"order", "address"}:
        return False
    if sign.rule == "former-orders-set-aside" and _REPORTED.search(before[-40:]):
        return True
    if _QUOTE.search(before) is None or _DELIMITER.search(before) is not None:
        return False
    return _ABOUT.search(before) is not None or _ABOUT.search(after) is not None


def _orders(spots: list[_Spot]) -> Iterator[str]:
    """Give the names of the rules whose signs make an order, by themselves or together."""
    ordered = sorted(spots, key=lambda spot: spot.start)
    for index, spot in enumerate(ordered):
        near = ordered[max(0, index - _NEIGHBOURS) : index + _NEIGHBOURS + 1]
        if spot.sign.weight in {"order", "unseen"} or (
            spot.sign.weight == "address"
            and (spot.hidden or any(_go_together(spot, other) for other in near))
        ):
            yield spot.sign.rule


def _go_together(spot: _Spot, other: _Spot) -> bool:
    return other.sign.rule != spot.sign.rule and (
        other.start - spot.end <= NEAR and spot.start - other.end <= NEAR
    )
