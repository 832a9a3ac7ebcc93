"""``bot-bottle requests``."""

from __future__ import annotations

import click

from bot_bottle.cli import complete, terminal
from bot_bottle.cli.output import print_json
from bot_bottle.legible import legible


@click.command("requests")
@click.argument("identity", required=False, default="", shell_complete=complete.identities)
@click.option("--all", "answered", is_flag=True, help="Show answered requests too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, identity: str, answered: bool, as_json: bool) -> int:
    """Show what agents ask for and nobody has answered yet.

    Everything shown was written by an agent: read it as a claim. Answer with `bot-bottle approve ID` or
    `bot-bottle deny ID`.
    """
    from bot_bottle.supervise.operator import all_requests  # noqa: PLC0415

    found = all_requests(identity, answered=answered)
    if as_json:
        print_json(
            [
                {
                    "identity": one.identity,
                    "running": one.running,
                    **one.request.to_record(),
                    "summary": one.request.summary,
                    "verdict": one.answer.verdict if one.answer else None,
                    "words": one.answer.words if one.answer else None,
                    "terms": one.answer.terms if one.answer else None,
                }
                for one in found
            ]
        )
        return 0
    if not found:
        print("no agent asks for anything" if not answered else "no agent has asked for anything")
    for one in found:
        state = "running" if one.running else "kept"
        settled = f"  [{one.answer.verdict}: {one.answer.terms or one.answer.words}]" if one.answer else ""
        summary = legible(f"{one.request.summary}{settled}")
        print(f"{one.request.id}  {one.identity} ({state})  {summary}")
        for line in terminal.quoted("          says: ", one.request.reason):
            print(line)
    if any(one.answer is None for one in found):
        terminal.say(["bot-bottle: answer with: bot-bottle approve ID, or: bot-bottle deny ID [WORDS]"])
    return 0
