"""Intercepted TLS through every proxy in turn: keep-alive, 4 connections, 1 KiB answers."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from benchmarks import peers
from benchmarks.load import BODY, CONNECTIONS, Load, Upstream, run_load
from benchmarks.report import Table, median

_DIRECT = "direct (no proxy)"


def measure(*, rounds: int = 10, seconds: float = 2.0) -> Table:
    """Measure all proxies round by round, so that what the machine does meanwhile falls on all alike."""
    table = Table(
        title=f"Intercepted TLS, keep-alive, {CONNECTIONS} connections, {BODY} byte answers",
        columns=("proxy", "requests/s", "p50 µs", "p99 µs", "against ours"),
        notes=[
            f"Medians of {rounds} rounds of {seconds:g} s each; client and upstream share the machine.",
            "`bot-bottle proxy` writes its audit line before each request, as in every bottle.",
        ],
    )
    results: dict[str, list[Load]] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        upstream = stack.enter_context(Upstream(folder))
        running: dict[str, peers.Running] = {}
        for number, peer in enumerate(peers.ALL):
            absent[peer.name] = peer.absent()
            if not absent[peer.name]:
                own = folder / str(number)
                own.mkdir()
                running[peer.name] = stack.enter_context(peer.start(own, upstream))
        for _ in range(rounds):
            direct = run_load(port=upstream.port, proxy_port=None, ca_file=upstream.ca_file, seconds=seconds)
            results.setdefault(_DIRECT, []).append(direct)
            for peer_name, proxy in running.items():
                load = run_load(
                    port=upstream.port, proxy_port=proxy.port, ca_file=proxy.ca_file, seconds=seconds
                )
                results.setdefault(peer_name, []).append(load)
    ours = median([load.requests_per_second for load in results[peers.BotBottle.name]])
    for row in (_DIRECT, *absent):
        if row not in results:
            table.add(row, absent[row], "", "", "")
            continue
        rate = median([load.requests_per_second for load in results[row]])
        p50 = median([load.p50 for load in results[row]])
        p99 = median([load.p99 for load in results[row]])
        table.add(row, f"{rate:,.0f}", f"{p50:,.0f}", f"{p99:,.0f}", f"{rate / ours:.2f}")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    print(measure(rounds=arguments.rounds, seconds=arguments.seconds).markdown())
