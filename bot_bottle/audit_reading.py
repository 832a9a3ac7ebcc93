"""The reading end of an audit log: whether its chain holds, its records, whether it is being written.

The form of a record and what may stand in a log are described in :mod:`bot_bottle.audit`.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.audit_chain import GENESIS, fault, parse, sha256
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def is_written(path: Path) -> bool:
    """Tell whether a process has the log at ``path`` open for writing now; raises ``OSError``."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditVerdict:
    """What :func:`verify` found.

    ``records`` counts the valid records before the first error; ``ended`` says whether the last record is
    an ``end``; ``error_line`` is the 1-based number of the line that breaks the chain, or ``None``.
    """

    ok: bool
    records: int
    ended: bool
    error_line: int | None
    message: str


def verify(path: Path) -> AuditVerdict:
    """Prove or disprove the chain of the log at ``path``; raises ``OSError`` where it cannot be read."""
    prev, records, last_event = GENESIS, 0, ""
    torn: tuple[int, str, int] | None = None
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            record = parse(line)
            if record is None:
                if torn:
                    return _broken(records, torn[0], "is not a whole record")
                torn = (number, sha256(line.rstrip(b"\n")), len(line.rstrip(b"\n")))
                continue
            wrong = fault(record, seq=records, prev=prev)
            if not wrong and torn and not _vouches(record, torn):
                number, wrong = torn[0], "is not a whole record"  # noqa: PLW2901 - the torn line is the one to name
            if wrong:
                return _broken(records, number, wrong)
            torn = None
            prev, last_event = str(record["hash"]), str(record["event"])
            records += 1
    if torn:
        return _broken(records, torn[0], "is not a whole record (the log was cut while it was written)")
    ended = last_event == "end"
    message = f"{counted(records, 'record')}, chain intact, " + (
        "ended cleanly" if ended else "no end record: still open, or cut short"
    )
    return AuditVerdict(ok=True, records=records, ended=ended, error_line=None, message=message)


def read_records(path: Path, *, offset: int = 0, event: str = "") -> Iterator[dict[str, object]]:
    """Give the records from byte ``offset`` on; what is no record is left out (see :func:`verify`).

    With ``event`` only those of that event: a long log is gone through at the disk's pace.
    """
    mark = f'"event":"{event}"'.encode() if event else b""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            record = parse(line) if mark in line else None
            if record is not None and (not event or record.get("event") == event):
                yield record


def _vouches(record: dict[str, object], torn: tuple[int, str, int]) -> bool:
    return (
        record["event"] == "recovered" and (record.get("torn_sha256"), record.get("torn_bytes")) == torn[1:]
    )


def _broken(records: int, line: int, wrong: str) -> AuditVerdict:
    return AuditVerdict(
        ok=False,
        records=records,
        ended=False,
        error_line=line,
        message=f"line {line} {wrong}; {counted(records, 'record')} before it hold",
    )
