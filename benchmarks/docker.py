"""Bottles in containers beside ``docker run`` and ``docker compose up``: time, memory, and twenty at once.

The engine is the tests' own, in the scripted world, so nothing leaves this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.compose import NoComposeError, client_config, sessions
from benchmarks.memory import descendants, sizes_of
from benchmarks.report import Table, median
from tests.support.engine import BASE_IMAGE, GVISOR, Engine, NoEngineError, engine_api, gvisor_trouble
from tests.support.outside import World

_LABEL = "bot-bottle.identity"
_AT_ONCE = 20
_AGENTS = {
    "bench": '["/bin/true"]',
    "idle": '["/bin/sh", "-c", "echo ready; read -r line"]',
    "works": '["/bin/sh", "-c", "curl -sS https://allowed.test/ && echo worked > ~/done && sleep 1"]',
}


class Bench:
    """An operator's home with its bottles, on an engine of its own."""

    def __init__(self, folder: Path, world: World, engine: Engine, runtime: str = "runc") -> None:
        self.folder = folder
        self.url = engine.url
        self._program = str(Path(sys.executable).with_name("bot-bottle"))
        self.env = {**os.environ, "BOT_BOTTLE_HOME": str(folder), "DOCKER_HOST": engine.url}
        self._write(
            "config.toml",
            f'backend = "docker"\n[egress]\nupstream_ca = "{world.ca_file}"\n'
            f'[docker]\nbase_image = "{BASE_IMAGE}"\nsidecar_base_image = "{BASE_IMAGE}"\n'
            f'runtime = "{runtime}"\n',
        )
        for name, argv in _AGENTS.items():
            self._write(
                f"bottles/{name}.md",
                f"---\nagent_provider: {{template: command, argv: {argv}}}\n"
                "egress: {routes: [{host: allowed.test}]}\n---\n",
            )
            self._write(f"agents/{name}.md", f"---\nbottle: {name}\n---\n")
        start = time.perf_counter()
        self.run([self._program, "build", "bench"])
        self.build_seconds = time.perf_counter() - start

    def start(self, agent: str) -> list[str]:
        """Give the command that runs one session of an agent."""
        return [self._program, "start", agent, "--yes", "--headless", "--prompt", "x"]

    def run(self, argv: list[str], **env: str) -> float:
        """Run a command; gives its wall time in milliseconds. Raises ``RuntimeError`` where it fails."""
        start = time.perf_counter()
        result = subprocess.run(
            argv, env={**self.env, **env}, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        elapsed = (time.perf_counter() - start) * 1000
        if result.returncode != 0:
            raise RuntimeError(f"{argv}: exit {result.returncode}: {result.stderr.decode()[-800:]}")
        return elapsed

    def image(self, name: str) -> str:
        """Give the image of ours whose repository is ``name``."""
        with engine_api(self.url) as api:
            (found,) = api.images(name)
        return str(found["RepoTags"][0])

    def left(self) -> list[str]:
        """Name what the engine still has of ours, images aside."""
        with engine_api(self.url) as api:
            filters = {"label": _LABEL}
            names = [one["Id"][:12] for one in api.containers(all=True, filters=filters)]
            names += [one["Name"] for one in api.volumes(filters=filters)["Volumes"] or []]
            names += [one["Name"] for one in api.networks(filters=filters)]
        return names

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)


def measure(*, rounds: int = 10) -> list[Table]:
    """Measure all three; where no engine can be run, one table that says why."""
    try:
        world = World()
    except RuntimeError as error:
        return [_absent(str(error))]
    with ExitStack() as stack:
        stack.callback(world.close)
        try:
            engine = Engine(world)
        except NoEngineError as error:
            return [_absent(str(error))]
        stack.callback(engine.close)
        bench = Bench(Path(stack.enter_context(tempfile.TemporaryDirectory())), world, engine)
        guarded = None
        if not (trouble := gvisor_trouble(engine.url)):
            home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            guarded = Bench(home, world, engine, GVISOR)
        tables = [_sessions(bench, guarded, rounds), _memory(bench, max(3, rounds // 3)), _twenty(bench)]
        if trouble:
            tables[0].notes.append(f"gVisor: {trouble}.")
        return tables


def _absent(reason: str) -> Table:
    return Table(title="Bottles in containers", columns=("what", "why not"), rows=[("all", reason)])


def _sessions(bench: Bench, guarded: Bench | None, rounds: int) -> Table:
    table = Table(
        title="Start to end of a session in a container that runs /bin/true",
        columns=("command", "median ms", "min ms", "max ms", "over docker run ms"),
        notes=[
            f"Medians of {rounds} rounds in alternation, whole process wall time, images built.",
            f"Building both images, once, took {bench.build_seconds:.0f} s.",
            "The compose file: the same two images, egress itself in the sidecar, an agent as closed as a",
            "file can say on a private network, three volumes (home, record, CA); it waits for the proxy.",
            "Two idle services: nothing listens, nobody waits, the agent has no network.",
        ],
    )
    agent, sidecar = bench.image("bot-bottle-agent"), bench.image("bot-bottle-sidecar")
    commands = {
        "bot-bottle start (docker)": [bench.start("bench")],
        "docker run --rm": [["docker", "run", "--rm", "--entrypoint", "/bin/true", agent]],
    }
    if guarded:
        commands["bot-bottle start (docker, gVisor)"] = [guarded.start("bench")]
        in_gvisor = [
            "docker",
            "run",
            "--rm",
            f"--runtime={GVISOR}",
            "--network=none",
            "--entrypoint",
            "/bin/true",
        ]
        commands["docker run --rm (gVisor)"] = [[*in_gvisor, agent]]
    config = ""
    try:
        config = client_config()
        commands |= sessions(bench.folder, agent=agent, sidecar=sidecar)
    except NoComposeError as error:
        table.notes.append(f"docker compose: {error}")
    env = {"DOCKER_CONFIG": config} if config else {}
    taken: dict[str, list[list[float]]] = {label: [] for label in commands}
    for number in range(rounds + 1):  # the first is not counted: every program has been read once by then
        for label, steps in commands.items():
            home = guarded if guarded and "start (docker, gVisor)" in label else bench
            times = [home.run(step, **env) for step in steps]
            if number:
                taken[label].append(times)
    base = median([sum(times) for times in taken["docker run --rm"]])
    for label, all_times in taken.items():
        values = [sum(times) for times in all_times]
        over = f"{median(values) - base:+,.0f}"
        table.add(label, f"{median(values):,.0f}", f"{min(values):,.0f}", f"{max(values):,.0f}", over)
    table.notes.append(f"Left on the engine afterwards: {', '.join(bench.left()) or 'nothing'}.")
    return table


def _memory(bench: Bench, rounds: int) -> Table:
    table = Table(
        title="Memory of an idle bottle in containers",
        columns=("process", "RSS MiB", "PSS MiB"),
        notes=[
            f"Medians of {rounds} bottles. Shims: containerd's, one a container. The engine is not counted."
        ],
    )
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        with subprocess.Popen(
            bench.start("idle"),
            env=bench.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as launcher:
            assert launcher.stdin is not None
            assert launcher.stdout is not None
            if launcher.stdout.readline() != b"ready\n":
                raise RuntimeError("the bottle did not come up; run `bot-bottle doctor`")
            for label, pids in _processes(bench, launcher.pid).items():
                sizes = [sizes_of(pid) for pid in pids]
                found.setdefault(label, []).append(
                    (sum(size[0] for size in sizes), sum(size[1] for size in sizes))
                )
            launcher.stdin.write(b"\n")
            launcher.stdin.close()
            launcher.stdout.read()
    for label, sizes in found.items():
        rss, pss = (median([size[index] for size in sizes]) for index in (0, 1))
        table.add(label, f"{rss:.1f}", f"{pss:.1f}")
    return table


def _processes(bench: Bench, launcher: int) -> dict[str, list[int]]:
    """Sort a launch's processes by what they are for."""
    found: dict[str, list[int]] = {"launcher": [launcher, *descendants(launcher)], "shims": []}
    with engine_api(bench.url) as api:
        for container in api.containers(filters={"label": _LABEL}):
            first = api.inspect_container(container["Id"])["State"]["Pid"]
            found.setdefault(container["Labels"]["bot-bottle.role"], []).extend([first, *descendants(first)])
            stat = Path(f"/proc/{first}/stat").read_text()
            found["shims"].append(int(stat.rpartition(")")[2].split()[1]))
    return found


def _twenty(bench: Bench) -> Table:
    table = Table(
        title=f"{_AT_ONCE} bottles in containers at once",
        columns=("what", "result"),
        notes=["Each starts, fetches a page over intercepted TLS, writes a file, waits a second and ends."],
    )
    start = time.perf_counter()
    launchers = [
        subprocess.Popen(
            bench.start("works"),
            env=bench.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(_AT_ONCE)
    ]
    most = 0
    while any(launcher.poll() is None for launcher in launchers):
        with engine_api(bench.url) as api:
            most = max(most, len(api.containers(filters={"label": f"{_LABEL}", "status": "running"})))
        time.sleep(0.2)
    elapsed = time.perf_counter() - start
    worked, words = 0, b""
    for launcher in launchers:
        out, err = launcher.communicate()
        if launcher.returncode == 0 and json.loads(out)["host"] == "allowed.test":
            worked += 1
        else:
            words = words or err
    table.add("worked and ended with code 0", f"{worked} of {_AT_ONCE}")
    table.add("seconds until all had ended", f"{elapsed:.1f}")
    table.add("most containers at one moment", str(most))
    table.add("left on the engine", ", ".join(bench.left()) or "nothing")
    if words:
        table.notes.append(f"The first that failed said: {words.decode(errors='replace').strip()[-300:]}")
    return table


if __name__ == "__main__":
    for result in measure():
        print(result.markdown())
