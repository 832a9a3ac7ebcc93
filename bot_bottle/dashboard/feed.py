"""One bottle's events as lines: the newest there are, then those that come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.dashboard.rows import record_cell
from bot_bottle.events import LogReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bot_bottle.audit_chain import Record
    from bot_bottle.dashboard.rows import Cell

#: How much of the log is read at first, and how much at one time later, in bytes: nobody reads faster.
_FIRST = 256 * 1024
_MOST = 64 * 1024
_REFUSALS = frozenset({"deny", "error", "refused"})


class Feed:
    """Reads one bottle's log on."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._path = paths.audit_path(identity)
        self._reader = LogReader(self._path, offset=max(0, self._size() - _FIRST))

    def more(self) -> tuple[list[Record], int]:
        """Give the records that have come, and how many bytes before them were passed over unread."""
        missed = max(0, self._size() - self._reader.offset - _MOST)
        if missed and self._reader.offset:
            self._reader = LogReader(self._path, offset=self._reader.offset + missed)
        else:
            missed = 0
        try:
            return list(self._reader.rest()), missed
        except OSError:
            return [], 0  # there is no log yet, or it was moved away

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0


def lines_of(records: Iterable[Record], *, denied: bool, text: str) -> list[tuple[Cell, int]]:
    """Give the lines of those records that are wanted, each with its record's number (``seq``).

    That is only refusals, only with ``text`` in any case.
    """
    wanted = text.casefold()
    chosen = (record for record in records if not denied or record.get("decision") in _REFUSALS)
    lines = ((record_cell(record), number_of(record)) for record in chosen)
    return [line for line in lines if wanted in line[0][0].casefold()]


def number_of(record: Record) -> int:
    """Give a record's place in its log; -1 for what has none."""
    number = record.get("seq")
    return number if type(number) is int else -1
