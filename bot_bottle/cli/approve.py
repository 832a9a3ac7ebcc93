"""``bot-bottle approve``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from bot_bottle.cli import terminal
from bot_bottle.errors import UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from bot_bottle.supervise.decide import Prospect
    from bot_bottle.supervise.operator import Asked


@click.command("approve")
@click.argument("request", metavar="ID")
@click.option(
    "--for", "lasting", default="1h", show_default=True, help="once, bottle, or a time: 30m, 2h, 7d."
)
@click.option("--host", default="", help="Open this host instead of the one asked for.")
@click.option("--path", "paths", multiple=True, help="Open this path instead; may be repeated.")
@click.option("--method", "methods", multiple=True, help="Open this method instead; may be repeated.")
@click.option(
    "--branch", "branches", multiple=True, help="Of a push: open this branch instead; may be repeated."
)
@click.option("--edit", is_flag=True, help="Write it into the bottle's file too, after a look at it.")
@click.option("--words", default="", help="What the agent is told.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before opening it.")
def command(  # noqa: PLR0913 - one for each option
    *,
    request: str,
    lasting: str,
    host: str,
    paths: tuple[str, ...],
    methods: tuple[str, ...],
    branches: tuple[str, ...],
    edit: bool,
    words: str,
    yes: bool,
) -> int:
    """Say yes to an agent's request, as it asked or changed.

    A host is opened at once in a running bottle, without any credential, and for the time given; so are
    branches and paths for pushes, where --branch and --path together say what is opened. A changed
    Dockerfile becomes the bottle's own, from its next start on. A content request lets pass what was found,
    and nothing else, when it comes again.
    """
    from bot_bottle.supervise import decide  # noqa: PLC0415
    from bot_bottle.supervise.operator import find_open  # noqa: PLC0415

    if edit and click.get_current_context().get_parameter_source("lasting") is not ParameterSource.DEFAULT:
        raise UsageError("--edit holds for this bottle and all its later starts, so it goes without --for")
    asked = find_open(request)
    one = asked.request
    if edit and one.kind not in {"egress", "git"}:
        raise UsageError(f"--edit is for requests of hosts and pushes; {one.id} asks for {one.kind}")
    lasting = decide.MANIFEST if edit else lasting
    choice = decide.Choice(
        lasting=lasting, host=host, paths=paths, methods=methods, branches=branches, words=words
    )
    seen = decide.prospect(asked, choice)
    if seen.grant is None and seen.edit is None:
        decide.approve(asked, choice, seen)
        terminal.say([f"bot-bottle: {one.id} is approved; {seen.opens}"])
        return 0
    _show(asked, seen)
    if not yes:
        if not terminal.is_interactive():
            raise UsageError("there is no terminal to ask on; pass --yes to open it without being asked")
        if not terminal.confirm("Open it?" if seen.grant else "Take this Dockerfile?"):
            terminal.say(
                [f"bot-bottle: nothing was opened; say no to the agent with: bot-bottle deny {one.id}"]
            )
            return 1
    decide.approve(asked, choice, seen)
    when = "open now" if asked.running else f"it opens with: bot-bottle resume {asked.identity}"
    written = f"; {seen.edit.path} holds it for later starts" if seen.grant and seen.edit else ""
    terminal.say([f"bot-bottle: {one.id} is approved, {when if seen.grant else seen.opens}{written}"])
    return 0


def _show(asked: Asked, seen: Prospect) -> None:
    head = "this opens" if seen.grant else "a yes"
    terminal.say(
        [
            f"bot-bottle: {asked.identity} asks for: {legible(asked.request.summary)}",
            *terminal.quoted("  says: ", asked.request.reason),
            f"bot-bottle: {head}: {legible(seen.lines[0])}",
            *(legible(line) for line in seen.lines[1:]),
            *(seen.edit.diff if seen.edit else ()),
            # Last: however long the rest is, they are on the screen when the question is.
            *(f"  note: {legible(note)}" for note in seen.notes),
        ]
    )
