"""What a human's yes to ``request_git`` opens: branches and protected paths of one remote, for a while. Pure.

It never opens a forced push, a deletion, a tag or the upstream's default branch: those need the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bot_bottle.legible import exact

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADS = "refs/heads/"
#: So many patterns are named in warnings, in so many characters.
_NAMED, _LENGTH = 3, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class PushGrant:
    """Patterns for branches (below ``refs/heads/``) and paths, added to those of the remote of that name.

    With branches, the paths are open in pushes to these alone. ``until`` is seconds since the epoch; None
    lasts as long as the bottle. ``uses`` counts pushes that need it; None is any number.
    """

    request: str
    remote: str
    branches: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    until: int | None = None
    uses: int | None = None

    def holds(self, now: float) -> bool:
        """Tell whether it still holds at ``now``, seconds since the epoch."""
        return (self.until is None or now < self.until) and self.uses != 0

    @property
    def terms(self) -> str:
        """Say in one line what it opens and for how long."""
        parts = [f"branches {' '.join(map(exact, self.branches))}"] * bool(self.branches)
        parts += [f"protected paths {' '.join(map(exact, self.paths))}"] * bool(self.paths)
        return f"pushes to {self.remote}: {', '.join(parts)}, {self._how_long}"

    @property
    def head(self) -> str:
        """Say what kind of thing it opens and for how long, in a line that no list makes long."""
        return f"pushes to {self.remote}, {self._how_long}, of"

    @property
    def items(self) -> tuple[str, ...]:
        """Say each thing it opens, the widest first."""
        branches, paths = widest_first(self.branches), widest_first(self.paths)
        return (
            *(f"branch {exact(one)}" for one in branches),
            *(f"protected path {exact(one)}" for one in paths),
        )

    @property
    def _how_long(self) -> str:
        end = "for as long as this bottle lives"
        if self.uses is not None:
            end = "for one push" if self.uses == 1 else f"for {self.uses} pushes"
        elif self.until is not None:
            end = f"until {datetime.fromtimestamp(self.until, UTC):%Y-%m-%d %H:%M} UTC"
        return end

    def to_wire(self) -> dict[str, object]:
        """Give the JSON form."""
        push = {"remote": self.remote, "branches": list(self.branches), "paths": list(self.paths)}
        return {"request": self.request, "push": push, "until": self.until, "uses": self.uses}

    @classmethod
    def from_wire(cls, obj: Mapping[str, object]) -> PushGrant:
        """Read what :meth:`to_wire` wrote; raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        request, push, until, uses = obj["request"], obj["push"], obj["until"], obj.get("uses")
        if not isinstance(request, str) or not isinstance(push, dict):
            raise TypeError("no grant")
        remote, branches, paths = push["remote"], push["branches"], push["paths"]
        if not isinstance(remote, str) or not all(one is None or type(one) is int for one in (until, uses)):
            raise TypeError("no grant")
        for patterns in (branches, paths):
            if not isinstance(patterns, list) or not all(isinstance(one, str) and one for one in patterns):
                raise TypeError("no grant")
        if not branches and not paths:
            raise ValueError("a grant opens a branch or a path")
        return cls(
            request=request,
            remote=remote,
            branches=tuple(branches),
            paths=tuple(paths),
            until=until if isinstance(until, int) else None,
            uses=uses if isinstance(uses, int) else None,
        )


def branch_of(ref: str) -> str:
    """Give a ref's pattern below ``refs/heads/``; raises ``ValueError`` for what is no branch."""
    if ref.startswith("refs/") and not ref.startswith(HEADS):
        raise ValueError(
            f"{ref}: only branches can be opened for a while; tags need AllowTags in the manifest"
        )
    return ref.removeprefix(HEADS)


def widest_first(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Put the patterns that say least first, then the others as they were given."""
    return tuple(sorted(patterns, key=lambda one: one.index("*") if "*" in one else 1 << 16))


def _wide(patterns: tuple[str, ...], what: str) -> list[str]:
    """Name the widest patterns in short lines: whoever asked must not push other warnings out of sight."""
    wide = [exact(one) for one in widest_first(patterns) if "*" in one]
    found = [f"{_short(one)} opens every {what} that it matches" for one in wide[:_NAMED]]
    if more := len(wide) - _NAMED:
        found += [f"{more} more patterns open every {what} that they match"] * (more > 0)
    return found


def _short(pattern: str) -> str:
    return pattern if len(pattern) <= _LENGTH else f"{pattern[: _LENGTH - 1]}…"


def push_warnings(grant: PushGrant) -> tuple[str, ...]:
    """Say what a human should weigh before pushes are let through."""
    found = [*_wide(grant.branches, "branch"), *_wide(grant.paths, "protected path")]
    if grant.paths:
        if not grant.branches:
            found.append("the paths are open on every branch that the manifest lets it push")
        found.append("what lies at protected paths is run or followed by the upstream, with its own secrets")
    if grant.branches:
        found.append("forced pushes, deletions and the upstream's default branch stay closed")
    return tuple(found)
