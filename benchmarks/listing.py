"""`bot-bottle list` where there is nothing to list, the price of saying so, and where there is much."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Table, median
from bot_bottle import bottle_state, paths
from bot_bottle.audit import AuditLog

_STATES = 200


def measure(*, rounds: int = 10) -> list[Table]:
    """Measure it beside the interpreter's own start, and where there is much to list."""
    empty = Table(
        title="`bot-bottle list` on an empty state",
        columns=("command", "median ms", "min ms", "max ms"),
        notes=[f"Medians of {rounds} rounds, whole process wall time."],
    )
    full = Table(
        title=f"Listing {_STATES} kept bottles",
        columns=("command", "median ms", "min ms", "max ms", "bound ms"),
        notes=[f"Medians of {rounds} rounds, whole process wall time."],
    )
    program = str(Path(sys.executable).with_name("bot-bottle"))
    with tempfile.TemporaryDirectory() as home:
        commands = {"bot-bottle list": [program, "list"], "python -c pass": [sys.executable, "-c", "pass"]}
        for label, values in _walls(commands, home, rounds).items():
            empty.add(label, *_cells(values))
    with tempfile.TemporaryDirectory() as home:
        _keep(Path(home))
        words = (("list",), ("list", "--json"), ("list", "--all"), ("requests",), ("dashboard", "--once"))
        commands = {f"bot-bottle {' '.join(one)}": [program, *one] for one in words}
        for label, values in _walls(commands, home, rounds).items():
            full.add(label, *_cells(values), "300" if label.startswith("bot-bottle list") else "")
    return [empty, full]


def _keep(home: Path) -> None:
    """Make states as sessions leave them: metadata, a lock that nobody holds, a record."""
    os.environ["BOT_BOTTLE_HOME"] = str(home)
    for number in range(_STATES):
        identity = f"worker{number}-abcde"
        bottle_state.create_state(
            bottle_state.BottleMetadata(
                identity=identity,
                agent_name=f"worker{number}",
                bottle_name="bench",
                backend="bubblewrap",
                started_at=bottle_state.utc_now(),
                exit_code=1,
            )
        )
        with bottle_state.hold_lock(identity):
            bottle_state.mark_preserved(identity)
        log = AuditLog.open(paths.audit_path(identity))
        log.append("start", identity=identity, routes=0, pid=1)
        for place in range(20):
            log.append("request", decision="allow", method="GET", host="a.example", path=f"/{place}")
        log.close()
    del os.environ["BOT_BOTTLE_HOME"]


def _walls(commands: dict[str, list[str]], home: str, rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {label: [] for label in commands}
    env = {**os.environ, "BOT_BOTTLE_HOME": home}
    for number in range(rounds + 1):
        for label, argv in commands.items():
            start = time.perf_counter()
            subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
            if number:
                taken[label].append((time.perf_counter() - start) * 1000)
    return taken


def _cells(values: list[float]) -> tuple[str, str, str]:
    return f"{median(values):,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}"


if __name__ == "__main__":
    for table in measure():
        print(table.markdown())
