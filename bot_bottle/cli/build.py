"""``bot-bottle build [AGENT...]``."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bot_bottle.cli import complete, session, terminal
from bot_bottle.cli.output import print_json, print_table

if TYPE_CHECKING:
    from bot_bottle.backend.base import Prepared
    from bot_bottle.manifest.model import Manifest, ManifestBottle

_MIB = 1024 * 1024


@click.command("build")
@click.argument("agents", nargs=-1, metavar="[AGENT]...", shell_complete=complete.agents)
@click.option("--fresh", is_flag=True, help="Build again, from the newest base images and without a cache.")
@session.backend_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, agents: tuple[str, ...], fresh: bool, backend: str, as_json: bool) -> int:
    """Build the images that starts of the AGENTs need, so that a start need not wait for them.

    Without AGENT, those of every agent that can be started from this folder. What is there already is not
    built again. A backend without images has nothing to build.
    """
    from bot_bottle.backend.registry import choose_backend  # noqa: PLC0415 - `--help` must stay light
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415
    from bot_bottle.operator_config import load_operator_config  # noqa: PLC0415

    manifest = Manifest.resolve(terminal.current_folder())
    terminal.warn(manifest.warnings)
    bottles = _bottles(manifest, agents)
    config = load_operator_config()
    chosen, _why = choose_backend(backend, os.environ, config.backend)
    terminal.end_in_order_on_signals()
    prepared = chosen.build_ahead(bottles, config, refresh=fresh)
    if as_json:
        print_json({"backend": chosen.name, "prepared": [asdict(one) for one in prepared]})
    elif not prepared:
        print(f"nothing to build: {chosen.name} uses no images")
    else:
        print_table(("NAME", "STATE", "SIZE", "FOR"), (_row(one) for one in prepared))
    return 0


def _bottles(manifest: Manifest, agents: tuple[str, ...]) -> tuple[ManifestBottle, ...]:
    """Give the bottles of the named agents, each once, or else of all that are declared without mistakes.

    Raises ``UsageError`` for a named agent that cannot be started.
    """
    names = agents or tuple(
        name for name, agent in sorted(manifest.agents.items()) if agent.bottle in manifest.bottles
    )
    found = (manifest.bottle_for(name) for name in names)
    return tuple({bottle.name: bottle for bottle in found}.values())


def _row(one: Prepared) -> tuple[str, ...]:
    state = "built" if one.fresh else "ready"
    bottles = f" (bottles: {', '.join(one.bottles)})" if one.bottles else ""
    return one.name, state, f"{one.size / _MIB:.0f} MiB", f"{one.what}{bottles}"
