"""``bot-bottle panic``."""

from __future__ import annotations

from dataclasses import asdict

import click

from bot_bottle import running
from bot_bottle.cli import complete, terminal
from bot_bottle.cli.output import print_json
from bot_bottle.errors import UsageError
from bot_bottle.words import counted


@click.command("panic")
@click.argument("identities", nargs=-1, metavar="[IDENTITY]...", shell_complete=complete.identities)
@click.option("--stop", is_flag=True, help="End the sessions too; their work is kept.")
@click.option("--lift", is_flag=True, help="Let the agents go on and the routes hold again.")
@click.option("--no-freeze", is_flag=True, help="Let the agents run on meanwhile.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, identities: tuple[str, ...], stop: bool, lift: bool, no_freeze: bool, as_json: bool) -> int:
    """Cut every running bottle off at once, or only those named: no request and no push leaves any more.

    Open connections are closed. The agents are held still, and refused everything, until --lift.
    """
    if stop and lift:
        raise UsageError("--stop ends the sessions and --lift lets them go on; give one of them")
    chosen = running.running_identities(identities)
    outcomes = running.order_all(chosen, "lift" if lift else "panic")
    frozen: tuple[str, ...] = ()
    if lift:
        held = running.thaw_all(chosen)
        terminal.warn(f"the agent of {identity} may be held still yet: try again" for identity in held)
    elif not stop and not no_freeze:
        frozen = running.freeze_all(chosen)  # after all of them were cut off
    failed = [one for one in outcomes if one.trouble]
    ended = running.end_all(chosen) if stop else ()
    unended = {one.identity: one.trouble for one in ended if one.trouble}
    if as_json:
        print_json(
            [
                {
                    **asdict(one),
                    "frozen": one.identity in frozen,
                    "ending": stop and one.identity not in unended,
                }
                for one in outcomes
            ],
        )
    else:
        _tell(outcomes, frozen, lift=lift, stop=stop)
    terminal.warn(f"{one.identity}: {one.trouble}" for one in failed)
    terminal.warn(f"{identity} could not be told to end: {why}" for identity, why in unended.items())
    if failed and not stop and not lift:
        terminal.warn(
            ["what does not answer may still let requests pass; end it with: bot-bottle panic --stop"]
        )
    if chosen and not (stop or lift or as_json):
        terminal.say(
            ["bot-bottle: they go on with: bot-bottle panic --lift; they end with: bot-bottle panic --stop"]
        )
    return 1 if unended or (failed and not stop) else 0


def _tell(outcomes: tuple[running.Outcome, ...], frozen: tuple[str, ...], *, lift: bool, stop: bool) -> None:
    if not outcomes:
        print("no bottle is running")
    done = "its routes hold again" if lift else "cut off"
    for one in outcomes:
        if not one.trouble:
            cut = f", {counted(one.closed, 'connection')} closed" if one.closed else ""
            held = ", agent held still" if one.identity in frozen else ""
            print(f"{one.identity}: {done}{cut}{held}{', ending' if stop else ''}")
