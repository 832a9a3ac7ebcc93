"""What makes a slow engine fast: a pass that tells at gigabytes a second where it cannot find anything.

The engine's own expressions are compiled into one Hyperscan set; the engine is asked only about the stretch
around a match. Compiling takes seconds, so the result is kept in a file, for this engine, library and
processor.
"""

from __future__ import annotations

import hashlib
import platform
import threading
from typing import TYPE_CHECKING

from bot_bottle.files import write_atomic
from bot_bottle.pipelock.engine import is_sure
from bot_bottle.pipelock.patterns import PatternSet
from bot_bottle.pipelock.ruleset import rule_set

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.pipelock.engine import EngineHit, RuleEngine

#: The engine is asked in stretches of this size, which overlap so that a match is whole in one of them.
_STRETCH = 8192
_OVERLAP = 2048
_WHOLE = 16 * 1024


class GatedEngine:
    """An engine behind its gates, one for all its rules and one for those it is sure of.

    Until a gate is there, the engine is asked about everything.
    """

    __slots__ = ("_combined", "_engine", "_gates")

    def __init__(self, engine: RuleEngine) -> None:
        self._engine = engine
        self._gates: dict[bool, PatternSet] = {}
        self._combined: PatternSet | None = None

    def make_gates(self, folder: Path | None) -> None:
        """Compile the gates, or load them from ``folder``; takes a second or two where nothing is kept."""
        for sure in (True, False):
            patterns = self._engine.patterns(sure=sure)
            gate = make_gate(patterns, [True] * len(patterns), folder)
            if gate is None:
                continue
            self._gates[sure] = gate
            if sure:
                leads, once = rule_set("egress").first_pass()
                self._combined = make_gate((*leads, *patterns), [*once, *[True] * len(patterns)], folder)

    @property
    def gated(self) -> bool:
        """Whether all gates are there."""
        return len(self._gates) == 2 and self._combined is not None

    def combined(self) -> PatternSet | None:
        """Give the egress profile's own expressions and the sure rules' as one set, once it is there.

        Its first ones are numbered as in :meth:`~bot_bottle.pipelock.ruleset.RuleSet.first_pass`.
        """
        return self._combined

    def find(self, data: bytes, *, sure: bool, passed: bool = False) -> tuple[EngineHit, ...]:
        """Judge ``data``: with ``sure`` in stretches by its sure rules, else as a whole by all of them.

        With ``passed`` the whole is known to have passed the gate.
        """
        gate = self._gates.get(sure)
        if gate is not None and not passed and not gate.hits(data):
            return ()
        if gate is None or not sure or len(data) <= _WHOLE:
            return tuple(hit for hit in self._engine.find(data) if _counts(hit, sure=sure))
        found: dict[tuple[str, bytes], EngineHit] = {}
        for start in range(0, len(data), _STRETCH - _OVERLAP):
            stretch = data[start : start + _STRETCH]
            if gate.hits(stretch):
                for hit in self._engine.find(stretch):
                    if _counts(hit, sure=sure):
                        found.setdefault((hit.rule, hit.value), hit)
        return tuple(found.values())


def _counts(hit: EngineHit, *, sure: bool) -> bool:
    return not sure or is_sure(hit.rule, hit.confidence)


def make_gate(patterns: tuple[bytes, ...], once: list[bool], folder: Path | None) -> PatternSet | None:
    """Compile a gate of ``patterns``, or load it from ``folder`` where it was kept (``None``: do not keep).

    Gives ``None`` where there are none, or where the library cannot compile them.
    """
    if not patterns:
        return None
    path = folder / f"pipelock-{_key(patterns, once)}.gate" if folder else None
    kept = _load(path) if path else None
    if kept is not None:
        return kept
    gate = _compile(patterns, once)
    if gate is not None and path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(path, gate.image(), mode=0o600)
    return gate


def _compile(patterns: tuple[bytes, ...], once: list[bool]) -> PatternSet | None:
    import hyperscan  # noqa: PLC0415

    try:
        return PatternSet.expressions(patterns, once=once)
    except hyperscan.HyperscanError:
        return None


def _load(path: Path) -> PatternSet | None:
    import hyperscan  # noqa: PLC0415

    try:
        return PatternSet.restored(path.read_bytes())
    except (OSError, hyperscan.HyperscanError):
        return None


def _key(patterns: tuple[bytes, ...], once: list[bool]) -> str:
    from importlib.metadata import version  # noqa: PLC0415

    facts = [version("hyperscan"), platform.machine(), platform.processor()]
    return hashlib.sha256("\0".join(facts).encode() + b"\0".join(patterns) + bytes(once)).hexdigest()[:24]


def open_gate_later(engine: GatedEngine, folder: Path | None) -> threading.Thread:
    """Make the gates in a thread of its own; until then, or where that fails, the engine works without it."""

    def work() -> None:
        engine.make_gates(folder)

    thread = threading.Thread(target=work, name="pipelock-gate", daemon=True)
    thread.start()
    return thread
