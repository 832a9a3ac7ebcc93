"""What an idle sidecar, and the whole of an idle bottle, keep in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import Table, median

# The agent says that it runs and waits for its standard input to end.
_BOTTLE = """---
agent_provider:
  template: command
  argv: [/bin/sh, -c, "echo ready; read -r line"]
egress:
  routes:
    - host: api.example.org
---
"""


def measure(*, rounds: int = 10) -> Table:
    """Start a bottle, read /proc/PID/smaps_rollup of each of its processes, end it; again and again."""
    table = Table(
        title="Memory of an idle bottle",
        columns=("process", "RSS MiB", "PSS MiB"),
        notes=[f"Medians of {rounds} bottles. PSS counts a page shared by N processes as 1/N."],
    )
    found: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for folder, text in (("bottles", _BOTTLE), ("agents", "---\nbottle: bench\n---\n")):
            (home / folder).mkdir(mode=0o700)
            (home / folder / "bench.md").write_text(text)
        for _ in range(rounds):
            for label, sizes in _one(home).items():
                found.setdefault(label, []).append(sizes)
    for label, sizes_of in found.items():
        rss, pss = (median([sizes[index] for sizes in sizes_of]) for index in (0, 1))
        table.add(label, f"{rss:.1f}", f"{pss:.1f}")
    return table


def _one(home: Path) -> dict[str, tuple[float, float]]:
    argv = [str(Path(sys.executable).with_name("bot-bottle")), "start", "bench", "--yes", "--headless"]
    argv += ["--prompt", "x"]
    env = {**os.environ, "BOT_BOTTLE_HOME": str(home)}
    with subprocess.Popen(
        argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == b"ready":
                break
        else:
            raise RuntimeError("the bottle did not come up; run `bot-bottle doctor`")
        sizes: dict[str, tuple[float, float]] = {}
        for pid in (process.pid, *descendants(process.pid)):
            label, size = _label(pid), sizes_of(pid)
            before = sizes.get(label, (0.0, 0.0))
            sizes[label] = (before[0] + size[0], before[1] + size[1])
        process.stdin.write(b"\n")
        process.stdin.close()
        process.stdout.read()
    return sizes


def descendants(pid: int) -> list[int]:
    """List every process below ``pid``."""
    found = []
    for task in Path("/proc", str(pid), "task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def _label(pid: int) -> str:
    command = Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    for part, label in (
        ("bot_bottle.sidecar", "sidecar"),
        ("start bench", "launcher"),
        ("init.py", "init and bwrap"),
        ("bwrap", "init and bwrap"),
    ):
        if part in command:
            return label
    return "agent"


def sizes_of(pid: int) -> tuple[float, float]:
    """Give a process's resident and proportional set size in MiB."""
    values = {}
    for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]:
        name, amount, *_ = line.split()
        values[name] = int(amount) / 1024
    return values["Rss:"], values["Pss:"]


if __name__ == "__main__":
    print(measure().markdown())
