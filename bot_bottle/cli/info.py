"""``bot-bottle info NAME``: an agent, or an identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bot_bottle import bottle_state, paths
from bot_bottle.cli import terminal
from bot_bottle.cli.output import print_json
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from bot_bottle.manifest.model import Manifest


@click.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, name: str, as_json: bool) -> None:
    """Show what the agent NAME may do and where that was declared, or what became of the identity NAME."""
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415

    cwd = terminal.current_folder()
    is_state = bottle_state.IDENTITY_PATTERN.fullmatch(name) and paths.state_dir(name).is_dir()
    manifest = Manifest.resolve(cwd)
    declared = name in manifest.agents or name in manifest.broken_agents
    if is_state and not declared:
        _identity(name, as_json=as_json)
        return
    terminal.warn(manifest.warnings)
    _agent(manifest, name, as_json=as_json)


def _agent(manifest: Manifest, name: str, *, as_json: bool) -> None:
    from bot_bottle.agent_provider.registry import agent_provision_plan  # noqa: PLC0415
    from bot_bottle.egress.routes import egress_routes_for_bottle  # noqa: PLC0415
    from bot_bottle.preflight import agent_text, first_line, route_text  # noqa: PLC0415
    from bot_bottle.print_util import visible_agent_env_names  # noqa: PLC0415

    agent = manifest.require_agent(name)
    bottle = manifest.bottle_for(name)
    plan = agent_provision_plan(bottle, agent, env={})
    routes = egress_routes_for_bottle(bottle, plan.egress_routes)
    env = visible_agent_env_names((*bottle.env, *plan.guest_env), plan.hidden_env_names)
    limits = bottle.limits
    declared_limits = {
        "memory": limits.memory,
        "cpus": limits.cpus,
        "pids": limits.pids,
        "open_files": limits.open_files,
    }
    if as_json:
        print_json(
            {
                "agent": {
                    "name": agent.name,
                    "path": str(agent.path),
                    "origin": agent.origin,
                    "prompt": agent.prompt,
                },
                "bottle": {"name": bottle.name, "path": str(bottle.path)},
                "provider": {"template": bottle.agent_provider.template, "argv": list(plan.argv)},
                "env": list(env),
                "egress": [route.to_wire() for route in routes],
                "limits": declared_limits,
            }
        )
        return
    rows = [
        ("agent", agent_text(agent)),
        ("bottle", f"{bottle.name} ({bottle.path})"),
        ("provider", bottle.agent_provider.template),
        ("env", ", ".join(env) or "(none)"),
        ("prompt", first_line(agent.prompt)),
        *(("egress", f"{route_text(route)}  <- {route.origin}") for route in routes),
        *(("limit", f"{key} {value}") for key, value in declared_limits.items() if value is not None),
    ]
    for label, text in rows:
        print(f"{label:<9}: {text}")


def _identity(identity: str, *, as_json: bool) -> None:
    state = next((s for s in bottle_state.list_states() if s.identity == identity), None)
    if state is None:
        raise UsageError(f"there is no state of {identity}; `bot-bottle list` shows those that exist")
    data = state.metadata
    audit_path = paths.audit_path(identity)
    facts: dict[str, object] = {
        "identity": identity,
        "status": state.status,
        "agent": data.agent_name if data else None,
        "bottle": data.bottle_name if data else None,
        "backend": data.backend if data else None,
        "cwd": data.cwd if data else None,
        "copy_cwd": data.copy_cwd if data else None,
        "started_at": data.started_at if data else None,
        "exit_code": data.exit_code if data else None,
        "state": str(paths.state_dir(identity)),
        "audit": str(audit_path) if audit_path.exists() else None,
    }
    if as_json:
        print_json(facts)
        return
    for label, value in facts.items():
        if value is not None:
            print(f"{label:<10}: {bottle_state.printable(str(value))}")
