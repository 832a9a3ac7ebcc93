"""``bot-bottle dashboard``."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from bot_bottle import extras
from bot_bottle.cli import terminal
from bot_bottle.cli.output import print_json, print_table
from bot_bottle.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from bot_bottle.backend.base import Bottle
    from bot_bottle.dashboard.board import Board


@click.command("dashboard")
@click.option("--once", is_flag=True, help="Print how things stand and end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; goes with --once.")
def command(*, once: bool, as_json: bool) -> int:
    """Show all bottles, what they do and what their agents ask for, on one screen; answer from there.

    Bottles run on when it is left. The key ? shows what there is.
    """
    if as_json and not once:
        raise UsageError("--json prints and ends: pass --once with it")
    if not once and not terminal.owns_terminal():
        raise UsageError(
            "the dashboard needs a terminal; bot-bottle dashboard --once prints how things stand"
        )
    if not once and os.environ.get("TERM") == "dumb":
        raise UsageError(
            "this terminal cannot be drawn on (TERM is dumb); "
            "bot-bottle dashboard --once prints how things stand"
        )
    from bot_bottle.dashboard.board import Board  # noqa: PLC0415 - `--help` must stay light

    if once:
        with Board() as board:
            _print(board, as_json=as_json)
        return 0
    try:
        from bot_bottle.dashboard.app import Dashboard  # noqa: PLC0415 - brings the library, late
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        raise UnavailableError(
            "the dashboard needs the package textual (bot-bottle dashboard --once works without); "
            f"install it with: {extras.install_command('dashboard')}"
        ) from error
    with Board() as board:
        app = Dashboard(board, bottle_for=_bottle_for_slug, cwd=terminal.current_folder())
        app.run()
    if app.failure is not None:
        raise app.failure
    return 0


def _bottle_for_slug(slug: str) -> Bottle:
    """Give the handle of a bottle that another process runs, of its own backend's class.

    What has no metadata, or metadata older than its backend field, is docker's.
    """
    from bot_bottle import bottle_state  # noqa: PLC0415
    from bot_bottle.backend.registry import LEGACY_BACKEND, get_bottle_backend  # noqa: PLC0415

    metadata = bottle_state.read_metadata(slug)
    return get_bottle_backend((metadata.backend if metadata else "") or LEGACY_BACKEND).bottle_of(slug)


def _print(board: Board, *, as_json: bool) -> None:
    from bot_bottle.dashboard import rows  # noqa: PLC0415

    bottles, requests = board.bottles(), board.requests()
    if as_json:
        print_json(rows.snapshot(bottles, requests))
        return
    print(rows.summary(bottles, requests))
    if bottles:
        print()
        print_table(
            [column.title for column in rows.BOTTLES],
            ([text for text, _tone in rows.bottle_cells(one)] for one in bottles),
        )
    complaints = [f"{one.identity}: {sentence}" for one in bottles for sentence in one.complaints]
    if complaints:
        print("", *complaints, sep="\n")
    if requests:
        print()
        now = time.time()
        print_table(
            [column.title for column in rows.REQUESTS],
            ([text for text, _tone in rows.request_cells(one, now)] for one in requests),
        )
        print("\nanswer with: bot-bottle approve ID, bot-bottle deny ID", file=sys.stderr)
