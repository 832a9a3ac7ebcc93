"""``bot-bottle resume IDENTITY``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot_bottle.cli import complete, session, terminal
from bot_bottle.cli.task import detach_option, headless_options, keep_option

if TYPE_CHECKING:
    from bot_bottle.cli.task import Unattended


@click.command("resume")
@click.argument("identity", shell_complete=complete.identities)
@click.option("--dry-run", is_flag=True, help="Show what would start, and start nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before starting.")
@detach_option
@headless_options
@keep_option
def command(
    *,
    identity: str,
    dry_run: bool,
    yes: bool,
    unattended: Unattended,
    keep: bool | None,
) -> int:
    """Go on with the preserved bottle IDENTITY, on the backend it was made by.

    What it may do is read anew: a manifest changed since then holds from now on, and the difference is shown
    before the question.
    """
    from bot_bottle import bottle_state  # noqa: PLC0415
    from bot_bottle.backend.plan import BottleSpec  # noqa: PLC0415
    from bot_bottle.backend.registry import LEGACY_BACKEND, get_bottle_backend  # noqa: PLC0415
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415
    from bot_bottle.operator_config import load_operator_config  # noqa: PLC0415

    dry_run = session.wants_dry_run(flag=dry_run)
    background = session.go_on_as_two(unattended, dry_run=dry_run)
    if isinstance(background, int):
        return background
    metadata = bottle_state.require_stopped(identity)
    config = load_operator_config()
    backend = get_bottle_backend(metadata.backend or LEGACY_BACKEND)
    cwd = Path(metadata.cwd) if metadata.cwd and Path(metadata.cwd).is_dir() else terminal.current_folder()
    with session.ahead(backend, dry_run=dry_run):
        manifest = Manifest.resolve(cwd)
        terminal.warn(manifest.warnings)
        manifest.bottle_for(metadata.agent_name)
        session.require_answer(yes=yes, dry_run=dry_run)
        spec = BottleSpec(
            manifest=manifest,
            agent_name=metadata.agent_name,
            user_cwd=cwd,
            copy_cwd=metadata.copy_cwd,
            identity=identity,
            headless=unattended.headless,
            prompt=unattended.task,
            keep=config.keep if keep is None else keep,
        )
        return session.launch(
            spec,
            backend,
            config,
            why="the one that made this bottle",
            yes=yes,
            dry_run=dry_run,
            unattended=unattended,
            background=background,
        )
