"""What went over each route, counted: cheap enough for every request, bounded by the routes there are.

A route is known by its host, as everywhere, so that its counts outlive a change of its other rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.usage import UsedByModel

if TYPE_CHECKING:
    from collections.abc import Iterable

#: A latency of up to 2**N microseconds is counted in bucket N; the last one holds all above 67 seconds.
_BUCKETS = 27


class Tally:
    """The counts of one route. Bytes are of heads and bodies of requests (out), of bodies of answers (in)."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "denied",
        "errors",
        "latencies",
        "longest",
        "refused",
        "requests",
        "used",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.denied = 0
        self.errors = 0
        #: Answers that refused the credential that their requests were given.
        self.refused = 0
        self.bytes_out = 0
        self.bytes_in = 0
        self.longest = 0.0
        self.latencies = [0] * (_BUCKETS + 1)
        #: What answers said that they used of a model, where a route says how they tell.
        self.used = UsedByModel()

    @property
    def answers(self) -> int:
        """How many answers have begun."""
        return sum(self.latencies)

    def answered(self, seconds: float) -> None:
        """Count the head of an answer that took ``seconds`` to come."""
        # Without min() and max(): this stands on the way of every answer.
        bucket = int(seconds * 1e6).bit_length()
        self.latencies[bucket if bucket < _BUCKETS else _BUCKETS] += 1  # noqa: FURB136
        if seconds > self.longest:  # noqa: PLR1730
            self.longest = seconds

    def percentile(self, share: float) -> float:
        """Give the latency in seconds that ``share`` of the answers kept to, rounded up to a bucket."""
        answers = self.answers
        due = share * answers
        for number, count in enumerate(self.latencies):
            due -= count
            if due <= 0 and answers:
                return min(2.0**number / 1e6, self.longest)
        return 0.0

    def to_wire(self) -> dict[str, object]:
        """Give the counts for JSON; latencies in milliseconds."""
        return {
            "requests": self.requests,
            "denied": self.denied,
            "errors": self.errors,
            "credential_refused": self.refused,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "latency_p50_ms": _milliseconds(self.percentile(0.5)),
            "latency_p95_ms": _milliseconds(self.percentile(0.95)),
            "latency_max_ms": _milliseconds(self.longest),
            **({"usage": self.used.to_json()} if self.used else {}),
        }


class Counters:
    """The tallies of one bottle's routes, and one for what no route covers."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._tallies: dict[str, Tally] = {}
        #: What was asked of hosts that no route covers.
        self.elsewhere = Tally()
        self.keep(hosts)

    def keep(self, hosts: Iterable[str]) -> None:
        """Count for these route hosts from now on; what was counted for them goes on."""
        self._tallies = {host: self._tallies.get(host) or Tally() for host in hosts}

    def of(self, host: str) -> Tally:
        """Give the tally of the route whose host this is, or that of everything else."""
        return self._tallies.get(host) or self.elsewhere


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
