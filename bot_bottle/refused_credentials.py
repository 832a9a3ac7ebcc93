"""Credentials that servers refused, summed up from a bottle's log: names and counts, never a value.

Else an agent works all night against a token that has ended, and its operator hears of it from nobody.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

#: The audit event of one answer that refused the credential its request was given.
EVENT = "credential_refused"
#: RFC 9110, 15.5.2 and 15.5.4: without valid credentials; understood and refused.
STATUSES = frozenset({401, 403})
#: A route may cover more hosts than anyone reads of; those beyond are counted under ``OTHERS``.
MAX_HOSTS = 32
OTHERS = "(others)"
#: What is wrong, most likely. A server that lacks rights for one path says 403 and takes the credential.
LIKELY = "the token may be expired or lack rights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """What one host said to one credential (its name): its status, how often, when last (UTC, ISO 8601)."""

    host: str
    credential: str
    status: int
    count: int = 0
    last: str = ""

    def __str__(self) -> str:
        """Say it in a sentence's first half."""
        times = "once" if self.count == 1 else f"{self.count} times, last"
        who = legible(f"{self.host} refused the credential {self.credential} ({self.status})")
        return f"{who} {times} at {legible(self.last[:19])}Z"


class RefusedCredentials:
    """Sums by host, credential and status, of a bounded number; false where none was refused."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, int], Refused] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[Refused]:
        return iter(self._found.values())

    def take(self, record: Mapping[str, object]) -> bool:
        """Count an audit record; false for one of another event. What began anew is counted anew."""
        event = record.get("event")
        if event == "start":
            self._found.clear()
        if event != EVENT:
            return False
        host, credential = str(record.get("host", "")), str(record.get("credential", ""))
        number = record.get("status")
        status = number if type(number) is int else 0
        if (host, credential, status) not in self._found and len(self._found) >= MAX_HOSTS:
            host = OTHERS
        key = (host, credential, status)
        one = self._found.get(key) or Refused(host=host, credential=credential, status=status)
        self._found[key] = replace(one, count=one.count + 1, last=str(record.get("time", "")))
        return True

    def to_json(self) -> list[dict[str, object]]:
        """Give each for programs."""
        return [asdict(one) for one in self]


def sentences(refused: Iterable[Refused], identity: str, *, status: str) -> tuple[str, ...]:
    """Say each with what to do; ``status`` is the bottle's (``running``, ``preserved``, ...)."""
    then = {
        "running": f", then: bot-bottle stop {identity}, bot-bottle resume {identity}",
        "preserved": f", then: bot-bottle resume {identity}",
    }.get(status, "")
    return tuple(f"{one}: {LIKELY}; mend it where it is read from{then}" for one in refused)


def refused_since_start(path: Path) -> RefusedCredentials:
    """Sum up what a log says since its sidecar last started; nothing where it cannot be read."""
    from bot_bottle.events import LogReader  # noqa: PLC0415 - who counts what it has read needs no reader

    found = RefusedCredentials()
    with contextlib.suppress(OSError):
        for record in LogReader(path, events=("start", EVENT)).rest():
            found.take(record)
    return found
