"""``bot-bottle run AGENT...``: one task for several agents, side by side, each in a bottle of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from bot_bottle.cli import complete, session, terminal
from bot_bottle.cli.task import headless_options, keep_option
from bot_bottle.errors import UsageError
from bot_bottle.words import counted

if TYPE_CHECKING:
    from bot_bottle.cli.task import Unattended


@click.command("run")
@click.argument("names", nargs=-1, required=True, metavar="AGENT...", shell_complete=complete.agents)
@click.option("--cwd/--no-cwd", "copy_cwd", default=None, help="As of start, for each bottle.")
@click.option("--yes", "-y", is_flag=True, help="Do not show the plans and ask before starting.")
@click.option("--backend", default="", metavar="NAME", shell_complete=complete.backends, help="As of start.")
@headless_options
@keep_option
def command(
    *,
    names: tuple[str, ...],
    copy_cwd: bool | None,
    yes: bool,
    backend: str,
    unattended: Unattended,
    keep: bool | None,
) -> int:
    """Run the agents unattended and show a table of how they fare; what each writes goes to a file.

    Exit code 0 where every agent ended with 0, else 1. One that fails ends none of the others; Ctrl-C and
    SIGTERM end all of them in order.
    """
    from bot_bottle.cli.output import print_json  # noqa: PLC0415
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415
    from bot_bottle.side_by_side import Runs, dry_run  # noqa: PLC0415

    if not unattended.headless:
        raise UsageError("run is for unattended runs; add --headless and a task (--prompt, --prompt-file)")
    manifest = Manifest.resolve(terminal.current_folder())
    terminal.warn(manifest.warnings)
    for name in names:
        manifest.bottle_for(name)
    session.require_answer(yes=yes, dry_run=False)
    options = [
        *(() if copy_cwd is None else ("--cwd" if copy_cwd else "--no-cwd",)),
        *(("--backend", backend) if backend else ()),
        *(() if keep is None else ("--keep" if keep else "--no-keep",)),
    ]
    if not yes:
        for name in dict.fromkeys(names):
            if code := dry_run(name, options):
                return code
        if not terminal.confirm(f"Start {counted(len(names), 'bottle')}?"):
            terminal.say(["bot-bottle: nothing was started"])
            return 1
    if unattended.timeout is not None:
        options += ["--timeout", f"{unattended.timeout:g}"]
    terminal.end_in_order_on_signals()
    runs = Runs(names, options, task=unattended.task, live=sys.stderr.isatty())
    results = runs.until_all_have_ended()
    if unattended.as_json:
        print_json(results)
    return 0 if all(result.get("exit_code") == 0 for result in results) else 1
