"""``bot-bottle rm IDENTITY``."""

from __future__ import annotations

import click

from bot_bottle import bottle_state
from bot_bottle.cli import complete, terminal
from bot_bottle.cli.cleanup import chosen_states, remove_states
from bot_bottle.control_client import wait_until_ended
from bot_bottle.errors import UsageError
from bot_bottle.legible import legible
from bot_bottle.running import end_all

_STOP_SECONDS = 60.0


@click.command("rm")
@click.argument(
    "identities", nargs=-1, required=True, metavar="IDENTITY...", shell_complete=complete.identities
)
@click.option("--stop", is_flag=True, help="End the session first where it runs.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before removing.")
def command(*, identities: tuple[str, ...], stop: bool, yes: bool) -> int:
    """Remove bottles for good: their homes, workspaces and what their backends keep. Audit logs stay."""
    for identity in identities:
        bottle_state.require_state(identity)
    if not yes:
        if not terminal.is_interactive():
            raise UsageError("there is no terminal to ask on; pass --yes to remove without being asked")
        names = ", ".join(map(legible, identities))
        if not terminal.confirm(f"Remove {names} with all work in it?"):
            terminal.say(["bot-bottle: nothing was removed"])
            return 1
    if stop:
        running = [identity for identity in identities if bottle_state.is_running(identity)]
        for one in end_all(running):
            if one.trouble:
                terminal.warn([f"{one.identity}: {one.trouble}"])
        for identity in running:
            wait_until_ended(identity, _STOP_SECONDS)
        # A session that ended well has removed its bottle itself.
        identities = tuple(
            one for one in identities if one not in running or bottle_state.bottle_state_dir(one).is_dir()
        )
    return remove_states(chosen_states(identities)) if identities else 0
