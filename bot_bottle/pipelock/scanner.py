"""The scanner: one piece of content in, findings out; any failure of its own is a finding too.

For every piece, and for what is found under up to three layers of encoding in it: the guarded values first,
then our rules, then the rule engine. Nothing here reads a clock or does I/O; the clock is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bot_bottle.pipelock.deadline import Deadline, OverBudgetError
from bot_bottle.pipelock.decode import decoded
from bot_bottle.pipelock.digits import digit_runs, hides_nothing
from bot_bottle.pipelock.disguises import holds_none, undisguised
from bot_bottle.pipelock.divided import divided_keys
from bot_bottle.pipelock.extent import whole_id
from bot_bottle.pipelock.files_rules import file_secrets
from bot_bottle.pipelock.finding import Context, Finding, Kind, Where, mask
from bot_bottle.pipelock.own_secrets import OwnSecrets, skeleton
from bot_bottle.pipelock.rule import is_placeholder
from bot_bottle.pipelock.ruleset import rule_set
from bot_bottle.pipelock.text import claims_text, looks_opaque
from bot_bottle.pipelock.unpack import OpaqueError, unpacker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bot_bottle.pipelock.engine import EngineHit
    from bot_bottle.pipelock.patterns import PatternSet
    from bot_bottle.pipelock.ruleset import Look, Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How far one scan goes: ``seconds`` of time, ``layers`` of decoding, and bytes decoded in all."""

    seconds: float = 2.0
    layers: int = 3
    decoded_bytes: int = 32 * 1024 * 1024


#: Content up to this may be found plain at once.
_QUICK = 4096
#: Content up to this is taken apart into fields where a key begins in it.
_LARGEST_DIVIDED = 64 * 1024


class Engine(Protocol):
    """What :class:`~bot_bottle.pipelock.gate.GatedEngine` offers."""

    def combined(self) -> PatternSet | None:
        """Give one set for both our first pass and the engine's gate, where there is one."""

    def find(self, data: bytes, *, sure: bool, passed: bool = False) -> tuple[EngineHit, ...]:
        """Judge ``data``; with ``passed`` it is known to have passed the gate."""


class Scanner:
    """Judges content by one profile.

    ``strict`` (git gate) takes few false alarms and lets placeholders pass; ``egress`` takes every key by its
    form. ``placeholders`` are the values a bottle was given in a credential's place; they are no finding.
    Instances are thread-safe.
    """

    __slots__ = ("_busy", "_clock", "_engine", "_limits", "_placeholders", "_profile", "_rules", "own")

    def __init__(
        self,
        *,
        profile: Profile,
        engine: Engine,
        own: OwnSecrets,
        clock: Callable[[], float],
        busy: Callable[[], float] | None = None,
        placeholders: Iterable[bytes] = (),
        limits: Limits | None = None,
    ) -> None:
        self._profile: Profile = profile
        self._engine = engine
        self._rules = rule_set(profile)
        self._clock = clock
        self._busy = busy
        self._limits = limits or Limits()
        self._placeholders = tuple(value for value in placeholders if value)
        self.own = own

    def scan(self, data: bytes, context: Context) -> tuple[Finding, ...]:
        """Judge ``data``; empty means nothing was found. Never raises.

        A finding of kind ``opaque`` leaves the verdict to the route's ``on_opaque``; every other one is a
        reason to refuse.
        """
        return tuple(self.found(data, context).values())

    def found(self, data: bytes, context: Context) -> Mapping[tuple[str, bytes], Finding]:
        """Give what :meth:`scan` does by its rule and value, which must not leave memory.

        The value is empty where there is none to show: for guarded ones, and for what could not be judged.
        """
        scan: _Scan | None = None
        failure: Finding
        try:
            look = self._quick_look(data, context)
            if look is not None and look.is_empty and self._is_plain(data, context, look):
                return {}
            scan = _Scan(self, context)
            return scan.run(data, look)
        except OverBudgetError as error:
            failure = _error("over-budget", context, str(error))
        except Exception as error:  # noqa: BLE001 - fail closed: a broken scanner refuses
            failure = _error("scanner-error", context, type(error).__name__)
        return {**(scan.findings() if scan else {}), (failure.rule, b""): failure}

    def _quick_look(self, data: bytes, context: Context) -> Look | None:
        """Take the first look at small content, which mostly is the last one too."""
        if len(data) > _QUICK or self._profile != "egress" or context.encoding or context.path:
            return None
        combined = self._engine.combined()
        return self._rules.look(data, combined) if combined is not None else None

    def _is_plain(self, data: bytes, context: Context, look: Look) -> bool:
        """Tell content of an empty ``look`` that has nothing else a closer one could begin with."""
        plain = skeleton(data)
        if self.own.search(data, plain) is not None:
            return False
        spans = digit_runs(data) if look.runs else ()
        return (
            not self._rules.may_hold_wallet(data, spans)
            and hides_nothing(data, plain, spans)
            and holds_none(data)
            and not (claims_text(context.content_type) and looks_opaque(data, context.content_type))
        )

    def deadline(self) -> Deadline:
        """Give the time a scan that begins now may take."""
        return Deadline(self._clock, self._limits.seconds, self._busy)


class _Scan:
    """The state of one scan."""

    __slots__ = ("_context", "_deadline", "_found", "_left", "_owner")

    def __init__(self, owner: Scanner, context: Context) -> None:
        self._owner = owner
        self._context = context
        self._deadline = owner.deadline()
        self._left = owner._limits.decoded_bytes
        self._found: dict[tuple[str, bytes], Finding] = {}

    def findings(self) -> Mapping[tuple[str, bytes], Finding]:
        return self._found

    def run(self, data: bytes, look: Look | None = None) -> Mapping[tuple[str, bytes], Finding]:
        """Judge ``data``, at which the first ``look`` may have been taken."""
        context = self._context
        opaque = ""
        content = data
        if context.encoding:
            try:
                content = self._unpacked(data)
            except OpaqueError as error:
                opaque = str(error)
        if not opaque and claims_text(context.content_type) and looks_opaque(content, context.content_type):
            opaque = "the content says it is text, but it is not"
        if context.path:
            for rule, value, offset in file_secrets(context.path, content):
                self._note("credential", rule, value, offset, (), content)
        try:
            self._examine(content, look)
        except OpaqueError as error:
            opaque = opaque or str(error)
        if opaque:
            where = Where(place=context.place, field=context.field)
            self._found["opaque", b""] = Finding(
                kind="opaque", rule="opaque-content", where=where, message=opaque
            )
        return self.findings()

    def _unpacked(self, data: bytes) -> bytes:
        opened = unpacker(self._context.encoding)
        if opened is None:
            return data
        whole = opened.feed(data) + opened.finish()
        self._spend(whole)
        return whole

    def _spend(self, content: bytes) -> None:
        self._left -= len(content)
        if self._left < 0:
            raise OverBudgetError("the content holds more encoded content than is looked through")
        self._deadline.check()

    def _examine(self, data: bytes, look: Look | None) -> None:
        """Look at the content and, breadth first, at all that is encoded in it."""
        level: list[tuple[tuple[str, ...], bytes]] = [((), data)]
        seen: set[bytes] = set()
        limit = self._owner._limits.layers
        while level:
            below: list[tuple[tuple[str, ...], bytes]] = []
            for layers, content in level:
                self._deadline.check()
                taken = None if layers else look
                for layer, inner in self._look(layers, content, taken, deeper=len(layers) < limit):
                    if inner and inner != content and inner not in seen:
                        seen.add(inner)
                        self._spend(inner)
                        below.append(((*layers, layer), inner))
            level = below

    def _look(
        self, layers: tuple[str, ...], data: bytes, look: Look | None, *, deeper: bool
    ) -> Iterator[tuple[str, bytes]]:
        owner = self._owner
        rules = owner._rules
        if look is None:
            look = rules.look(data, owner._engine.combined() if owner._profile == "egress" else None)
        plain = skeleton(data)
        own = owner.own.search(data, plain)
        if own is not None:
            self._note("own_secret", f"own-secret:{own.name}", b"", -1, (*layers, *own.layers), data)
        spans = digit_runs(data) if look.runs else []
        if self._context.rules:
            if look.hits or spans:
                for match in (
                    *rules.settle(data, look.hits, self._context, layers),
                    *rules.settle_runs(data, spans, self._context, layers),
                ):
                    self._note(match.rule.kind, match.rule.id, match.value, match.offset, layers, data)
            if look.engine is not False:
                self._ask_engine(data, layers, passed=look.engine is True)
        if not deeper:
            return
        yield from decoded(data, look.shapes, spans, plain)
        if self._context.rules and owner._profile == "egress":
            yield from undisguised(data, look.shapes, codes=look.codes)
        if look.key_start and self._context.rules and len(data) <= _LARGEST_DIVIDED:
            yield "divided", divided_keys(data, self._context)

    def _ask_engine(self, data: bytes, layers: tuple[str, ...], *, passed: bool) -> None:
        strict = self._owner._profile == "strict"
        if strict and layers and layers[-1] in {"percent", "escapes", "unicode"} and len(layers) > 1:
            return
        for hit in self._owner._engine.find(data, sure=not strict, passed=passed):
            if hit.rule.startswith("generic-") and is_placeholder(hit.value):
                continue  # the engine's widest rules forgive less than documentation needs
            self._note("credential", hit.rule, hit.value, data.find(hit.value), layers, data)

    def _note(
        self, kind: Kind, rule: str, value: bytes, offset: int, layers: tuple[str, ...], data: bytes
    ) -> None:
        if value and any(value in held or held in value for held in self._owner._placeholders):
            return
        key = (rule, value)
        known = whole_id(data, value) if value and kind != "own_secret" else ""
        seen = self._found.get(key)
        if seen is not None:  # before, under fewer layers; or another one that only begins as this one does
            if seen.value_id == known or layers[-1:] == ("divided",):
                return
            key = (rule, value + b"\0" + known.encode())
        context = self._context
        self._found[key] = Finding(
            kind=kind,
            rule=rule,
            where=Where(
                place=context.place, field=context.field, offset=-1 if layers else offset, layers=layers
            ),
            excerpt=mask(value) if value else "",
            value_id=known,
        )


def _error(rule: str, context: Context, message: str) -> Finding:
    where = Where(place=context.place, field=context.field)
    return Finding(kind="error", rule=rule, where=where, message=message)


def refusals(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Give the findings that refuse by themselves, without asking the route's ``on_opaque``."""
    return tuple(found for found in findings if found.kind != "opaque")
