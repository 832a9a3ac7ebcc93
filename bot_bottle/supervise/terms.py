"""The grants that hold in one sidecar: which routes they are now, when the next ends, what uses one up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.supervise.grant import Grant


class Terms:
    """Grants in the order they were given. Times are seconds since the epoch, given by the caller."""

    def __init__(self, grants: Iterable[Grant] = ()) -> None:
        self._grants = {grant.request: grant for grant in grants}

    def add(self, grant: Grant) -> None:
        """Let a grant hold."""
        self._grants[grant.request] = grant

    def holds(self, request: str, now: float) -> bool:
        """Tell whether what ``request`` was granted holds at ``now``."""
        grant = self._grants.get(request)
        return grant is not None and grant.holds(now)

    def routes(self, now: float) -> tuple[EgressRoute, ...]:
        """Give the routes that hold at ``now``; a grant that has ended is forgotten."""
        self._grants = {one: grant for one, grant in self._grants.items() if grant.holds(now)}
        return tuple(grant.route for grant in self._grants.values() if not grant.values)

    def passing(self, host: str, value_id: str, now: float) -> Grant | None:
        """Give the grant by which a value that was found may go to ``host`` at ``now``."""
        for grant in self._grants.values():
            if value_id in grant.values and grant.route.host == host and grant.holds(now):
                return grant
        return None

    def next_end(self) -> int | None:
        """Give when the next grant ends by its time; None where none does."""
        return min((grant.until for grant in self._grants.values() if grant.until is not None), default=None)

    def counted(self) -> dict[str, str]:
        """Give the origin of each route whose uses are counted, with its request's id."""
        return {g.route.origin: one for one, g in self._grants.items() if g.uses is not None and not g.values}

    def use(self, request: str) -> int | None:
        """Take one use; gives how many are left, None where there was none to take."""
        grant = self._grants.get(request)
        if grant is None or not grant.uses:
            return None
        self._grants[request] = replace(grant, uses=grant.uses - 1)
        return grant.uses - 1
