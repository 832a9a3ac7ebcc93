"""What summaries show of a bottle: names, never values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def visible_agent_env_names(env_names: Iterable[str], hidden_env_names: frozenset[str]) -> tuple[str, ...]:
    """Give the variable names a summary shows, sorted; placeholders of a provider are left out."""
    return tuple(sorted({name for name in env_names if name not in hidden_env_names}))
