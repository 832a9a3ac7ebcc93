"""``bot-bottle audit [verify] IDENTITY|FILE``."""

from __future__ import annotations

import heapq
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot_bottle import bottle_state
from bot_bottle.audit_reading import AuditVerdict, is_written, read_records, verify
from bot_bottle.cli import complete
from bot_bottle.cli.output import print_json
from bot_bottle.errors import UsageError
from bot_bottle.events import log_of
from bot_bottle.legible import legible
from bot_bottle.operator_log import operator_log
from bot_bottle.record_lines import record_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_VERIFY = "verify"


@click.command("audit")
@click.argument(
    "words", nargs=-1, required=True, metavar="[verify] IDENTITY|FILE", shell_complete=complete.recorded
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, words: tuple[str, ...], as_json: bool) -> int:
    """Show what was decided for IDENTITY, or verify that its record is whole and unchanged.

    What you did with its work (`pull`) is on a record of its own, which is shown and verified with it.
    `audit verify` exits 0 if both are whole and 1 if a line was changed or an end is missing.

    In an identity's place a log's FILE may stand, such as that of `bot-bottle proxy --audit`.
    """
    verify = words[0] == _VERIFY and len(words) == 2
    if len(words) != 1 and not verify:
        raise UsageError(
            "write: bot-bottle audit IDENTITY, or: bot-bottle audit verify IDENTITY (or a log's FILE)"
        )
    file, identity = _file(words[-1]), words[-1]
    path = file or log_of(identity)
    try:
        if file is not None:
            return _verify_file(file, as_json=as_json) if verify else _show((file,), as_json=as_json)
        own = operator_log(identity)
        paths = (path, own) if own.exists() else (path,)
        return _verify(paths, identity, as_json=as_json) if verify else _show(paths, as_json=as_json)
    except BrokenPipeError:
        raise  # of what is written: the reader has gone
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error


def _file(word: str) -> Path | None:
    """Give the log that a word names by its place; None where it can only be an identity."""
    path = Path(word)
    # Those of pathlib raise for what may not be looked at, up to Python 3.13.
    there = os.path.exists(path)  # noqa: PTH110
    if bottle_state.IDENTITY_PATTERN.fullmatch(word) or ("/" not in word and not there):
        return None
    if there and not os.path.isfile(path):  # noqa: PTH113
        raise UsageError(f"{legible(word)} is no file; name the audit log itself")
    return path


def _verify_file(path: Path, *, as_json: bool) -> int:
    verdict = verify(path)
    whole = verdict.ok and (verdict.ended or is_written(path))
    if as_json:
        print_json({"file": str(path), **_object(verdict, whole)})
    else:
        print(f"{legible(str(path))}: {_word(verdict, whole)}: {verdict.message}")
    return 0 if whole else 1


def _word(verdict: AuditVerdict, whole: bool) -> str:  # noqa: FBT001 - one of a pair
    return "ok" if whole else "BROKEN" if not verdict.ok else "INCOMPLETE"


def _verify(paths: Sequence[Path], identity: str, *, as_json: bool) -> int:
    verdicts = [verify(path) for path in paths]
    running = bottle_state.is_running(identity)
    whole = [one.ok and (one.ended or (number == 0 and running)) for number, one in enumerate(verdicts)]
    if as_json:
        objects = [_object(*one) for one in zip(verdicts, whole, strict=True)]
        own = objects[1] if len(objects) > 1 else None
        print_json({"identity": identity, **objects[0], "ok": all(whole), "operator": own})
    else:
        for title, verdict, is_whole in zip(
            (identity, f"{identity}, operator"), verdicts, whole, strict=False
        ):
            print(f"{title}: {_word(verdict, is_whole)}: {verdict.message}")
    return 0 if all(whole) else 1


def _object(verdict: AuditVerdict, whole: bool) -> dict[str, object]:  # noqa: FBT001 - one of a pair
    return {
        "ok": whole,
        "chain_intact": verdict.ok,
        "records": verdict.records,
        "ended": verdict.ended,
        "error_line": verdict.error_line,
        "message": verdict.message,
    }


def _show(paths: Sequence[Path], *, as_json: bool) -> int:
    """Show the bottle's records, and among them, by their time, what the operator did."""
    own = ({**record, "by": "operator"} for path in paths[1:] for record in read_records(path))
    acts = (record for record in own if record["event"] != "end")
    records = heapq.merge(read_records(paths[0]), acts, key=lambda record: str(record.get("time", "")))
    if as_json:
        print_json(list(records))
        return 0
    for record in records:
        print(record_line(record))
    return 0
