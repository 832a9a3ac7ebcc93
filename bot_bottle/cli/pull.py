"""``bot-bottle pull IDENTITY``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bot_bottle import bottle_state
from bot_bottle.cli import complete, retrieved, terminal
from bot_bottle.cli.output import print_json
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.retrieval.arrival import Rest
    from bot_bottle.retrieval.changes import FileChange
    from bot_bottle.retrieval.commits import NewCommit
    from bot_bottle.retrieval.pull import Pulled

_FOUND = 1


@click.command("pull")
@click.argument("identity", shell_complete=complete.identities)
@click.option("--branch", "name", metavar="NAME", help="Your new branch, below bottle/ (default: IDENTITY).")
@click.option(
    "--from",
    "branch",
    metavar="BRANCH",
    default="",
    help="A branch of the bottle's, or one of its stashes (stash@{0}), not the current branch.",
)
@click.option("--uncommitted", is_flag=True, help="Bring what is not committed too, as one more commit.")
@click.option("--path", "inside", metavar="FOLDER", default="", help="A repository below the workspace.")
@click.option("--into", type=click.Path(), help="Your repository (default: where the bottle was started).")
@click.option("--replace", is_flag=True, help="Move the branch even where that drops commits.")
@click.option("--accept-findings", is_flag=True, help="Bring the work whatever the scan finds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(  # noqa: PLR0913 - one for each option
    *,
    identity: str,
    name: str | None,
    branch: str,
    uncommitted: bool,
    inside: str,
    into: str | None,
    replace: bool,
    accept_findings: bool,
    as_json: bool,
) -> int:
    """Bring the commits of the bottle IDENTITY into your repository, as a branch below bottle/.

    They are checked and scanned first, and the decision is put on record (`bot-bottle audit IDENTITY`).
    Nothing is checked out, and nothing that the bottle wrote is run or followed.
    """
    import asyncio  # noqa: PLC0415
    from functools import partial  # noqa: PLC0415

    from bot_bottle import operator_log, paths  # noqa: PLC0415
    from bot_bottle.retrieval.arrival import arrive  # noqa: PLC0415
    from bot_bottle.retrieval.changes import list_changes  # noqa: PLC0415
    from bot_bottle.retrieval.commits import new_commits  # noqa: PLC0415
    from bot_bottle.retrieval.pull import branch_name, nothing_new, pull  # noqa: PLC0415
    from bot_bottle.retrieval.source import guarded_secrets, open_source  # noqa: PLC0415

    metadata = bottle_state.require_metadata(identity)
    if name:
        branch_name(name)  # a name that git refuses is told before anything is read
    home = retrieved.repository_of(metadata, into, needed=True)
    assert home is not None  # noqa: S101 - needed
    secrets = guarded_secrets(metadata, home.folder)

    async def say(*lines: str) -> None:
        terminal.say(lines)

    async def work() -> int:
        with open_source(metadata, inside) as source:
            rest: Rest = "brought" if uncommitted else "counted"
            async with arrive(source, home, branch=branch, rest=rest) as arrival:
                if not as_json:
                    terminal.say(retrieved.notes(arrival, identity, home))
                target = branch_name(name or retrieved.default_name(arrival, identity, branch))
                changed = 0 if uncommitted else arrival.uncommitted.changed
                why = nothing_new(arrival, home, target, changed, named=bool(name))
                if why:
                    if as_json:
                        print_json(
                            {
                                "identity": identity,
                                "repository": str(home.folder),
                                "into": None,
                                "was": None,
                                "is": None,
                                "findings": [],
                                "nothing": why,
                                **retrieved.facts(arrival, (), ()),
                            }
                        )
                    else:
                        print(f"nothing to bring: {why}")
                    return 0
                commits, files = await new_commits(arrival), await list_changes(arrival)
                done = await pull(
                    arrival,
                    home,
                    target,
                    secrets=secrets,
                    cache=paths.cache_dir(),
                    say=say,
                    record=partial(operator_log.record, identity, redact=tuple(secrets.values())),
                    replace=replace,
                    accept_findings=accept_findings,
                )
                if as_json:
                    findings = [str(one) for one in done.findings]
                    print_json(
                        {
                            "identity": identity,
                            "repository": str(home.folder),
                            "into": done.branch,
                            "was": done.old,
                            "is": done.new,
                            "findings": findings,
                            **retrieved.facts(arrival, commits, files),
                        }
                    )
                else:
                    terminal.say(_findings(done))
                    if done.new:
                        rest_too = bool(uncommitted and arrival.uncommitted.changed)
                        print("\n".join(_words(done, commits, files, rest=rest_too)))
                    if changed:
                        stay = "change stays" if changed == 1 else "changes stay"
                        terminal.say([f"bot-bottle: {changed} uncommitted {stay} there (--uncommitted)"])
        return 0 if done.new else _FOUND

    return asyncio.run(work())


def _findings(done: Pulled) -> list[str]:
    from bot_bottle.git_gate.report import finding_lines  # noqa: PLC0415

    if not done.findings:
        return []
    lines = list(finding_lines(done.findings))
    if not done.new:
        lines.append(
            "bot-bottle: nothing was brought; have the agent take this out of every commit, or look at it "
            "(bot-bottle diff) and say --accept-findings"
        )
    return lines


def _counted(things: Sequence[object], name: str) -> str:
    return counted(len(things), name)


def _words(
    done: Pulled, commits: Sequence[NewCommit], files: Sequence[FileChange], *, rest: bool
) -> list[str]:
    from bot_bottle.retrieval.changes import visible  # noqa: PLC0415

    if done.old == done.new:
        return [f"{done.branch} is there already, at {done.new[:12]}"]
    was = f" (was {done.old[:12]})" if done.old else ""
    what = _counted(commits, "commit") + (" and one of what was not committed" if rest else "")
    gone = sum(one.status == "deleted" for one in files)
    changed = _counted(files, "file") + (f" ({gone} deleted)" if gone else "")
    lines = [f"{done.branch} -> {done.new[:12]}{was}: {what}, {changed}"]
    lines += [
        f"  {one.commit[:12]} {visible(one.subject)[:80]}  (claims to be by {visible(one.claims)[:80]})"
        for one in commits[:20]
    ]
    lines += [
        f"  look closely: {visible(one.path)} is run or followed by a forge or CI"
        for one in files
        if one.runs
    ]
    return [*lines, f"see it with: git log -p {done.branch}"]
