"""``bot-bottle info NAME``: an agent, or an identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bot_bottle import bottle_state, paths
from bot_bottle.cli import complete, terminal
from bot_bottle.cli.output import print_json
from bot_bottle.errors import BotBottleError, UsageError

if TYPE_CHECKING:
    from bot_bottle.manifest.model import Manifest


@click.command("info")
@click.argument("name", shell_complete=complete.agents_and_identities)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, name: str, as_json: bool) -> None:
    """Show what the agent NAME may do and where that was declared, or what became of the identity NAME."""
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415

    cwd = terminal.current_folder()
    is_identity = bottle_state.IDENTITY_PATTERN.fullmatch(name) is not None
    is_state = is_identity and paths.state_dir(name).is_dir()
    manifest = Manifest.resolve(cwd)
    declared = name in manifest.agents or name in manifest.broken_agents
    if is_state and not declared:
        _identity(name, as_json=as_json)
        return
    if is_identity and not declared and paths.audit_path(name).exists():
        raise UsageError(
            f"the bottle {name} is gone, its home and workspace are removed; "
            f"what was decided for it is kept: bot-bottle audit {name}"
        )
    terminal.warn(manifest.warnings)
    _agent(manifest, name, as_json=as_json)


def _agent(manifest: Manifest, name: str, *, as_json: bool) -> None:
    from bot_bottle.agent_provider.registry import agent_provision_plan  # noqa: PLC0415
    from bot_bottle.egress.routes import egress_routes_for_bottle  # noqa: PLC0415
    from bot_bottle.preflight import declared_rows, layout  # noqa: PLC0415
    from bot_bottle.print_util import bottle_notes, declared_limits, sourced  # noqa: PLC0415

    agent, bottle = manifest.require_agent(name), manifest.bottle_for(name)
    plan = agent_provision_plan(bottle, agent, env={}, preview=True)
    routes = egress_routes_for_bottle(bottle, plan.egress_routes)
    notes = bottle_notes(bottle)
    if as_json:
        from bot_bottle.cli.resolved import resolved_manifest  # noqa: PLC0415

        print_json(
            {
                **resolved_manifest(agent, bottle, plan, routes, notes),
                "git_identity": manifest.git_identity_summary(name),
            }
        )
        return
    rows = [
        *declared_rows(manifest, name, bottle, plan, routes),
        ("limits", declared_limits(bottle)),
        ("workspace", (sourced(bottle.workspace, bottle.sources.get("workspace")),)),
        ("note", notes),
    ]
    print("\n".join(layout(rows)))


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
        "workspace": _workspace(identity, data.backend if data else ""),
        "audit": str(audit_path) if audit_path.exists() else None,
    }
    if as_json:
        print_json(facts)
        return
    for label, value in facts.items():
        if value is not None:
            print(f"{label:<10}: {bottle_state.printable(str(value))}")


def _workspace(identity: str, backend: str) -> str | None:
    """Say where the bottle's workspace lies; None where its record or its backend cannot tell."""
    from bot_bottle.backend.registry import get_bottle_backend  # noqa: PLC0415

    if not backend:
        return None
    try:
        return get_bottle_backend(backend).kept_at(identity)
    except (BotBottleError, OSError):  # a backend of another version
        return None
