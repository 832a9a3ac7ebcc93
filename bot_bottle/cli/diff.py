"""``bot-bottle diff IDENTITY``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bot_bottle import bottle_state
from bot_bottle.cli import complete, retrieved, terminal
from bot_bottle.cli.output import print_json

if TYPE_CHECKING:
    from pathlib import Path


@click.command("diff")
@click.argument("identity", shell_complete=complete.identities)
@click.option(
    "--from",
    "branch",
    metavar="BRANCH",
    default="",
    help="A branch of the bottle's, or one of its stashes (stash@{0}), not the current branch.",
)
@click.option("--path", "inside", metavar="FOLDER", default="", help="A repository below the workspace.")
@click.option(
    "--into", type=click.Path(), help="Your folder to compare with (default: where it was started)."
)
@click.option("--committed", is_flag=True, help="Leave out what is not committed.")
@click.option("--no-pager", is_flag=True, help="Write straight to the terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print the list of files as JSON.")
def command(
    *,
    identity: str,
    branch: str,
    inside: str,
    into: str | None,
    committed: bool,
    no_pager: bool,
    as_json: bool,
) -> None:
    """Show what the bottle IDENTITY changed, its uncommitted work included.

    Nothing of yours is touched, and nothing that the bottle wrote is run or followed.
    """
    import asyncio  # noqa: PLC0415
    import tempfile  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from bot_bottle.retrieval.arrival import arrive  # noqa: PLC0415
    from bot_bottle.retrieval.changes import list_changes, write_patch  # noqa: PLC0415
    from bot_bottle.retrieval.commits import new_commits  # noqa: PLC0415
    from bot_bottle.retrieval.source import open_source  # noqa: PLC0415

    metadata = bottle_state.require_metadata(identity)
    home = retrieved.repository_of(metadata, into, needed=False)

    async def work(patch: Path) -> dict[str, object] | None:
        with open_source(metadata, inside) as source:
            async with arrive(
                source, home, branch=branch, rest="left" if committed else "brought"
            ) as arrival:
                if as_json:
                    return retrieved.facts(arrival, await new_commits(arrival), await list_changes(arrival))
                terminal.say(
                    [
                        f"bot-bottle: compared with {arrival.compared_with}",
                        *retrieved.notes(arrival, identity, home),
                    ]
                )
                await write_patch(arrival, patch)
                return None

    with tempfile.TemporaryDirectory(prefix="bot-bottle-diff-") as folder:
        patch = Path(folder) / "patch"
        found = asyncio.run(work(patch))
        if found is not None:
            print_json({"identity": identity, **found})
            return
        if patch.stat().st_size == 0:
            terminal.say(["bot-bottle: nothing was changed"])
            return
        _show(patch, paged=not no_pager)


def _show(patch: Path, *, paged: bool) -> None:
    from bot_bottle.retrieval.changes import patch_lines  # noqa: PLC0415

    colour = terminal.shows_colour()
    if paged and terminal.owns_terminal():
        click.echo_via_pager(patch_lines(patch, colour=colour), color=colour)
        return
    for line in patch_lines(patch, colour=colour):
        print(line, end="")
