"""What an allowed request leaves behind for the next one that differs in its target alone.

A client says the same header lines again and again. Everything that follows from them, from the method and
from the way the connection came is found out once: the parsed headers, the route, the head that goes
upstream, the audit record but for its path. The policies that look at the target run on every request, and
each request is put on record before it is sent. Whatever is not plainly the same takes the long way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from bot_bottle.audit import RecordForm
    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.policy import Policy
    from bot_bottle.egress.pool import Destination
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.egress.table import RouteTable
    from bot_bottle.egress.target import Arrival

#: The number of how it arrived, the method, the header lines as they came.
PrecedentKey: TypeAlias = tuple[int, bytes, bytes]

_MAX_HELD = 512
_MAX_BLOCK_BYTES = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Precedent:
    """One allowed request without its target.

    ``policies`` are those that must be asked of each target. ``tail`` is the head that goes upstream from
    behind the target on, the injected credential with it. It speaks for requests under ``table`` alone.
    """

    table: RouteTable
    facts: RequestHeaders
    request: EgressRequest
    route: EgressRoute
    policies: tuple[Policy, ...]
    destination: Destination
    tail: bytes = field(repr=False)
    form: RecordForm


class Precedents:
    """The precedents of one bottle under one route table: a bounded number, by all that they depend on."""

    def __init__(self, first: int = 0) -> None:
        self._held: dict[PrecedentKey, Precedent] = {}
        self._arrivals: dict[Arrival, int] = {}
        self._next = first

    def successor(self) -> Precedents:
        """Give an empty set for another table.

        Its numbers go on where these end: a request that was read before the change and is judged after it
        still carries one of these, which must not stand for another arrival then.
        """
        return Precedents(self._next)

    def arrival_number(self, arrival: Arrival) -> int:
        """Give the number that stands for ``arrival`` and for no other one, ever."""
        number = self._arrivals.get(arrival)
        if number is None:
            if len(self._arrivals) >= _MAX_HELD:
                self._arrivals.clear()
            number = self._arrivals[arrival] = self._next
            self._next += 1
        return number

    def find(self, key: PrecedentKey) -> Precedent | None:
        """Give the precedent of a request that came so, with this method and these header lines."""
        return self._held.get(key)

    def keep(self, key: PrecedentKey, precedent: Precedent) -> None:
        """Hold a precedent, unless its headers are long."""
        if len(key[2]) <= _MAX_BLOCK_BYTES:
            if len(self._held) >= _MAX_HELD:
                self._held.clear()
            self._held[key] = precedent
