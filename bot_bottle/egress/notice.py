"""What was done to a request that went on all the same: values taken out, credentials left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from bot_bottle.egress.content_denial import REASONS
from bot_bottle.egress.denial import HEADER_DECISION, HEADER_REASON, HEADER_RULE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bot_bottle.audit import AuditValue
    from bot_bottle.egress.grammar import FieldLine
    from bot_bottle.pipelock.finding import Finding

#: ``redacted``: a value was overwritten. ``stripped``: it stood in a header that no bottle may present, and
#: which was left out as on every request. ``unread``: content passed unread by the word of its route.
What: TypeAlias = Literal["redacted", "stripped", "unread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing to say of a request: for the record, and for the agent in the answer's headers."""

    what: What
    reason: str
    rule: str
    place: str
    count: int = 1

    def fields(self) -> dict[str, AuditValue]:
        """Give what the record holds of it besides the request's own names."""
        return {"reason": self.reason, "rule": self.rule, "place": self.place, "count": self.count}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A request's head as it goes on: its query and its header lines, and what is to be said of that."""

    query: str
    kept: tuple[FieldLine, ...]
    notices: tuple[Notice, ...]


def notices(what: What, found: Iterable[tuple[Finding, int]]) -> tuple[Notice, ...]:
    """Say of each rule and place how often a value of it was met."""
    counts: dict[tuple[str, str, str], int] = {}
    for finding, count in found:
        key = (REASONS[finding.kind], f"pipelock.{finding.rule}", str(finding.where))
        counts[key] = counts.get(key, 0) + count
    return tuple(
        Notice(what=what, reason=reason, rule=rule, place=place, count=count)
        for (reason, rule, place), count in counts.items()
    )


def header_lines(said: Iterable[Notice]) -> list[bytes]:
    """Write what an answer's headers tell the agent: the first of it, as a refusal names one thing."""
    told = next((one for one in said if one.what != "unread"), None)
    if told is None:
        return []
    fields = ((HEADER_DECISION, told.what), (HEADER_REASON, told.reason), (HEADER_RULE, told.rule))
    return [f"{name}: {value}".encode("latin-1") for name, value in fields]
