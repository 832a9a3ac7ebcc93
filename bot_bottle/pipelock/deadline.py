"""The time one scan may take. The clock is the caller's, so that what decides stays a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class OverBudgetError(Exception):
    """A scan went past its time or size; the request it was for is refused."""


class Deadline:
    """An instant by which to be done, asked at every step."""

    __slots__ = ("_clock", "_end")

    def __init__(self, clock: Callable[[], float], seconds: float) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def check(self) -> None:
        """Raise :class:`OverBudgetError` once the time is up."""
        if self._clock() > self._end:
            raise OverBudgetError("the scan took longer than its budget")
