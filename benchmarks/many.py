"""Fifty bottles at once: how long each takes to start, what all keep in memory, what watching them costs."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.memory import descendants, sizes_of
from benchmarks.report import Table, median

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Waits without a sound until it is told to go, then asks for a host that it may not reach, once a second.
_AGENT = r"""
mkfifo ~/go; read -r _ < ~/go
exec 3<>/dev/tcp/127.0.0.1/9099
while :; do printf 'GET http://no.example/ HTTP/1.1\r\nHost: no.example\r\n\r\n' >&3
read -r -t 1 -N 65536 -u 3 _; done
"""
_LOOK_SECONDS = 10.0
_PATIENCE = 120.0
_NOTE = (
    "One run. A start is the whole of `start -d`, until the agent runs; memory is the PSS of launchers, "
    "sidecars, sandboxes and idle agents. The dashboard's work is its processor time (user and system) over "
    f"{_LOOK_SECONDS:g} s on a terminal of 100 columns and 33 rows; busy is one refused request a second in "
    "each bottle."
)


def measure(*, bottles: int = 50) -> Table:
    """Start them one after the other, look at them with the dashboard, idle and busy, and end them."""
    table = Table(
        title=f"{bottles} bubblewrap bottles at once",
        columns=("what", "number", "bound"),
        notes=[_NOTE, f"Load of the machine at the beginning: {os.getloadavg()[0]:.1f}."],
    )
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        agent = {"agent_provider": {"template": "command", "argv": ["/bin/bash", "-c", _AGENT]}}
        for folder, keys in (("bottles", agent), ("agents", {"bottle": "many"})):
            (home / folder).mkdir(mode=0o700)
            (home / folder / "many.md").write_text(f"---\n{json.dumps(keys)}\n---\n")
        try:
            _measure(table, home, bottles)
        finally:
            _run(home, "stop", "--all")
            _run(home, "cleanup", "--all", "--yes")
    return table


def _measure(table: Table, home: Path, bottles: int) -> None:
    starts = [_run(home, "start", "many", "--no-cwd", "--yes", "--detach") for _ in range(bottles)]
    tenth = max(1, bottles // 5)
    table.add("start, median ms", f"{median(starts):,.0f}", "")
    table.add(f"start, first {tenth} and last {tenth}, median ms", _both(starts[:tenth], starts[-tenth:]), "")
    table.add("start, longest ms", f"{max(starts):,.0f}", "")
    launchers = [int(lock.read_bytes()) for lock in home.glob("state/*/lock")]
    whole = sum(_pss(pid) for one in launchers for pid in (one, *descendants(one)))
    table.add("memory of all, MiB", f"{whole:,.0f}", "")
    table.add("memory of each, MiB", f"{whole / bottles:.0f}", "")
    table.add("`list`, median ms", f"{median([_run(home, 'list') for _ in range(5)]):,.0f}", "")
    once = [_run(home, "dashboard", "--once") for _ in range(3)]
    table.add("`dashboard --once`, median ms", f"{median(once):,.0f}", "")
    with _dashboard(home, f"{bottles} running") as pid:
        table.add("dashboard, nothing happens, ms of work a second", f"{_work(pid):.0f}", "100")
        for fifo in home.glob("state/*/home/go"):
            fifo.write_text("go\n")
        table.add("dashboard, all busy, ms of work a second", f"{_work(pid):.0f}", "100")
    table.add("`panic`, ms", f"{_run(home, 'panic'):,.0f}", "")
    table.add("`panic --lift`, ms", f"{_run(home, 'panic', '--lift'):,.0f}", "")
    table.add("`stop --all`, ms", f"{_run(home, 'stop', '--all'):,.0f}", "")


def _both(first: list[float], last: list[float]) -> str:
    return f"{median(first):,.0f} and {median(last):,.0f}"


def _pss(pid: int) -> float:
    with suppress(OSError):  # it has ended meanwhile
        return sizes_of(pid)[1]
    return 0.0


def _env(home: Path) -> dict[str, str]:
    return {**os.environ, "BOT_BOTTLE_HOME": str(home), "TERM": "xterm-256color"}


def _argv(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("bot-bottle")), *words]


def _run(home: Path, *words: str) -> float:
    """Run a command; gives its wall time in milliseconds."""
    start = time.perf_counter()
    done = subprocess.run(
        _argv(*words), env=_env(home), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"bot-bottle {' '.join(words)}: {done.stderr.decode(errors='replace')[-500:]}")
    return (time.perf_counter() - start) * 1000


@contextmanager
def _dashboard(home: Path, sign: str) -> Iterator[int]:
    """Run the dashboard on a terminal of its own until the body ends; it shows ``sign`` before that."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(_argv()[0], _argv("dashboard"), _env(home))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 100, 0, 0))
    shown, over = threading.Event(), threading.Event()

    def read() -> None:
        seen = b""
        while not over.is_set():
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    seen = (seen + os.read(terminal, 65536))[-100_000:]
                except OSError:
                    return
                if sign.encode() in seen:
                    shown.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        if not shown.wait(_PATIENCE):
            raise RuntimeError(f"the dashboard never showed {sign!r}")
        yield pid
    finally:
        os.write(terminal, b"q")
        os.waitpid(pid, 0)
        over.set()
        reader.join()
        os.close(terminal)


def _work(pid: int) -> float:
    """Give the processor time of a process over the next seconds, in milliseconds a second."""
    before, began = _ticks(pid), time.monotonic()
    time.sleep(_LOOK_SECONDS)
    return (_ticks(pid) - before) / os.sysconf("SC_CLK_TCK") * 1000 / (time.monotonic() - began)


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    print(measure(bottles=int(sys.argv[1]) if len(sys.argv) > 1 else 50).markdown())
