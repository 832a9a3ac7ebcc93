"""How many connections a bottle may have, and which of them make room for new ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.decision import Deny

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.egress.downstream import ClientConnection

MAX_CLIENTS = 1024

#: How many connections are closed at a time where there are too many: looking at all of them has a price.
_EVICTED_AT_ONCE = 32


class Clients:
    """The client connections of one bottle."""

    def __init__(self, most: int = MAX_CLIENTS) -> None:
        self._most = most
        #: In the order they came.
        self._all: dict[ClientConnection, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[ClientConnection]:
        return iter(tuple(self._all))

    def admit(self, client: ClientConnection) -> bool:
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

    def replace(self, old: ClientConnection, new: ClientConnection) -> None:
        """Let ``new`` stand where ``old`` was counted: the same socket, one layer further in."""
        self._all.pop(old, None)
        self._all[new] = None

    def leave(self, client: ClientConnection) -> None:
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
