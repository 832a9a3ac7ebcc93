"""A bottle's events, which are its audit records: those there are, then those that come, none lost or twice.

What is on record is read from the host's log. To hear of more, the sidecar's control socket passes the same
log on from where the reading ended; where that ends, with the bottle or because a reader was slow, the file
has the rest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bot_bottle import bottle_state, paths
from bot_bottle.audit_chain import parse
from bot_bottle.control_client import ControlClient, NotReachableError
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.no_identity import no_identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bot_bottle.audit_chain import Record

_PIECE = 256 * 1024
#: How long a bottle may run with nobody at its control socket: a launcher that takes it down needs a moment.
_GOING_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.1


class SidecarGoneError(LaunchError):
    """The bottle's session goes on and its sidecar does not: nothing more will be decided or recorded."""


def log_of(identity: str) -> Path:
    """Find an identity's log; raises ``UsageError`` that names those there are."""
    if bottle_state.IDENTITY_PATTERN.fullmatch(identity):
        path = paths.audit_path(identity)
        if path.exists():
            return path
    folder = paths.audit_path("x").parent
    logs = folder.glob("*.jsonl") if folder.is_dir() else ()
    known = [path.stem for path in sorted(logs, key=lambda path: path.stat().st_mtime, reverse=True)]
    raise UsageError(no_identity(identity, known))


def read_events(identity: str, *, follow: bool = False) -> Iterator[Record]:
    """Give the records of a bottle in order; with ``follow`` also those to come, until the bottle ends.

    Raises ``UsageError`` where there is no log, ``OSError``, and :class:`SidecarGoneError`.
    """
    reader = LogReader(log_of(identity))
    yield from reader.rest()
    deserted_since: float | None = None
    while follow:
        running = bottle_state.is_running(identity)
        try:
            with ControlClient.connect(identity) as client:
                deserted_since = None
                for data in client.events(reader.offset):
                    yield from reader.take(data)
        except NotReachableError as error:
            # Without a socket it is only just coming up, or has all but gone.
            deserted_since = (deserted_since or time.monotonic()) if error.deserted else None
        yield from reader.rest()
        if not running:
            return
        if deserted_since is not None and time.monotonic() - deserted_since > _GOING_SECONDS:
            raise SidecarGoneError(
                f"the sidecar of {identity} has ended while its session goes on: nothing leaves the bottle "
                f"any more; end the session with: bot-bottle stop {identity}"
            )
        time.sleep(_LOOK_AGAIN_SECONDS)


class LogReader:
    """Cuts the bytes of one log into records; ``offset`` is how far it was read.

    With ``events`` only records of those kinds are given, and the others' lines are passed over unread.
    """

    def __init__(self, path: Path, *, offset: int = 0, events: Sequence[str] = ()) -> None:
        self.offset = offset
        self._path = path
        self._marks = tuple(event_mark(event) for event in events)
        self._line = b""

    def take(self, data: bytes) -> Iterator[Record]:
        """Read on with ``data``, which stands at the offset; lines that are no record are left out."""
        self.offset += len(data)
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if self._marks and not any(mark in line for mark in self._marks):
                continue
            record = parse(line + b"\n")
            if record is not None:
                yield record

    def rest(self) -> Iterator[Record]:
        """Read what the file has beyond the offset; raises ``OSError``."""
        for data in self.pieces():
            yield from self.take(data)

    def pieces(self) -> Iterator[bytes]:
        """Give the bytes that the file has beyond the offset, for :meth:`take`; raises ``OSError``."""
        with self._path.open("rb") as file:
            file.seek(self.offset)
            while data := file.read(_PIECE):
                yield data


def event_mark(event: str) -> bytes:
    """Give the bytes that the line of every ``event`` has, and no other line: quotes in texts are escaped."""
    return f'"event":"{event}"'.encode()
