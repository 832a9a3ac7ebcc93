"""What waits in memory for peers that do not keep up, all connections of a bottle together, and its bound.

Each connection is bounded by itself (reading stops where its other side takes nothing); this bounds the sum.
"""

from __future__ import annotations

from typing import Protocol

from bot_bottle.decision import Deny

MOST_BYTES = 64 * 1024 * 1024
#: More than any one connection has waiting: until as many have come as fill the bound nobody needs to count.
_MOST_EACH_BYTES = 512 * 1024


class Holder(Protocol):
    """A connection, or a stream of one, that is not read from because its other side does not keep up."""

    @property
    def waiting(self) -> int:
        """How many bytes wait in memory, either way."""

    def give_way(self) -> None:
        """Refuse what is under way, or cut it where an answer has begun."""


class Stalled:
    """Those of one bottle that wait, in the order in which they began to."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most = self._slack = most
        self._all: dict[Holder, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def note(self, holder: Holder, *, waits: bool) -> None:
        """Hear whether ``holder`` waits; where too much does, those that have waited longest give way."""
        if not waits:
            self._all.pop(holder, None)
        elif holder not in self._all:
            self._all[holder] = None
            self._slack -= _MOST_EACH_BYTES
            if self._slack < 0:
                self._count()

    def _count(self) -> None:
        """Look at what really waits. Room is made for some more, so that not each of them is counted anew."""
        sizes = [(holder, holder.waiting) for holder in self._all]
        total = sum(size for _holder, size in sizes)
        if total > self._most:
            for holder, size in sizes:
                if total <= self._most - self._most // 8:
                    break
                total -= size
                self._all.pop(holder, None)
                holder.give_way()
        self._slack = self._most - total


def too_much_waits() -> Deny:
    """Describe why one that waited was ended."""
    return Deny(
        reason="too_much_waits",
        rule="egress.limits",
        message="too much waits in memory for sides that do not keep up; this transfer has waited longest",
        next_step="Transfer fewer bodies at a time, and read the answers that were asked for",
    )
