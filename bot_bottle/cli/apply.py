"""``bot-bottle apply IDENTITY``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot_bottle.bottle_state import require_running
from bot_bottle.cli import complete, terminal
from bot_bottle.cli.output import print_json
from bot_bottle.errors import UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from bot_bottle.apply import Proposal


@click.command("apply")
@click.argument("identity", shell_complete=complete.identities)
@click.option("--dry-run", is_flag=True, help="Show the difference, and change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before changing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; needs --yes or --dry-run.")
def command(*, identity: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Let the running bottle IDENTITY go by its manifest as it is now.

    Routes change for the next request, and what is open by a route that is gone is closed. What only a new
    start can change is named.
    """
    from bot_bottle import apply  # noqa: PLC0415
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415

    if as_json and not (yes or dry_run):
        raise UsageError("--json asks nothing; pass --yes to apply the difference, or --dry-run to see it")
    metadata = require_running(identity)
    cwd = Path(metadata.cwd) if metadata.cwd and Path(metadata.cwd).is_dir() else terminal.current_folder()
    manifest = Manifest.resolve(cwd)
    terminal.warn(manifest.warnings)
    proposal = apply.propose(metadata, manifest, os.environ)
    if not as_json:
        _show(proposal)
    agreed = proposal.is_live and not dry_run and (yes or _asked())
    closed = apply.apply(proposal) if agreed else 0
    if as_json:
        print_json(
            {
                "identity": identity,
                "before": list(proposal.change.before),
                "after": list(proposal.change.after),
                "new_credentials": sorted(proposal.secrets),
                "restart": list(proposal.restart),
                "applied": agreed,
                "closed": closed,
            }
        )
    elif agreed:
        print(f"applied; {closed} open connections closed")
    return 0 if agreed or dry_run or not proposal.is_live else 1


def _asked() -> bool:
    if not terminal.is_interactive():
        raise UsageError("there is no terminal to ask on; pass --yes to apply without being asked")
    if terminal.confirm("Apply this?"):
        return True
    terminal.say(["bot-bottle: nothing was changed"])
    return False


def _show(proposal: Proposal) -> None:
    if not proposal.is_live:
        print("routes: no difference")
    for sign, lines in (("-", proposal.change.before), ("+", proposal.change.after)):
        for line in lines:
            print(f"{sign} {legible(line)}")
    for name in sorted(proposal.secrets):
        print(f"+ credential {legible(name)}, read for this bottle now")
    if proposal.restart:
        print(f"only from the next start on (bot-bottle stop {proposal.identity}, then resume):")
    for line in proposal.restart:
        print(f"  {legible(line)}")
