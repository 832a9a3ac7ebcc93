"""``bot-bottle demo``."""

from __future__ import annotations

import click


@click.command("demo")
def command() -> int:
    """Run a scripted agent in a real bottle against scripted servers of this machine, scene by scene.

    No key and no network are needed. Exit code 0 only if every scene went as it should.
    """
    from bot_bottle.demo import run  # noqa: PLC0415

    return run()
