"""``bot-bottle cleanup``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bot_bottle import bottle_state
from bot_bottle.backend.registry import get_bottle_backend, known_backend_names
from bot_bottle.cli import complete, terminal
from bot_bottle.errors import AlreadyRunningError, BotBottleError, UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from bot_bottle.backend.base import Leftover


@click.command("cleanup")
@click.argument("identities", nargs=-1, metavar="[IDENTITY]...", shell_complete=complete.identities)
@click.option("--all", "everything", is_flag=True, help="Remove kept bottles too.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before removing.")
def command(*, identities: tuple[str, ...], everything: bool, yes: bool) -> int:
    """Remove what dead launches left on this machine, and the kept bottles named by IDENTITY or --all.

    Running bottles, audit logs and whatever is not bot-bottle's own are never touched.
    """
    states = chosen_states(identities) if identities else _unheld_states(everything=everything)
    leftovers = () if identities else _leftovers()
    kept = [s.identity for s in bottle_state.list_states() if s.status == "preserved" and s not in states]
    for backend in known_backend_names():
        for item in leftovers:
            if item.backend == backend:
                print(f"{backend}: {legible(item.describe)}")
    for state in states:
        print(f"state: {state.identity} ({state.status})")
    if kept and not identities:
        print(f"kept for resume (--all removes them too): {', '.join(kept)}")
    if not states and not leftovers:
        print("nothing to remove")
        return 0
    if not yes:
        if not terminal.is_interactive():
            raise UsageError("there is no terminal to ask on; pass --yes to remove without being asked")
        if not terminal.confirm(_question(states, leftovers)):
            terminal.say(["bot-bottle: nothing was removed"])
            return 1
    return remove_states(states, leftovers)


def _question(states: tuple[bottle_state.BottleStateSummary, ...], leftovers: tuple[Leftover, ...]) -> str:
    """Count what a yes would remove, and say how many of it were kept on purpose."""
    count = len(states) + len(leftovers)
    kept = sum(state.status == "preserved" for state in states)
    return f"Remove {count} of ours" + (
        f", {kept} with work in {'it' if kept == 1 else 'them'}?" if kept else "?"
    )


def chosen_states(identities: tuple[str, ...]) -> tuple[bottle_state.BottleStateSummary, ...]:
    """Give the states of ``identities``; raises ``UsageError`` for one that is not there or runs."""
    states = {state.identity: state for state in bottle_state.list_states()}
    for identity in identities:
        if identity not in states:
            raise UsageError(bottle_state.no_state(identity))
        if states[identity].status == "running":
            raise UsageError(f"{identity} is running; end its session first: bot-bottle stop {identity}")
    return tuple(states[identity] for identity in dict.fromkeys(identities))


def _unheld_states(*, everything: bool) -> tuple[bottle_state.BottleStateSummary, ...]:
    wanted = {"unfinished", "preserved"} if everything else {"unfinished"}
    return tuple(state for state in bottle_state.list_states() if state.status in wanted)


def _leftovers() -> tuple[Leftover, ...]:
    found: list[Leftover] = []
    for name in known_backend_names():
        try:
            found += get_bottle_backend(name).leftovers()
        except BotBottleError as error:
            terminal.warn([f"{name} could not be looked over: {error}"])
    return tuple(found)


def remove_states(
    states: tuple[bottle_state.BottleStateSummary, ...], leftovers: tuple[Leftover, ...] = ()
) -> int:
    """Remove each by itself, so that one that cannot be removed never keeps the others."""
    from bot_bottle.backend.launch import remove_bottle  # noqa: PLC0415 - only where there is something to do

    failed: list[str] = []
    for item in leftovers:
        try:
            get_bottle_backend(item.backend).remove(item)
        except Exception as error:  # noqa: BLE001 - reported; the next one is to be removed all the same
            failed.append(f"{item.describe}: {_why(error)}")
        else:
            print(f"removed {item.backend}: {legible(item.describe)}")
    for state in states:
        try:
            with bottle_state.hold_lock(state.identity):
                if state.status == "unfinished" and bottle_state.is_preserved(state.identity):
                    failed.append(f"{state.identity}: holds work by now, since a session ran in it meanwhile")
                    continue
                remove_bottle(state.identity)
        except AlreadyRunningError:
            failed.append(f"{state.identity}: a session has started in it meanwhile")
        except Exception as error:  # noqa: BLE001 - reported; the next one is to be removed all the same
            failed.append(f"{state.identity}: {_why(error)}")
        else:
            print(f"removed {state.identity}")
    terminal.warn(f"not removed: {text}" for text in failed)
    return 1 if failed else 0


def _why(error: Exception) -> str:
    """Give an error's own words where they are meant to be read, else what kind of mistake it was."""
    if isinstance(error, BotBottleError | OSError):
        return str(error)
    return f"an unexpected {type(error).__name__}; this is a mistake of the program, please report it"
