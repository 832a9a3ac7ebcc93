"""What every command says of an identity that is not there: one sentence, with the nearest names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle import bottle_state, paths
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterable

_NEAR = 3
_LISTED = 10
#: How alike a name has to be: most identities share letters by chance alone.
_ALIKE = 0.75


def no_identity(identity: str, known: Iterable[str] | None = None) -> str:
    """Say that there is no such identity, which are near and which there are.

    ``known`` are those that would do, the likeliest first; by default those with a state. One that is gone
    but for its log is said to be that.
    """
    known = tuple(known) if known is not None else tuple(one.identity for one in bottle_state.list_states())
    if (
        bottle_state.IDENTITY_PATTERN.fullmatch(identity)
        and paths.audit_path(identity).exists()
        and not paths.state_dir(identity).exists()
    ):
        return (
            f"the bottle {identity} is gone, its home and workspace are removed; "
            f"what was decided for it is kept: bot-bottle logs {identity}"
        )
    near = _near(identity, known)
    meant = f"; did you mean {' or '.join(near)}?" if near else ";"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    there = ", ".join(known[:_LISTED]) or "none"
    return f"there is no identity {legible(identity)!r}{meant} those that exist: {there}{more}"


def _near(identity: str, known: Iterable[str]) -> tuple[str, ...]:
    """Give those that begin so, as where the agent's name alone was written; else alike, or of its agent."""
    import difflib  # noqa: PLC0415 - few commands are told of an identity that is not there

    begun = [one for one in known if identity and one.startswith(identity)]
    alike = begun or difflib.get_close_matches(identity, known, n=_NEAR, cutoff=_ALIKE)
    agent = identity[:-5]
    return tuple((alike or [one for one in known if agent and one[:-5] == agent])[:_NEAR])
