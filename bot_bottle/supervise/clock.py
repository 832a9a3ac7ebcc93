"""A clock for what ends: it may be set forward, and never back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def _steady() -> float:
    """Give seconds that go on while the machine sleeps, where the system counts those (Linux)."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class ForwardClock:
    """Seconds since the epoch, at least as many more than before as have passed since.

    A wall clock that is set back would let a grant outlive what was agreed to; one that is set forward ends
    it early, which can be mended.
    """

    __slots__ = ("_latest", "_seen", "_steady", "_wall")

    def __init__(
        self, *, wall: Callable[[], float] = time.time, steady: Callable[[], float] = _steady
    ) -> None:
        self._wall, self._steady = wall, steady
        self._latest, self._seen = wall(), steady()

    def __call__(self) -> float:
        """Give the time."""
        now = self._steady()
        self._latest = max(self._wall(), self._latest + (now - self._seen))
        self._seen = now
        return self._latest
