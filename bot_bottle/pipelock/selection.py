"""Which findings count on a route, and what a bottle's content rules are by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.pipelock.finding import Finding, Kind

#: Values shorter than this cannot be told from ordinary text and are not searched.
SHORTEST_GUARDED: Final = 6

#: The kinds of findings that a route may choose from; every other kind always counts.
DETECTORS: Final[tuple[Kind, ...]] = ("credential", "financial", "opaque_token")

#: Tokens that a host gives out for a session and takes back in these headers; presenting them is no leak.
_SESSION_RULES = frozenset({"jwt"})
_SESSION_HEADERS = frozenset({"cookie", "x-csrf-token", "x-xsrf-token", "x-id-token", "x-session-token"})


class Approvals:
    """What a human let pass of the values found in one request; ``claim`` takes a use of a value's.

    It gives the ids of all values that were approved together with it, none where it was not.
    """

    __slots__ = ("_claim", "_claimed")

    def __init__(self, claim: Callable[[str], tuple[str, ...]]) -> None:
        self._claim = claim
        self._claimed: set[str] = set()

    def cover(self, found: Finding) -> bool:
        """Tell whether ``found`` may pass; what a request says twice is claimed once."""
        if not is_askable(found):
            return False
        if found.value_id not in self._claimed:
            self._claimed.update(self._claim(found.value_id))
        return found.value_id in self._claimed


def is_askable(found: Finding) -> bool:
    """Tell whether a human may let ``found`` pass: never a guarded value, or what could not be judged."""
    return found.kind in DETECTORS and bool(found.value_id)


@dataclass(frozen=True, slots=True)
class Selection:
    """The findings that refuse: guarded values and failures always, the rest by ``detectors``.

    With ``rules`` off (``tls_passthrough``) none of the detectors is asked. ``approvals`` are one request's.
    """

    detectors: frozenset[Kind] = frozenset(DETECTORS)
    rules: bool = True
    approvals: Approvals | None = None

    def counts(self, found: Finding) -> bool:
        """Tell whether ``found`` is a reason to refuse."""
        if found.kind in {"own_secret", "error", "opaque"}:
            return True
        if found.kind not in self.detectors:
            return False
        if self.approvals is not None and self.approvals.cover(found):
            return False
        return found.rule not in _SESSION_RULES or found.where.field.lower() not in _SESSION_HEADERS


EVERYTHING: Final = Selection()
