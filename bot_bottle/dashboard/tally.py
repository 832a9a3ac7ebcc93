"""One bottle's events, counted as they come. Pure.

Most lines of a busy log are only counted, by what every line of their kind holds: an agent can make thousands
a second, and what watches fifty bottles must not read them all.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from bot_bottle import refused_credentials, usage
from bot_bottle.audit_chain import parse
from bot_bottle.events import event_mark
from bot_bottle.refused_credentials import RefusedCredentials
from bot_bottle.supervise.record import ANSWERED, ASKED, USED, past_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.audit_chain import Record
    from bot_bottle.supervise.record import Past

#: Over how many seconds requests a second are counted.
RATE_SECONDS = 5.0
_START, _REQUEST = event_mark("start"), event_mark("request")
_DENIED = b'"decision":"deny"'
_ASKING = (ASKED, ANSWERED, USED)
_PUSHES = ("git_push", "git_push_result")
_READ = tuple(
    event_mark(event)
    for event in (
        "start",
        *_ASKING,
        *_PUSHES,
        usage.EVENT,
        refused_credentials.EVENT,
        "panic",
        "session",
    )
)
#: Requests, answers and uses of one bottle that are kept; it can make no more requests than 500.
_MAX_ASKING = 20_000


class Tally:
    """What a bottle's log says in numbers, since its sidecar last started.

    ``requests`` and ``denied`` count decisions on what the agent sent, ``tokens`` what models were told and
    said. ``halted`` tells whether everything is refused (``panic``), ``began`` when the sidecar started (UTC,
    ISO 8601); ``push`` is the last decision on a push, ``refused`` are the credentials that servers refused.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.denied = 0
        self.tokens = 0
        self.halted = False
        self.began = ""
        self.push: Record | None = None
        self.refused = RefusedCredentials()
        self.session: Record | None = None
        self._asking: deque[Record] = deque(maxlen=_MAX_ASKING)
        self._past: Past | None = None
        self._rest = b""
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, data: bytes) -> None:
        """Read on with ``data``, which follows what was taken before."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._rest += data
            return
        lines, self._rest = self._rest + data[:end], data[end:]
        start = lines.rfind(_START)
        if start >= 0:
            self._read(lines[:start])  # what was asked in an earlier session is asked still
            lines = lines[lines.rfind(b"\n", 0, start) + 1 :]
            self.requests = self.denied = self.tokens = 0
            self.halted = False
        self.requests += lines.count(_REQUEST)
        self.denied += lines.count(_DENIED)
        self._read(lines)

    def _read(self, lines: bytes) -> None:
        for record in _records(lines):
            event = record.get("event")
            if self.refused.take(record):
                continue
            if event in _ASKING:
                self._asking.append(record)
                self._past = None
            elif event == usage.EVENT:
                self.tokens += sum(_count(record.get(name)) for name in ("input_tokens", "output_tokens"))
            elif event in _PUSHES:
                self.push = record
            elif event == "panic":
                self.halted = record.get("decision") == "deny"
                self.denied -= self.halted  # what it refuses from then on is counted one by one
                self._asking.append(record)  # it ends what was granted
                self._past = None
            elif event == "start":
                self.began, self.session = str(record.get("time", "")), None
            else:
                self.session = record

    @property
    def past(self) -> Past:
        """What the agent asked and was answered."""
        if self._past is None:
            self._past = past_of(self._asking)
        return self._past

    def rate(self, now: float) -> float:
        """Give requests a second, as of ``now`` (in seconds of any clock that only goes forward)."""
        seen = self._seen
        if not seen or seen[-1][1] > self.requests:
            seen.clear()  # the first look, or a new session
            seen.append((now, self.requests))
            return 0.0
        seen.append((now, self.requests))
        while len(seen) > 2 and now - seen[1][0] >= RATE_SECONDS:
            seen.popleft()
        first_at, first = seen[0]
        return (self.requests - first) / max(RATE_SECONDS, now - first_at)


def _count(value: object) -> int:
    return value if type(value) is int else 0


def _records(lines: bytes) -> Iterator[Record]:
    """Give the records that are read and not only counted, in order."""
    starts = sorted({start for mark in _READ for start in _lines_with(lines, mark)})
    for start in starts:
        record = parse(lines[start : lines.find(b"\n", start) + 1])
        if record is not None:
            yield record


def _lines_with(lines: bytes, mark: bytes) -> Iterator[int]:
    found = lines.find(mark)
    while found >= 0:
        yield lines.rfind(b"\n", 0, found) + 1
        end = lines.find(b"\n", found)
        if end < 0:
            return
        found = lines.find(mark, end)
