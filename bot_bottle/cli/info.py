"""``bot-bottle info NAME``: an agent, or an identity."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click

from bot_bottle import bottle_state, paths
from bot_bottle.attach.output import CURRENT
from bot_bottle.cli import complete, terminal
from bot_bottle.cli.output import print_json, print_table
from bot_bottle.errors import BotBottleError, LaunchError, UsageError
from bot_bottle.legible import legible
from bot_bottle.refused_credentials import refused_since_start, sentences
from bot_bottle.words import counted

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.bottle_state import BottleStateSummary
    from bot_bottle.manifest.model import Manifest
    from bot_bottle.usage import UsedByModel

_STATUS_SECONDS = 5.0


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
    if is_identity and not declared:
        agents = ", ".join(sorted({*manifest.agents, *manifest.broken_agents})) or "none"
        raise UsageError(f"{bottle_state.no_state(name)}; agents: {agents}")
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
        raise UsageError(bottle_state.no_state(identity))
    data = state.metadata
    audit_path = paths.audit_path(identity)
    facts: dict[str, object] = {
        "identity": identity,
        "status": state.status,
        "detached": state.detached,
        "agent": data.agent_name if data else None,
        "bottle": data.bottle_name if data else None,
        "backend": data.backend if data else None,
        "cwd": data.cwd if data else None,
        "copy_cwd": data.copy_cwd if data else None,
        "started_at": data.started_at if data else None,
        "exit_code": data.exit_code if data else None,
        "ended": bottle_state.how_it_ended(state),
        "next": _next(state),
        "output": _output(identity),
        "state": str(paths.state_dir(identity)),
        "workspace": _workspace(identity, data.backend if data else ""),
        "audit": str(audit_path) if audit_path.exists() else None,
    }
    used, refused = _used(audit_path), refused_since_start(audit_path)
    live, why = _status(identity) if state.status == "running" else (None, "")
    if as_json:
        print_json(
            {**facts, "refused_credentials": refused.to_json(), "tokens": used.to_json(), "sidecar": live}
        )
        return
    word = "cut off" if live is not None and live["halted"] else state.word
    for label, value in {**facts, "status": word, "detached": None}.items():
        if value is not None:
            print(f"{label:<10}: {legible(str(value))}")
    for sentence in sentences(refused, identity, status=state.status):
        print(f"{'refused':<10}: {sentence}")
    if why:
        print(f"{'sidecar':<10}: {why}")
    if live is not None:
        _print_live(live)
    if used:
        _print_used(used)


def _used(audit_path: Path) -> UsedByModel:
    """Sum up what answers said they used, in all sessions of an identity, as far as it can be read."""
    from bot_bottle import audit_reading, usage  # noqa: PLC0415

    used = usage.UsedByModel()
    with contextlib.suppress(OSError):
        for record in audit_reading.read_records(audit_path, event=usage.EVENT):
            if one := usage.usage_of(record):
                used.add(one)
    return used


def _print_used(used: UsedByModel) -> None:
    """Show what was used of each model."""
    sums = [*used.models.items(), *([("(all)", used.total)] if len(used.models) > 1 else [])]
    print_table(
        ("MODEL", "ANSWERS", "TOKENS IN", "OF THEM CACHED", "TOKENS OUT"),
        ((model or "(not named)", *(str(count) for count in one.to_json().values())) for model, one in sums),
    )


def _next(state: BottleStateSummary) -> str | None:
    """Say how to go on with it."""
    if state.status == "running":
        return f"bot-bottle attach {state.identity}" if state.detached else None
    return f"bot-bottle resume {state.identity}" if state.status == "preserved" else None


def _output(identity: str) -> str | None:
    """Say where the last that a detached agent wrote is: raw, as it came."""
    place = paths.state_dir(identity) / CURRENT
    return str(place) if place.is_file() else None


def _status(identity: str) -> tuple[dict[str, Any] | None, str]:
    """Ask a running bottle's sidecar for its routes and counters; None and the reason where it is silent."""
    from bot_bottle.control_client import ControlClient  # noqa: PLC0415

    try:
        with ControlClient.connect(identity, _STATUS_SECONDS) as client:
            answer = client.order("status")
    except LaunchError as error:
        return None, str(error)
    return {name: value for name, value in answer.items() if name not in {"ok", "identity"}}, ""


def _print_live(live: dict[str, Any]) -> None:
    """Show each route with what went over it."""
    halted = "stopped by bot-bottle panic; open again with: bot-bottle panic --lift"
    state = halted if live["halted"] else f"open, {counted(live['connections'], 'connection')}"
    print(f"{'sidecar':<10}: {state}")
    rows = [(str(one["host"]), one["counters"]) for one in live["routes"]]
    rows += [(f"{one['host']} (granted)", one["counters"]) for one in live.get("granted", ())]
    rows.append(("(no route)", live["elsewhere"]["counters"]))
    print_table(
        ("ROUTE", "REQUESTS", "DENIED", "ERRORS", "OUT", "IN", "P50 MS", "P95 MS", "MAX MS"),
        (
            (
                host,
                *(str(counts[name]) for name in ("requests", "denied", "errors")),
                *(_amount(counts[name]) for name in ("bytes_out", "bytes_in")),
                *(f"{counts[name]:g}" for name in ("latency_p50_ms", "latency_p95_ms", "latency_max_ms")),
            )
            for host, counts in rows
        ),
    )


def _amount(count: int) -> str:
    """Write a number of bytes with three figures."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1024
    return f"{amount:.3g} TiB"


def _workspace(identity: str, backend: str) -> str | None:
    """Say where the bottle's workspace lies; None where its record or its backend cannot tell."""
    from bot_bottle.backend.registry import get_bottle_backend  # noqa: PLC0415

    if not backend:
        return None
    try:
        return get_bottle_backend(backend).kept_at(identity)
    except (BotBottleError, OSError):  # a backend of another version
        return None
