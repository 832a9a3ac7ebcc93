"""Bring the engine up: late, once, off the start-up path, and closed until it is there."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.pipelock.engine import EngineHit
    from bot_bottle.pipelock.gate import GatedEngine
    from bot_bottle.pipelock.patterns import PatternSet


class LateEngine:
    """An engine that loads in a thread. Asked before that, it waits; where loading failed, it raises."""

    __slots__ = ("_engine", "_error", "_folder", "_ready", "_wait")

    def __init__(self, folder: Path | None, *, wait: float = 10.0) -> None:
        """Start loading; ``folder`` keeps the compiled gates, ``wait`` is in seconds."""
        self._folder = folder
        self._wait = wait
        self._ready = threading.Event()
        self._engine: GatedEngine | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._load, name="pipelock-engine", daemon=True).start()

    def _load(self) -> None:
        try:
            from bot_bottle.pipelock.engine import Betterleaks, require_betterleaks  # noqa: PLC0415
            from bot_bottle.pipelock.gate import GatedEngine  # noqa: PLC0415

            require_betterleaks()
            engine = GatedEngine(Betterleaks, self._folder)
            if not engine.take_kept_gates():
                engine.engine()
            self._engine = engine
        except BaseException as error:  # noqa: BLE001 - told to everyone who asks
            self._error = error
        finally:
            self._ready.set()

    @property
    def ready(self) -> bool:
        """Whether the engine answers at once, with a verdict or an error."""
        return self._ready.is_set()

    def require(self) -> GatedEngine:
        """Give the engine, waiting for it; raises ``RuntimeError`` where there is none."""
        if not self._ready.wait(self._wait):
            raise RuntimeError("the rule engine is still loading")
        if self._engine is None:
            raise RuntimeError("the rule engine could not be loaded") from self._error
        return self._engine

    def combined(self) -> PatternSet | None:
        """Give the engine's combined gate, ``None`` until it is there."""
        return self._engine.combined() if self._engine is not None else None

    def find(self, data: bytes, *, sure: bool, passed: bool = False) -> tuple[EngineHit, ...]:
        """Judge ``data``; raises ``RuntimeError`` where there is no engine."""
        return (self._engine or self.require()).find(data, sure=sure, passed=passed)

    def settle(self, seconds: float) -> bool:
        """Have the gates made and wait for them (benchmarks, tests); tells whether they are there."""
        self._ready.wait(seconds)
        if self._engine is not None and not self._engine.gated:
            self._engine.begin_gates().join(seconds)
        return self._engine is not None and self._engine.gated


#: The clocks of every scan: the wall's, and the one of this thread's own work.
clock = time.monotonic
busy = time.thread_time
