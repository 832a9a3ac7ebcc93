"""``bot-bottle approve``."""

from __future__ import annotations

import click

from bot_bottle.bottle_state import printable
from bot_bottle.cli import terminal
from bot_bottle.errors import UsageError

_NOT_LIVE = {
    "git": "the gate keeps its rules while it runs: edit the bottle (git.remotes), then resume",
    "capability": "nothing in the bottle changes by itself: change its image or its manifest, then resume",
}


@click.command("approve")
@click.argument("request", metavar="ID")
@click.option(
    "--for", "lasting", default="1h", show_default=True, help="once, bottle, or a time: 30m, 2h, 7d."
)
@click.option("--host", default="", help="Open this host instead of the one asked for.")
@click.option("--path", "paths", multiple=True, help="Open this path prefix instead; may be repeated.")
@click.option("--method", "methods", multiple=True, help="Open this method instead; may be repeated.")
@click.option("--words", default="", help="What the agent is told.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before opening it.")
def command(
    *,
    request: str,
    lasting: str,
    host: str,
    paths: tuple[str, ...],
    methods: tuple[str, ...],
    words: str,
    yes: bool,
) -> int:
    """Say yes to an agent's request, as it asked or changed.

    An egress request is opened at once in a running bottle, without any credential, and for the time given.
    """
    from bot_bottle.supervise.grant import warnings  # noqa: PLC0415
    from bot_bottle.supervise.ledger import Answer  # noqa: PLC0415
    from bot_bottle.supervise.operator import find_open, make_grant, respond  # noqa: PLC0415

    asked = find_open(request)
    one = asked.request
    if one.kind != "egress":
        if host or paths or methods:
            raise UsageError(
                f"--host, --path and --method are for egress requests; {one.id} asks for {one.kind}"
            )
        respond(asked, Answer(verdict="approved", words=words), None)
        terminal.say([f"bot-bottle: {one.id} is approved; {_NOT_LIVE[one.kind]}"])
        return 0
    grant = make_grant(one, lasting=lasting, host=host, paths_=paths, methods=methods)
    terminal.say(
        [
            f"bot-bottle: {asked.identity} asks for: {printable(one.summary)}",
            *(f"  says: {printable(line)}" for line in one.reason.splitlines()),
            f"bot-bottle: this opens: {printable(grant.terms)}",
            *(f"  note: {printable(note)}" for note in warnings(grant.route)),
        ]
    )
    if not yes:
        if not terminal.is_interactive():
            raise UsageError("there is no terminal to ask on; pass --yes to open it without being asked")
        if not terminal.confirm("Open it?"):
            terminal.say(
                [f"bot-bottle: nothing was opened; say no to the agent with: bot-bottle deny {one.id}"]
            )
            return 1
    changed = (grant.route.host, grant.route.path_allowlist, grant.route.methods) != (
        one.host,
        one.paths,
        one.methods,
    )
    respond(asked, Answer(verdict="changed" if changed else "approved", words=words), grant)
    when = "open now" if asked.running else f"it opens with: bot-bottle resume {asked.identity}"
    terminal.say([f"bot-bottle: {one.id} is approved, {when}"])
    return 0
