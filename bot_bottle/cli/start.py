"""``bot-bottle start NAME``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from bot_bottle.cli import complete, session, terminal
from bot_bottle.cli.task import detach_option, headless_options, keep_option

if TYPE_CHECKING:
    from bot_bottle.cli.task import Unattended


@click.command("start")
@click.argument("name", shell_complete=complete.agents)
@click.option(
    "--cwd/--no-cwd",
    "copy_cwd",
    default=None,
    help="Put a private copy of the current folder in the bottle, or not (default: the bottle's workspace).",
)
@click.option(
    "--repo",
    metavar="NAME|URL",
    default="",
    help="Clone one of the bottle's git.remotes, by its name or URL, through the gate.",
)
@click.option("--dry-run", is_flag=True, help="Show what would start, and start nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before starting.")
@session.backend_option
@detach_option
@headless_options
@keep_option
def command(
    *,
    name: str,
    copy_cwd: bool | None,
    repo: str,
    dry_run: bool,
    yes: bool,
    backend: str,
    unattended: Unattended,
    keep: bool | None,
) -> int:
    """Run the agent NAME in a new bottle and take everything down when it ends.

    Exit code 0 removes the bottle's home and workspace unless --keep is given or config.toml says
    `keep = true`; any other end keeps them for `bot-bottle resume`. With --detach this command ends once
    the agent runs, and prints its identity.
    """
    from bot_bottle.backend.plan import BottleSpec  # noqa: PLC0415
    from bot_bottle.backend.registry import choose_backend, likely_backend  # noqa: PLC0415
    from bot_bottle.errors import UsageError  # noqa: PLC0415
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415
    from bot_bottle.operator_config import load_operator_config  # noqa: PLC0415

    if repo and copy_cwd:
        raise UsageError("--repo and --cwd are two workspaces; give one of them")
    dry_run = session.wants_dry_run(flag=dry_run)
    background = session.go_on_as_two(unattended, dry_run=dry_run)
    if isinstance(background, int):
        return background
    config = load_operator_config()
    likely = likely_backend(backend, os.environ, config.backend)
    with session.ahead(likely, dry_run=dry_run):
        cwd = terminal.current_folder()
        manifest = Manifest.resolve(cwd)
        terminal.warn(manifest.warnings)
        bottle = manifest.bottle_for(name)
        session.require_answer(yes=yes, dry_run=dry_run)
        chosen, why = choose_backend(backend, os.environ, config.backend, likely=likely)
        spec = BottleSpec(
            manifest=manifest,
            agent_name=name,
            user_cwd=cwd,
            copy_cwd=bottle.workspace == "copy" and not repo if copy_cwd is None else copy_cwd,
            repo=repo,
            headless=unattended.headless,
            prompt=unattended.task,
            keep=config.keep if keep is None else keep,
        )
        return session.launch(
            spec,
            chosen,
            config,
            why=why,
            yes=yes,
            dry_run=dry_run,
            unattended=unattended,
            background=background,
        )
