"""Numbers for the commands that run in a bottle at a time, small so that a guest's folder of them is."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Slots:
    """Hands out the lowest number that is free. Safe to use from several threads."""

    def __init__(self) -> None:
        self._taken: set[int] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def take(self) -> Iterator[str]:
        """Give a free slot, in which a command's first process names itself, for as long as it is needed."""
        with self._lock:
            number = next(n for n in range(len(self._taken) + 1) if n not in self._taken)
            self._taken.add(number)
        try:
            yield str(number)
        finally:
            with self._lock:
                self._taken.discard(number)
