"""Which findings count on a route, and what a bottle's content rules are by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bot_bottle.pipelock.finding import Finding, Kind

#: Values shorter than this cannot be told from ordinary text and are not searched.
SHORTEST_GUARDED: Final = 6

#: The kinds of findings that a route may choose from; every other kind always counts.
DETECTORS: Final[tuple[Kind, ...]] = ("credential", "financial", "opaque_token")

#: Tokens that a host gives out for a session and takes back in these headers; presenting them is no leak.
_SESSION_RULES = frozenset({"jwt"})
_SESSION_HEADERS = frozenset({"cookie", "x-csrf-token", "x-xsrf-token", "x-id-token", "x-session-token"})


@dataclass(frozen=True, slots=True)
class Selection:
    """The findings that refuse: guarded values and failures always, the rest by ``detectors``.

    With ``rules`` off (``tls_passthrough``) none of the detectors is asked.
    """

    detectors: frozenset[Kind] = frozenset(DETECTORS)
    rules: bool = True

    def counts(self, found: Finding) -> bool:
        """Tell whether ``found`` is a reason to refuse."""
        if found.kind in {"own_secret", "error", "opaque"}:
            return True
        if found.kind not in self.detectors:
            return False
        return found.rule not in _SESSION_RULES or found.where.field.lower() not in _SESSION_HEADERS


EVERYTHING: Final = Selection()
