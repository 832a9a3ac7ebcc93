"""How an audit record reads on one line, and which records a reader asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from bot_bottle.duration import DAY, read_duration
from bot_bottle.errors import UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a reader looks for first; the other fields follow in the record's own order.
_FIRST = ("decision", "reason", "method", "host", "path", "name", "rule")
#: What stands elsewhere in the line, or says nothing to a reader: a grant is told by its terms.
_LEFT_OUT = frozenset({"seq", "time", "event", "prev", "hash", "grant"})
#: No log is older, and no date goes back that far.
_LONGEST = 100 * 365 * DAY
_A_LENGTH = re.compile(r"[0-9.]+[smhd]", re.ASCII)
_REFUSALS = frozenset({"deny", "error", "refused"})


def record_line(record: Mapping[str, object]) -> str:
    """Write a record on one line, safe to show on a terminal."""
    fields = [
        f"{name}={_cell(record[name])}"
        for name in dict.fromkeys((*_FIRST, *record))
        if name not in _LEFT_OUT and record.get(name) not in (None, "", [])
    ]
    time = legible(str(record.get("time", "")))
    return f"{time:<32} {legible(str(record.get('event', ''))):<10} {' '.join(fields)}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which records are wanted; an empty filter wants them all.

    ``host`` may hold ``*`` and is compared with what the record calls host, name or remote. ``since`` is UTC
    in the log's own form.
    """

    denied: bool = False
    host: str = ""
    events: tuple[str, ...] = ()
    since: str = ""

    def wants(self, record: Mapping[str, object]) -> bool:
        """Tell whether a record is among them."""
        if self.denied and record.get("decision") not in _REFUSALS:
            return False
        if self.events and record.get("event") not in self.events:
            return False
        if self.since and str(record.get("time", "")) < self.since:
            return False
        names = (str(record.get(field, "")).lower() for field in ("host", "name", "remote"))
        return not self.host or any(name and fnmatchcase(name, self.host.lower()) for name in names)


def read_events_wanted(names: tuple[str, ...]) -> tuple[str, ...]:
    """Give the ``names`` of events; raises ``UsageError`` that names all there are for one that is none."""
    if not names:
        return ()
    from bot_bottle.audit_events import EVENTS  # noqa: PLC0415 - a long table

    for name in names:
        if name not in EVENTS:
            known = ", ".join(sorted(EVENTS))
            raise UsageError(f"--event: there is no event {legible(name)!r}; there are: {known}")
    return names


def read_since(text: str, now: datetime) -> str:
    """Read ``10m``, ``2h``, ``3d`` or a time in ISO 8601 (without zone: the local one), as the log writes it.

    Raises ``UsageError``.
    """
    try:
        if _A_LENGTH.fullmatch(text):
            moment = now - timedelta(seconds=read_duration(text, longest=_LONGEST))
        else:
            moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):  # a year that no calendar of ours has, in this zone or in UTC
        raise UsageError(
            f"--since: {legible(text)!r} is no time; write 10m, 2h, 3d or 2026-01-31T12:00"
        ) from None
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _cell(value: object) -> str:
    text = legible(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return f'"{text}"' if " " in text else text
