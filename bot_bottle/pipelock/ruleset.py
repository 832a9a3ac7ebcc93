"""Our rules at work: one pass says which could match where, ``re`` and a rule's judge settle each spot."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.pipelock.credentials import (
    KEY_START,
    NUMBER_WORDS,
    RULES,
    RUN_RULES,
)
from bot_bottle.pipelock.decode import MOST_SPOTS, SHAPES, SIGNS, Shape, spots
from bot_bottle.pipelock.digits import RUN
from bot_bottle.pipelock.disguises import CODES
from bot_bottle.pipelock.patterns import PatternSet
from bot_bottle.pipelock.rule import Match, Rule, is_placeholder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Literal

    from bot_bottle.pipelock.digits import Span
    from bot_bottle.pipelock.finding import Context
    from bot_bottle.pipelock.patterns import Hit

    Profile = Literal["strict", "egress"]

_AROUND = 96
#: Content up to this is always searched for numbers.
_SMALL = 4096
#: The longest value of a rule about runs, and what such values begin with where nothing hides them.
_LONGEST_RUN = 128
_FIRST_OF_RUN = frozenset(b"59KLcxtb13")
#: A last quantifier without bound would be reported once a byte; its least is enough to raise the alarm.
_OPEN_END = re.compile(rb"\{(\d+),\d*\}(=\{0,\d\})?(\)?)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleMatch:
    """A rule's verdict on one spot; ``value`` stays in memory."""

    rule: Rule
    value: bytes
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a pass saw: where rules could match, the shapes of encodings, the beginning of any key.

    ``engine`` tells whether the rule engine could find anything; ``None``: it must be asked. ``runs`` and
    ``codes`` tell whether there could be a long run of digits, or letters by their numbers.
    """

    hits: Sequence[Hit] = ()
    shapes: frozenset[Shape] = frozenset()
    key_start: bool = False
    engine: bool | None = None
    runs: bool = True
    codes: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether nothing but a run of digits was seen."""
        return not (self.hits or self.shapes or self.key_start or self.codes) and self.engine is False


_NO_SHAPES: frozenset[Shape] = frozenset()


@functools.cache
def _seen(
    shapes: frozenset[Shape] = frozenset(),
    *,
    key_start: bool = False,
    engine: bool | None,
    runs: bool = True,
    codes: bool = True,
) -> Look:
    """Give a look without hits, of which there are few."""
    return Look(shapes=shapes, key_start=key_start, engine=engine, runs=runs, codes=codes)


class RuleSet:
    """Our rules of one profile, compiled together with the signs of encoded content."""

    __slots__ = (
        "_compiled", "_first_number", "_first_pass", "_numbers", "_placeholders_pass", "_plain_run_rules",
        "_rules", "_run_rules", "_search", "_small",
    )  # fmt: skip

    def __init__(self, profile: Profile) -> None:
        # The numbers stand last, so that both searches share one numbering.
        self._rules = tuple(
            sorted((rule for rule in RULES if _counts(rule, profile)), key=lambda rule: rule.number)
        )
        self._run_rules = tuple(
            (rule, re.compile(rule.pattern)) for rule in RUN_RULES if _counts(rule, profile)
        )
        self._plain_run_rules = tuple(entry for entry in self._run_rules if not entry[0].hidden)
        self._placeholders_pass = profile == "strict"
        self._compiled = tuple(re.compile(rule.pattern) for rule in self._rules)
        triggers = [rule.trigger or _OPEN_END.sub(rb"{\1}\3", rule.pattern) for rule in self._rules]
        self._first_number = sum(not rule.number for rule in self._rules)
        named, numbers = triggers[: self._first_number], triggers[self._first_number :]
        signs = [*SIGNS, KEY_START, NUMBER_WORDS]
        self._first_pass = ((*named, *signs), (*[False] * len(named), *[True] * len(signs)))
        # Compiled where no combined set does its work.
        self._search: PatternSet | None = None
        for shape in SHAPES:
            spots(shape)  # so that no scan pays for compiling them
        self._numbers = PatternSet.expressions(numbers, once=False) if numbers else None
        self._small = PatternSet.expressions([*numbers, RUN, CODES], once=[False] * len(numbers) + [True] * 2)

    def first_pass(self) -> tuple[tuple[bytes, ...], tuple[bool, ...]]:
        """Give the expressions of the first pass, and which of them are reported once."""
        return self._first_pass

    def make_search(self) -> PatternSet:
        """Compile the first pass (0.1 s), which a combined set makes needless."""
        self._search = PatternSet.expressions(self._first_pass[0], once=self._first_pass[1])
        return self._search

    def look(self, data: bytes, combined: PatternSet | None = None) -> Look:
        """Pass over ``data`` once; ``combined`` has a rule engine's expressions behind ours."""
        engine: bool | None = None
        if combined is None:
            hits = (self._search or self.make_search()).hits(data)
        else:
            ours = len(self._first_pass[0])
            every = combined.hits(data)
            hits = [hit for hit in every if hit[0] < ours] if every else every
            engine = len(hits) < len(every)
        first = self._first_number
        signs = {index - first for index, _end in hits if index >= first}
        if signs:
            hits = [hit for hit in hits if hit[0] < first]
        runs = codes = True
        if len(data) <= _SMALL:
            hits, runs, codes = self._look_small(data, hits)
        elif self._numbers is not None and len(SHAPES) + 1 in signs:
            hits += [(first + index, end) for index, end in self._numbers.hits(data)]
        shapes = _shapes(data, signs) if signs else _NO_SHAPES
        key_start = len(SHAPES) in signs
        if not hits:
            return _seen(shapes, key_start=key_start, engine=engine, runs=runs, codes=codes)
        return Look(hits=hits, shapes=shapes, key_start=key_start, engine=engine, runs=runs, codes=codes)

    def _look_small(self, data: bytes, hits: list[Hit]) -> tuple[list[Hit], bool, bool]:
        """Look for numbers, runs of digits and letters by their numbers in one pass."""
        seen = self._small.hits(data)
        if not seen:
            return hits, False, False
        first, marks = self._first_number, len(self._rules) - self._first_number
        numbers = [(first + index, end) for index, end in seen if index < marks]
        others = {index - marks for index, _end in seen}
        return hits + numbers, 0 in others, 1 in others

    def may_hold_wallet(self, data: bytes, spans: Sequence[Span]) -> bool:
        """Tell whether :meth:`settle_runs` could find anything in the plain runs of ``data``."""
        return any(data[start] in _FIRST_OF_RUN for start, _end in spans)

    def settle(
        self, data: bytes, hits: Sequence[Hit], context: Context, layers: tuple[str, ...]
    ) -> Iterator[RuleMatch]:
        """Judge the spots that :meth:`look` gave."""
        judged: dict[int, int] = {}
        for index, end in hits:
            if end <= judged.get(index, -1):
                continue
            rule = self._rules[index]
            start = max(judged.get(index, 0), end - rule.reach)
            stop = judged[index] = end + rule.reach
            for match in self._compiled[index].finditer(data, start, stop):
                # A value that goes on behind the stretch is long enough as it is.
                yield from self._judge(rule, match, data, context, layers)

    def settle_runs(
        self, data: bytes, spans: Sequence[Span], context: Context, layers: tuple[str, ...]
    ) -> Iterator[RuleMatch]:
        """Judge every long run of digits by itself."""
        rules = self._run_rules if layers else self._plain_run_rules
        for start, end in spans:
            if end - start > _LONGEST_RUN or (not layers and data[start] not in _FIRST_OF_RUN):
                continue
            for rule, pattern in rules:
                match = pattern.fullmatch(data, start, end)
                if match is not None:
                    yield from self._judge(rule, match, data, context, layers)

    def _judge(
        self, rule: Rule, match: re.Match[bytes], data: bytes, context: Context, layers: tuple[str, ...]
    ) -> Iterator[RuleMatch]:
        if rule.places and context.place not in rule.places:
            return
        start, end = match.span(1)
        facts = Match(
            value=match[1],
            before=data[max(0, start - _AROUND) : start],
            after=data[end : end + _AROUND],
            context=context,
            layers=layers,
        )
        if self._placeholders_pass and is_placeholder(match[1]):
            return
        if rule.judge is None or rule.judge(facts):
            yield RuleMatch(rule=rule, value=match[1], offset=start)


def _shapes(data: bytes, signs: set[int]) -> frozenset[Shape]:
    """Give the shapes whose signs were seen; that of wrapped lines is confirmed, since it is a faster one."""
    shapes = {SHAPES[sign] for sign in signs if sign < len(SHAPES)}
    if Shape.WRAPPED in shapes and not spots(Shape.WRAPPED).hits(data, most=MOST_SPOTS):
        shapes.discard(Shape.WRAPPED)
    return frozenset(shapes)


def _counts(rule: Rule, profile: Profile) -> bool:
    return rule.strict if profile == "strict" else rule.egress


@functools.cache
def rule_set(profile: Profile) -> RuleSet:
    """Give the rules of a profile, compiled once a process (0.2 s)."""
    return RuleSet(profile)
