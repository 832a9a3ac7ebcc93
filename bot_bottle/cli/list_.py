"""``bot-bottle list [agents|bottles|active]``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bot_bottle.cli.output import print_json, print_table
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from bot_bottle.bottle_state import BottleStateSummary


#: The columns of ``list`` and ``list active``.
_HEAD = ("IDENTITY", "STATUS", "AGENT", "BACKEND", "STARTED", "EXIT")


@click.command("list")
@click.argument(
    "what", type=click.Choice(["identities", "active", "agents", "bottles"]), default="identities"
)
@click.option("--all", "everything", is_flag=True, help="Also what is gone but for its log.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, what: str, everything: bool, as_json: bool) -> None:
    """List identities that run or are kept; or the active ones, or the declared agents or bottles."""
    if everything and what != "identities":
        raise click.UsageError(f"--all goes with identities, not with {what}")
    if what == "identities":
        _identities(as_json=as_json, everything=everything)
    elif what == "active":
        _active(as_json=as_json)
    else:
        _declared(what, as_json=as_json)


def _identities(*, as_json: bool, everything: bool) -> None:
    from bot_bottle import bottle_state, paths, running  # noqa: PLC0415

    states = bottle_state.list_states()
    if everything:
        states = (*states, *bottle_state.list_ended())
    cut = running.cut_off([state.identity for state in states if state.status == "running"])
    if as_json:
        print_json([_state_json(state, cut.get(state.identity, False)) for state in states])
        return
    if not states:
        print("no bottle is running or kept; start one with: bot-bottle start NAME")
        if not any(paths.agents_dir().glob("*.md")):
            print("no agent of yours is declared yet; write one with: bot-bottle init")
        return
    rows = []
    for state in states:
        data = state.metadata
        agent, backend, started = (
            (data.agent_name, data.backend, data.started_at) if data else ("?", "?", "?")
        )
        word = "cut off" if cut.get(state.identity) else state.word
        rows.append((state.identity, word, agent, backend, started, _exit_text(state)))
    print_table(_HEAD, rows)


def _exit_text(state: BottleStateSummary) -> str:
    """Write how the last session ended in the room of an exit code."""
    from bot_bottle.bottle_state import how_it_ended  # noqa: PLC0415

    data = state.metadata
    if data is None or how_it_ended(state) is None:
        return ""
    if data.exit_code is not None:
        return str(data.exit_code)
    return "cut short" if data.ended else "killed"


def _state_json(state: BottleStateSummary, cut: bool | None) -> dict[str, object]:  # noqa: FBT001
    """Give one bottle for programs; ``cut`` tells whether panic holds it, ``None`` where nobody says."""
    from bot_bottle import paths  # noqa: PLC0415
    from bot_bottle.bottle_state import how_it_ended  # noqa: PLC0415
    from bot_bottle.refused_credentials import refused_since_start  # noqa: PLC0415

    data = state.metadata
    return {
        "identity": state.identity,
        "status": state.status,
        "detached": state.detached,
        "cut_off": cut,
        "agent": data.agent_name if data else None,
        "bottle": data.bottle_name if data else None,
        "backend": data.backend if data else None,
        "cwd": data.cwd if data else None,
        "started_at": data.started_at if data else None,
        "exit_code": data.exit_code if data else None,
        "ended": how_it_ended(state),
        "refused_credentials": refused_since_start(paths.audit_path(state.identity)).to_json(),
    }


def _active(*, as_json: bool) -> None:
    from bot_bottle import running  # noqa: PLC0415
    from bot_bottle.backend.registry import enumerate_active_agents  # noqa: PLC0415

    agents = enumerate_active_agents()
    cut = running.cut_off([a.slug for a in agents])
    if as_json:
        print_json(
            [
                {
                    "backend": a.backend_name,
                    "identity": a.slug,
                    "agent": a.agent_name,
                    "started_at": a.started_at,
                    "cut_off": cut[a.slug],
                }
                for a in agents
            ]
        )
        return
    if not agents:
        print("no bottle is running")
        return
    rows = (
        (a.slug, "cut off" if cut[a.slug] else "running", a.agent_name, a.backend_name, a.started_at, "")
        for a in agents
    )
    print_table(_HEAD, rows)


def _declared(what: str, *, as_json: bool) -> None:
    from bot_bottle.cli import terminal  # noqa: PLC0415
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415

    manifest = Manifest.resolve(terminal.current_folder())
    terminal.warn(manifest.warnings)
    broken = manifest.broken_agents if what == "agents" else manifest.broken_bottles
    if what == "agents":
        entries = [
            {"name": a.name, "bottle": a.bottle, "origin": a.origin, "path": str(a.path)}
            for a in manifest.agents.values()
        ]
    else:
        entries = [
            {"name": b.name, "provider": b.agent_provider.template, "path": str(b.path)}
            for b in manifest.bottles.values()
        ]
    entries += [{"name": name, "error": str(error)} for name, error in broken.items()]
    entries.sort(key=lambda entry: entry["name"])
    if as_json:
        print_json(entries)
        return
    if not entries:
        print(f"no {what.removesuffix('s')} is declared yet; write one with: bot-bottle init")
    for entry in entries:
        detail = (
            entry.get("bottle") or entry.get("provider") or "broken: " + entry["error"].partition("\n")[0]
        )
        print(f"{entry['name']}\t{legible(detail)}")
