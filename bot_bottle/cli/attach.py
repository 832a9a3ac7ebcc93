"""``bot-bottle attach IDENTITY``."""

from __future__ import annotations

import click

from bot_bottle import bottle_state
from bot_bottle.attach.client import attach
from bot_bottle.attach.detach_keys import NAMES
from bot_bottle.cli import complete, terminal
from bot_bottle.control_client import wait_until_ended
from bot_bottle.errors import LaunchError

_SETTLE_SECONDS = 60.0
_EXIT_TAKEN = 1


@click.command("attach")
@click.argument("identity", shell_complete=complete.identities)
def command(*, identity: str) -> int:
    """Join this terminal to the bottle IDENTITY, which was started with --detach.

    Ctrl-P Ctrl-Q leaves it to itself again; closing the terminal does too. One terminal is joined at a time,
    and a later one takes the place of an earlier. Where the agent ends meanwhile, its exit code is given.
    """
    end = attach(identity, lambda keys: terminal.say([_announced(identity, keys=keys)]))
    if end.leaving == "detached":
        terminal.say([f"bot-bottle: {identity} goes on; join it again: bot-bottle attach {identity}"])
        return 0
    if end.leaving == "taken":
        terminal.say([f"bot-bottle: another terminal has joined {identity} in place of this one"])
        return _EXIT_TAKEN
    wait_until_ended(identity, _SETTLE_SECONDS)
    kept = bottle_state.is_preserved(identity) and not bottle_state.is_running(identity)
    how = f"go on with it: bot-bottle resume {identity}" if kept else "its home and workspace are removed"
    if end.leaving == "lost":
        raise LaunchError(f"the session of {identity} was ended; {how}")
    terminal.say([f"bot-bottle: the agent ended with exit code {end.exit_code}; {how}"])
    return end.exit_code


def _announced(identity: str, *, keys: bool) -> str:
    if keys:
        return f"bot-bottle: joined to {identity}; {NAMES} leaves it to itself"
    return (
        f"bot-bottle: this is what {identity} writes; there is nothing to type at. Ctrl-C leaves it to itself"
    )
