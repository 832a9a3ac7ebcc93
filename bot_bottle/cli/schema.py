"""``bot-bottle schema [bottle|agent|routes]``."""

from __future__ import annotations

import click

from bot_bottle.cli.output import print_json


@click.command("schema")
@click.argument("kind", type=click.Choice(["bottle", "agent", "routes"]), default="bottle")
def command(*, kind: str) -> None:
    """Print the JSON Schema of a bottle's, an agent's or a routes file's keys, for editors."""
    from bot_bottle.manifest.json_schema import json_schema  # noqa: PLC0415

    print_json(json_schema(kind))
