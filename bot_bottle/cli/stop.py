"""``bot-bottle stop IDENTITY``."""

from __future__ import annotations

import click

from bot_bottle import bottle_state
from bot_bottle.cli import complete, terminal
from bot_bottle.control_client import wait_until_ended
from bot_bottle.errors import UsageError
from bot_bottle.running import end_all, running_identities


@click.command("stop")
@click.argument("identities", nargs=-1, metavar="[IDENTITY]...", shell_complete=complete.identities)
@click.option("--all", "everything", is_flag=True, help="Every running bottle.")
@click.option(
    "--timeout", default=60.0, show_default=True, metavar="SECONDS", help="How long to wait for each."
)
def command(*, identities: tuple[str, ...], everything: bool, timeout: float) -> int:
    """End the sessions of running bottles, as closing their terminals would; home and workspace are kept."""
    if bool(identities) == everything:
        raise UsageError("write: bot-bottle stop IDENTITY..., or: bot-bottle stop --all")
    chosen = running_identities(identities)
    troubles = {one.identity: one.trouble for one in end_all(chosen) if one.trouble}
    for identity in chosen:
        if identity in troubles:
            continue
        if not wait_until_ended(identity, timeout):
            troubles[identity] = f"its session has not ended within {timeout:g} s"
        elif bottle_state.bottle_state_dir(identity).is_dir():
            print(f"{identity}: stopped; go on with: bot-bottle resume {identity}")
        else:
            print(f"{identity}: ended")
    if not chosen:
        print("no bottle is running")
    terminal.warn(f"{identity}: {why}" for identity, why in troubles.items())
    return 1 if troubles else 0
