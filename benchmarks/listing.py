"""`bot-bottle list` where there is nothing to list: the price of saying so."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Table, median


def measure(*, rounds: int = 10) -> Table:
    """Measure it beside the interpreter's own start."""
    table = Table(
        title="`bot-bottle list` on an empty state",
        columns=("command", "median ms", "min ms", "max ms"),
        notes=[f"Medians of {rounds} rounds, whole process wall time."],
    )
    commands = {
        "bot-bottle list": [str(Path(sys.executable).with_name("bot-bottle")), "list"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    taken: dict[str, list[float]] = {label: [] for label in commands}
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "BOT_BOTTLE_HOME": home}
        for number in range(rounds + 1):
            for label, argv in commands.items():
                start = time.perf_counter()
                subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=True)
                if number:
                    taken[label].append((time.perf_counter() - start) * 1000)
    for label, values in taken.items():
        table.add(label, f"{median(values):,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}")
    return table


if __name__ == "__main__":
    print(measure().markdown())
