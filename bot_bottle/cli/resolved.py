"""The resolved manifest of one agent as plain data, for programs: names and places, never a value."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from bot_bottle.env import entry_kind
from bot_bottle.print_util import visible_agent_env_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.agent_provider.plan import AgentProvisionPlan
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.manifest.model import ManifestAgent, ManifestBottle, ManifestSource


def resolved_manifest(
    agent: ManifestAgent,
    bottle: ManifestBottle,
    plan: AgentProvisionPlan | None,
    routes: Sequence[EgressRoute],
    notes: Sequence[str],
) -> dict[str, object]:
    """Describe ``agent`` in its effective ``bottle``; ``plan`` is None where it cannot be launched."""
    provider = bottle.agent_provider
    guest_env = plan.guest_env if plan else {}
    hidden = plan.hidden_env_names if plan else frozenset()
    return {
        "agent": {
            "name": agent.name,
            "path": str(agent.path),
            "origin": agent.origin,
            "bottle": agent.bottle,
            "skills": list(agent.skills),
            "git": {"user": asdict(agent.git_user)},
            "prompt": agent.prompt,
            "sources": _places(agent.sources),
        },
        "bottle": {
            "name": bottle.name,
            "path": str(bottle.path),
            "extends": list(bottle.extends),
            "env": {name: entry_kind(entry) for name, entry in bottle.env.items()},
            "agent_provider": {**asdict(provider), "argv": list(provider.argv)},
            "egress": {"routes": [asdict(route) for route in bottle.egress.routes]},
            "git": asdict(bottle.git),
            "supervise": bottle.supervise,
            "workspace": bottle.workspace,
            "limits": asdict(bottle.limits),
            "sources": _places(bottle.sources),
        },
        "provider": {"template": provider.template, "argv": list(plan.argv) if plan else []},
        "env": list(visible_agent_env_names((*bottle.env, *guest_env), hidden)),
        "egress": [route.to_wire() for route in routes],
        "limits": asdict(bottle.limits),
        "notes": list(notes),
    }


def _places(sources: Mapping[str, ManifestSource]) -> dict[str, object]:
    return {
        key: {"file": str(source.path), "line": source.line, "column": source.column}
        for key, source in sources.items()
    }
