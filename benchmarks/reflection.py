"""What it costs to search answers for a credential: a route with one beside a route without."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from benchmarks import load, peers
from benchmarks.report import Table, median
from benchmarks.upstream import Upstream

_MIB = 1 << 20
_DOWNLOAD = 200 * _MIB
_EVENTS = 1000
_NOTE = (
    "Medians of {rounds} rounds in alternation; a token of 73 characters, 4 connections, 1 KiB answers; a "
    "download of 200 MiB; {events} server-sent events, from sending to arrival. MiB is the memory (RSS) "
    "after all of it."
)


def measure(*, rounds: int = 3, seconds: float = 2.0) -> Table:
    """Measure both in turn."""
    table = Table(
        title="Egress: what searching answers for a credential costs",
        columns=(
            "route",
            "requests/s",
            "p50 µs",
            "p99 µs",
            "download MiB/s",
            "event p50 µs",
            "event p99 µs",
            "MiB",
        ),
        notes=[_NOTE.format(rounds=rounds, events=_EVENTS)],
    )
    found: dict[str, list[tuple[float, ...]]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Upstream(Path(name)))
        running: dict[str, peers.Running] = {}
        for label, credential in (("with a credential", True), ("without", False)):
            own = Path(name) / label.replace(" ", "-")
            own.mkdir()
            peer = peers.BotBottle(credential=credential)
            running[label] = stack.enter_context(peer.start(own, upstream))
        for _ in range(rounds):
            for label, bottle in running.items():
                small = load.keep_alive(bottle.road, seconds=seconds)
                rate = load.transfer(bottle.road, size=_DOWNLOAD, up=False)
                events = load.events(bottle.road, count=_EVENTS)
                found.setdefault(label, []).append(
                    (small.per_second, small.p50, small.p99, rate, events.p50, events.p99, bottle.memory())
                )
    for label, values in found.items():
        table.add(label, *(f"{median(list(column)):,.0f}" for column in zip(*values, strict=True)))
    return table
