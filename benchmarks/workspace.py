"""A large project into a bottle by ``--cwd`` and gone again: 100,000 files, and 2 GB of repository."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Table, median

ROUNDS = 3
_MEMORY = Path("/dev/shm")
_NEEDED = 8 << 30

_COUNT = "find . -path ./.git -prune -o -type f -print | wc -l; git rev-list --count --all"
_BOTTLE = f"---\nagent_provider:\n  template: command\n  argv: [/bin/sh, -c, '{_COUNT}']\n---\n"
_GIT = (
    "git",
    "-c",
    "user.name=A",
    "-c",
    "user.email=a@git.test",
    "-c",
    "core.compression=0",
    "-c",
    "gc.auto=0",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Project:
    """``files`` of ``size`` bytes, committed once; ``packed`` as a clone has them."""

    title: str
    files: int
    size: int
    packed: bool


_PROJECTS = (
    _Project(
        title="100,000 files of 200 bytes, packed as a clone has them", files=100_000, size=200, packed=True
    ),
    _Project(
        title="the same, committed just now (100,000 loose objects)", files=100_000, size=200, packed=False
    ),
    _Project(title="2 GB: 256 files of 4 MB, and their pack", files=256, size=4_000_000, packed=True),
)


def measure() -> Table:
    """Time whole sessions beside ``git clone``, ``cp -a`` and ``rm -rf`` of the same folder."""
    names = ("start --cwd", "start", "git clone", "cp -a", "rm IDENTITY", "rm -rf")
    columns = ("project", *(f"{name} s" for name in names), "told progress")
    table = Table(title="A large project into a bottle (--cwd), and out of it", columns=columns)
    in_memory = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _NEEDED
    with tempfile.TemporaryDirectory(dir=_MEMORY if in_memory else None) as name:
        place = Path(name)
        for folder, text in (("bottles", _BOTTLE), ("agents", "---\nbottle: bench\n---\n")):
            (place / "home" / folder).mkdir(mode=0o700, parents=True)
            (place / "home" / folder / "bench.md").write_text(text)
        for project in _PROJECTS:
            here = place / "project"
            _make(project, here)
            taken: dict[str, list[float]] = {one: [] for one in names}
            told = [_round(taken, project, here) for _ in range(ROUNDS)]
            cells = [f"{median(taken[one]):,.2f}" for one in names]
            table.add(project.title, *cells, "yes" if all(told) else "no")
            shutil.rmtree(here)
    where = "a file system in memory" if in_memory else "this machine's disk"
    table.notes.append(
        f"Medians of {ROUNDS} rounds in alternation on {where}, whole process wall time on bubblewrap. "
        "Every session counted the files and the commits of its copy; its state was "
        "kept and then removed by `bot-bottle rm`, the copy of `cp -a` by `rm -rf`. Content is random: "
        "it cannot be packed. `git clone` is told to copy (`--no-hardlinks`)."
    )
    table.notes.append(
        "On ext4 all of these take several times as long while many files were removed in the last five "
        "minutes: it looks at every number freed since then before it gives a new file one."
    )
    return table


def _make(project: _Project, folder: Path) -> None:
    folder.mkdir()
    for number in range(project.files):
        below = folder / f"d{number % 100}"
        below.mkdir(exist_ok=True)
        (below / f"f{number}").write_bytes(os.urandom(project.size))
    steps = [["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all of it"]]
    if project.packed:
        steps.append(["-c", "pack.window=0", "repack", "-a", "-d", "-q"])
        steps.append(["prune-packed", "-q"])
    for arguments in steps:
        subprocess.run([*_GIT, *arguments], cwd=folder, check=True, capture_output=True)


def _round(taken: dict[str, list[float]], project: _Project, folder: Path) -> bool:
    """Measure each once; tells whether the session told how far it was, or was over before it had to."""
    program = str(Path(sys.executable).with_name("bot-bottle"))
    start = [program, "start", "bench", "--yes", "--headless", "--prompt", "x"]
    seconds, out, err = _run([*start, "--cwd", "--keep"], folder)
    if out.split() != [str(project.files), "1"]:
        raise RuntimeError(f"{project.title}: the bottle has {out.strip()}: {err[-500:]}")
    found = re.search(r"bench-[a-z0-9]{5}", err)
    if found is None:
        raise RuntimeError(f"the session did not tell its identity: {err[-500:]}")
    taken["start --cwd"].append(seconds)
    taken["rm IDENTITY"].append(_run([program, "rm", "--yes", found[0]], folder)[0])
    taken["start"].append(_run(start, folder)[0])
    copy = folder.with_name("copy")
    for name, argv in (("git clone", ["git", "clone", "-q", "--no-hardlinks"]), ("cp -a", ["cp", "-a"])):
        taken[name].append(_run([*argv, str(folder), str(copy)], folder)[0])
        removing = _run(["rm", "-rf", str(copy)], folder)[0]
    taken["rm -rf"].append(removing)
    return "copying:" in err or seconds < 4.0


def _run(argv: list[str], cwd: Path) -> tuple[float, str, str]:
    """Run a command whose stderr is a terminal; gives seconds, output and what it said there."""
    master, terminal = pty.openpty()
    began = time.perf_counter()
    child = subprocess.Popen(
        argv,
        cwd=cwd,
        env={**os.environ, "BOT_BOTTLE_HOME": str(cwd.with_name("home")), "TMPDIR": str(cwd.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    said = b""
    try:
        while piece := os.read(master, 65536):
            said += piece
    except OSError:
        pass  # EIO: nobody has the terminal any more
    out = child.communicate()[0]
    seconds = time.perf_counter() - began
    os.close(master)
    if child.returncode != 0:
        raise RuntimeError(f"{argv}: exit {child.returncode}: {said.decode()[-500:]}")
    return seconds, out.decode(), said.decode("utf-8", "replace")
