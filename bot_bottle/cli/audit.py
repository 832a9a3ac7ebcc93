"""``bot-bottle audit [verify] IDENTITY``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from bot_bottle import audit, bottle_state, paths
from bot_bottle.bottle_state import IDENTITY_PATTERN, printable
from bot_bottle.cli import complete
from bot_bottle.cli.output import print_json
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_VERIFY = "verify"
#: What a reader looks for first; the other fields follow in the record's own order.
_FIRST = ("decision", "reason", "method", "host", "path", "name", "rule")
_CHAIN_FIELDS = frozenset({"seq", "time", "event", "prev", "hash"})


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
    path = _log_of(identity)
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
        fields = [
            f"{name}={_cell(record[name])}"
            for name in dict.fromkeys((*_FIRST, *record))
            if name not in _CHAIN_FIELDS and record.get(name) not in (None, "", [])
        ]
        time = printable(str(record.get("time", "")))
        print(f"{time:<32} {printable(str(record.get('event', ''))):<10} {' '.join(fields)}".rstrip())
    return 0


def _cell(value: object) -> str:
    text = printable(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return f'"{text}"' if " " in text else text


def _log_of(identity: str) -> Path:
    """Find an identity's log; raises ``UsageError`` that names those there are."""
    if IDENTITY_PATTERN.fullmatch(identity):
        path = paths.audit_path(identity)
        if path.exists():
            return path
    folder = paths.audit_path("x").parent
    logs = folder.glob("*.jsonl") if folder.is_dir() else ()
    known = [path.stem for path in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True)]
    newest = ", ".join(known[:10]) or "none"
    more = f" and {len(known) - 10} older" if len(known) > 10 else ""
    raise UsageError(f"no audit log of {printable(identity)!r}; those that exist: {newest}{more}")
