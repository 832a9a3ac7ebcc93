"""The time one scan may take. The clock is the caller's, so that what decides stays a function."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class OverBudgetError(Exception):
    """A scan went past its time or size; the request it was for is refused."""


class Deadline:
    """An instant by which to be done, asked at every step.

    Where ``busy`` is given, it is the clock that counts: the thread's own processor time, so that nothing is
    refused because the machine had other things to do. It takes a system call, so the other is asked first.
    """

    __slots__ = ("_busy", "_busy_end", "_clock", "_end")

    def __init__(
        self, clock: Callable[[], float], seconds: float, busy: Callable[[], float] | None = None
    ) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._busy = busy
        self._busy_end = busy() + seconds if busy is not None else 0.0

    def check(self) -> None:
        """Raise :class:`OverBudgetError` once the time is up."""
        if self._clock() > self._end and (self._busy is None or self._busy() > self._busy_end):
            raise OverBudgetError("the scan took longer than its budget")
