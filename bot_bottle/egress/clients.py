"""How many connections a bottle may have, and which of them make room for new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bot_bottle.decision import Deny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot_bottle.egress.reload import Successor


MAX_CLIENTS = 1024
#: How many streams of HTTP/2 a bottle may have under way; each may hold a window of either side's data.
MAX_STREAMS_ALL = 1024

#: How many connections are closed at a time where there are too many: looking at all of them has a price.
_EVICTED_AT_ONCE = 32


class Connection(Protocol):
    """A connection from inside the bottle, whatever it speaks."""

    @property
    def served(self) -> bool:
        """Whether it has ever brought a request."""

    @property
    def busy(self) -> bool:
        """Whether an answer is under way."""

    @property
    def idle_since(self) -> float:
        """When it last brought something (loop time in seconds), or began if it never brought a request."""

    def sweep(self, now: float) -> None:
        """End what has not moved for too long."""

    def cut_off(self, successor: Successor, changed: Callable[[str], bool]) -> bool:
        """End what other routes than it was opened under do not permit; says whether that was so."""

    def abort(self) -> None:
        """Drop it at once."""


class Clients:
    """The client connections of one bottle."""

    def __init__(self, most: int = MAX_CLIENTS) -> None:
        self._most = most
        #: In the order they came.
        self._all: dict[Connection, None] = {}
        #: How many streams of HTTP/2 are under way on all of them.
        self.streams = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(tuple(self._all))

    def admit(self, client: Connection) -> bool:
        """Count a connection in, or say that there are too many with work under way.

        Where there are too many, those that wait for nothing of ours are closed first: connections that
        have never brought a request, the oldest first, then idle ones, the longest idle first. So neither
        idle connections nor requests that drip in can keep a working client out.
        """
        if len(self._all) >= self._most:
            self._make_room()
        if len(self._all) >= self._most:
            return False
        self._all[client] = None
        return True

    def replace(self, old: Connection, new: Connection) -> None:
        """Let ``new`` stand where ``old`` was counted: the same socket, one layer further in."""
        self._all.pop(old, None)
        self._all[new] = None

    def leave(self, client: Connection) -> None:
        """Count a connection out; doing it twice is no error."""
        self._all.pop(client, None)

    def sweep(self, now: float) -> None:
        """End the connections where nothing has moved for too long."""
        for client in tuple(self._all):
            client.sweep(now)

    def crowded(self) -> Deny:
        """Describe a connection turned away because there are too many."""
        return Deny(
            reason="too_many_connections",
            rule="egress.limits",
            message=f"over {self._most} connections with requests under way are open from this bottle",
            next_step="Close some connections and try again",
        )

    def _make_room(self) -> None:
        idle = [client for client in self._all if not client.busy]
        idle.sort(key=lambda client: (client.served, client.idle_since))
        for client in idle[: min(_EVICTED_AT_ONCE, 1 + len(idle) // 8)]:
            self._all.pop(client, None)
            client.abort()
