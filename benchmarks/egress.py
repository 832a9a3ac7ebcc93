"""Intercepted TLS through every proxy in turn: requests, new connections, bodies, events, memory."""

from __future__ import annotations

import argparse
import contextlib
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import load, peers, plot, report
from benchmarks.report import Table, median
from benchmarks.upstream import BODY, HOST, MANY_HOSTS, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

_CONNECTIONS = (1, 4, 32, 256)
_SIZES = {"1 MiB": (1 << 20, 20), "200 MiB": (200 << 20, 1)}
_EVENTS = 1000
_DIRECT = "direct (no proxy)"
_OURS = peers.BotBottle.name
_YARDSTICK = peers.Squid.name
_FLOOR = (_DIRECT, peers.Nginx.name)


#: What profiles showed (27 November 2026): perf by library, and RSS by mapping and by kind of connection.
_PROFILE = (
    f"Where {_YARDSTICK}'s rate is missed: of `{_OURS}`'s processor time nearly two thirds are the Python "
    "interpreter's, a sixth is the kernel's (two reads, three writes a request, one of them the record's), "
    "a tenth is TLS and hashing, a twentieth is the searches in content."
)
_WHERE_MEMORY_IS = (
    f"`{_OURS}` loads 20 MiB of content rules with its first connection and stays under 60 MiB with 32 "
    "connections; each further one takes 68 KiB with its own to the upstream, 38 of them OpenSSL's."
)


@dataclass(slots=True)
class Taken:
    """What was measured of one proxy: by the name of the figure, one number a round."""

    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Keep one number."""
        self.figures.setdefault(name, []).append(value)

    def of(self, name: str) -> float | None:
        """Give the median of a figure's rounds."""
        values = self.figures.get(name)
        return median(values) if values else None


def measure(
    *, rounds: int = 5, seconds: float = 1.5, plot_to: Path | None = report.DOCS / "egress.svg"
) -> list[Table]:
    """Measure all proxies round by round, so that what the machine does meanwhile falls on all alike."""
    taken: dict[str, Taken] = {_DIRECT: Taken()}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        upstream = stack.enter_context(Upstream(folder))
        straight = load.Road(
            port=upstream.port, ca_file=upstream.ca_file, upstream_port=upstream.port, tunnel=False
        )
        running: dict[str, peers.Running] = {}
        for number, peer in enumerate(peers.ALL):
            if reason := peer.absent():
                absent[peer.name] = reason
                continue
            own = folder / str(number)
            own.mkdir()
            running[peer.name] = stack.enter_context(peer.start(own, upstream))
            taken[peer.name] = Taken()
            taken[peer.name].add("memory at first", running[peer.name].memory())
        for _ in range(rounds):
            for scenario in _scenarios(seconds, taken[_OURS]):
                scenario(straight, None, taken[_DIRECT])
                for peer_name, proxy in running.items():
                    scenario(proxy.road, proxy, taken[peer_name])
    note = (
        f"Medians of {rounds} rounds in alternation; client, proxies and upstream share the machine. "
        f"`{_OURS}` decides, injects a credential and writes its record for each request, as in bottles; "
        f"{peers.Nginx.name} decides nothing and is the floor of what the same TLS costs in C."
    )
    tables = _tables(taken, absent, [note, _PROFILE, *_interpreter()])
    if plot_to:
        plot.write(_ratios(taken), plot_to, yardstick=_YARDSTICK, ours=_OURS)
    return tables


def _interpreter() -> list[str]:
    """Say so where the Python that runs the proxies written in it was built without optimisation."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    if "--enable-optimizations" in options:
        return []
    return [
        (
            "This Python was built without --enable-optimizations: under a distribution's build the proxies "
            "written in Python take an eighth less of a processor, those in C as much as here."
        )
    ]


def _scenarios(seconds: float, ours: Taken) -> list[Callable[[load.Road, peers.Running | None, Taken], None]]:
    found: list[Callable[[load.Road, peers.Running | None, Taken], None]] = []
    for connections in _CONNECTIONS:

        def small(
            road: load.Road, proxy: peers.Running | None, taken: Taken, connections: int = connections
        ) -> None:
            before = proxy.processor_seconds() if proxy else 0.0
            result = load.keep_alive(road, connections=connections, seconds=seconds)
            taken.add(f"requests {connections}", result.per_second)
            taken.add(f"p50 {connections}", result.p50)
            taken.add(f"p99 {connections}", result.p99)
            if proxy:
                spent = proxy.processor_seconds() - before
                taken.add(f"processor {connections}", spent / max(1.0, result.per_second * seconds) * 1e6)

        found.append(small)

    def connect(road: load.Road, proxy: peers.Running | None, taken: Taken) -> None:
        _remember(proxy, taken, "after requests")
        for label, hosts in (("1", (HOST,)), ("100", MANY_HOSTS)):
            taken.add(f"connections {label}", load.new_connections(road, hosts, seconds=seconds).per_second)
        _remember(proxy, taken, "after connections")

    def carry(road: load.Road, proxy: peers.Running | None, taken: Taken) -> None:
        for label, (size, times) in _SIZES.items():
            for way in ("down", "up"):
                try:
                    rate = load.transfer(road, size=size, up=way == "up", times=times)
                except RuntimeError:
                    if proxy is None or taken is ours:
                        raise
                    continue  # this peer cut it, three times over
                taken.add(f"{way} {label}", rate)
        _remember(proxy, taken, "after 200 MiB")

    def listen(road: load.Road, proxy: peers.Running | None, taken: Taken) -> None:
        result = load.events(road, count=_EVENTS)
        taken.add("event p50", result.p50)
        taken.add("event p99", result.p99)
        _remember(proxy, taken, "after events")

    return [*found, connect, carry, listen]


def _remember(proxy: peers.Running | None, taken: Taken, when: str) -> None:
    if proxy:
        taken.add(f"memory {when}", proxy.memory())


def _tables(taken: dict[str, Taken], absent: dict[str, str], notes: list[str]) -> list[Table]:
    small = Table(
        title=f"Egress: requests a second, keep-alive, {BODY} byte answers, no path twice",
        columns=(
            "proxy",
            *(f"{count} connection{'s' * (count > 1)}" for count in _CONNECTIONS),
            "p50 µs at 4",
            "p99 µs at 4",
            "processor µs a request at 4",
            f"of {_YARDSTICK} at 4",
        ),
        notes=notes,
    )
    connections = Table(
        title="Egress: new connections a second (CONNECT, TLS, one request, close)",
        columns=("proxy", "to 1 host", "to 100 hosts", f"of {_YARDSTICK} at 1"),
    )
    bodies = Table(
        title="Egress: bodies, MiB a second",
        columns=("proxy", *(f"{size} {way}" for size in _SIZES for way in ("down", "up"))),
        notes=[
            "A transfer that was cut was tried three times; where no round brought one, the table says so."
        ],
    )
    events = Table(
        title=f"Egress: {_EVENTS} server-sent events, from the server's sending to the client's hearing",
        columns=("proxy", "p50 µs", "p99 µs"),
    )
    memory = Table(
        title="Egress: memory, RSS in MiB",
        notes=[_WHERE_MEMORY_IS],
        columns=("proxy", "at first", "after requests", "after connections", "after 200 MiB", "after events"),
    )
    for name, found in taken.items():
        small.add(
            name,
            *(_whole(found.of(f"requests {count}")) for count in _CONNECTIONS),
            _whole(found.of("p50 4")),
            _whole(found.of("p99 4")),
            _whole(found.of("processor 4")),
            _ratio(taken, name, "requests 4"),
        )
        connections.add(
            name,
            _whole(found.of("connections 1")),
            _whole(found.of("connections 100")),
            _ratio(taken, name, "connections 1"),
        )
        rates = [found.of(f"{way} {size}") for size in _SIZES for way in ("down", "up")]
        bodies.add(name, *("cut" if rate is None else _whole(rate) for rate in rates))
        events.add(name, _whole(found.of("event p50")), _whole(found.of("event p99")))
        if name != _DIRECT:
            memory.add(name, *(_whole(found.of(f"memory {when}")) for when in memory.columns[1:]))
    tables = [small, connections, bodies, events, memory]
    for table in tables:
        for name, reason in absent.items():
            table.add(name, reason, *("" for _ in table.columns[2:]))
    return tables


def _whole(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _ratio(taken: dict[str, Taken], name: str, figure: str) -> str:
    """Give the median of the rounds' ratios to the yardstick."""
    own, other = taken[name].figures.get(figure), taken.get(_YARDSTICK, Taken()).figures.get(figure)
    if not own or not other:
        return ""
    return f"{median([a / b for a, b in zip(own, other, strict=True)]):.2f}"


def _ratios(taken: dict[str, Taken]) -> dict[str, dict[str, float]]:
    """List, by what is plotted, each proxy's ratio to the yardstick; more is better throughout."""
    figures = {f"{count} connections, requests/s": f"requests {count}" for count in _CONNECTIONS}
    figures |= {
        "new connections/s, 1 host": "connections 1",
        "new connections/s, 100 hosts": "connections 100",
    }
    figures |= {f"{size} {way}load": f"{way} {size}" for size in _SIZES for way in ("down", "up")}
    found: dict[str, dict[str, float]] = {}
    for label, figure in figures.items():
        base = taken.get(_YARDSTICK, Taken()).of(figure)
        for name, values in taken.items():
            value = values.of(figure)
            if base and value and name not in _FLOOR:
                found.setdefault(label, {})[name] = value / base
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5)
    arguments = parser.parse_args()
    for table in measure(rounds=arguments.rounds, seconds=arguments.seconds, plot_to=None):
        print(table.markdown())
