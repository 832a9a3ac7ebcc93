"""``bot-bottle deny``."""

from __future__ import annotations

import click

from bot_bottle.cli import terminal


@click.command("deny")
@click.argument("request", metavar="ID")
@click.argument("words", required=False, default="")
def command(*, request: str, words: str) -> int:
    """Say no to an agent's request; WORDS are what it is told."""
    from bot_bottle.supervise.ledger import Answer  # noqa: PLC0415
    from bot_bottle.supervise.operator import find_open, respond  # noqa: PLC0415

    asked = find_open(request)
    respond(asked, Answer(verdict="denied", words=words or "the operator says no"), None)
    terminal.say([f"bot-bottle: {asked.request.id} of {asked.identity} is denied"])
    return 0
