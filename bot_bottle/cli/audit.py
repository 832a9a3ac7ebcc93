"""``bot-bottle audit [verify] IDENTITY``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bot_bottle import audit, bottle_state
from bot_bottle.cli import complete
from bot_bottle.cli.output import print_json
from bot_bottle.cli.records import record_line
from bot_bottle.errors import UsageError
from bot_bottle.events import log_of

if TYPE_CHECKING:
    from pathlib import Path

_VERIFY = "verify"


@click.command("audit")
@click.argument(
    "words", nargs=-1, required=True, metavar="[verify] IDENTITY", shell_complete=complete.recorded
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, words: tuple[str, ...], as_json: bool) -> int:
    """Show what was decided for IDENTITY, or verify that its record is whole and unchanged.

    `audit verify` exits 0 if the record is whole and 1 if a line was changed or its end is missing.
    """
    verify = words[0] == _VERIFY and len(words) == 2
    if len(words) != 1 and not verify:
        raise UsageError("write: bot-bottle audit IDENTITY, or: bot-bottle audit verify IDENTITY")
    identity = words[-1]
    path = log_of(identity)
    try:
        return _verify(path, identity, as_json=as_json) if verify else _show(path, as_json=as_json)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error


def _verify(path: Path, identity: str, *, as_json: bool) -> int:
    verdict = audit.verify(path)
    whole = verdict.ok and (verdict.ended or bottle_state.is_running(identity))
    word = "ok" if whole else "BROKEN" if not verdict.ok else "INCOMPLETE"
    if as_json:
        print_json(
            {
                "identity": identity,
                "ok": whole,
                "chain_intact": verdict.ok,
                "records": verdict.records,
                "ended": verdict.ended,
                "error_line": verdict.error_line,
                "message": verdict.message,
            }
        )
    else:
        print(f"{identity}: {word}: {verdict.message}")
    return 0 if whole else 1


def _show(path: Path, *, as_json: bool) -> int:
    records = audit.read_records(path)
    if as_json:
        print_json(list(records))
        return 0
    for record in records:
        print(record_line(record))
    return 0
