"""How long a bottle in a microVM takes to start, beside the engine's own way to start the same image.

``python -m benchmarks machines`` runs this where machines boot, and otherwise in an emulated machine
(tests.tools.kvmbox), in which absolute times mean nothing: only how one side stands to the other does.

Both sides make a machine of one processor and 1 GiB from the same image, run ``true`` in it, and remove it;
they take turns, and the first turn of each is not counted. A third side is the engine's own with a network of
one address, as ours have. Then a workspace goes in: as our archive, and
through the engine's shared folder, from which it is copied inside.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.report import Table
from bot_bottle.backend.launch import launch_bottle, settle
from bot_bottle.backend.plan import BottleSpec
from bot_bottle.backend.prepare import prepare_plan
from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.backend.smolmachines import engine
from bot_bottle.backend.smolmachines.machine import Binding, Machine, MachineSettings
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import load_operator_config
from bot_bottle.sidecar.client import SidecarProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.sidecar.listeners import ListenerRole

_BACKEND = "smolmachines"
_ROUNDS = 3
_FILES, _FILE_BYTES = 1000, 16 << 10
_BESIDE = "both, less the sidecar's processor time"
_JOINED = "the same, the engine's own with a network of one address too"
_BOTTLE = """\
---
agent_provider: {template: command, argv: [/bin/true]}
egress: {routes: [{host: example.com}]}
limits: {memory: 1GiB, cpus: 1}
---
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Seconds: until a command can run, of that the engine's making of the machine, of one command; and the
    processor time of the launching process and of the sidecar until then.
    """

    until_up: float
    command: float
    making: float
    launcher: float
    sidecar: float = 0.0


def the_engines_own(image: str, *, joined: bool = False) -> Start:
    """Make a machine and run ``true``; a ``joined`` one has a network that leads to a port of this host."""
    began, launcher = time.perf_counter(), time.process_time()
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        engine.engine_at_work("the engine's own machine could not be made") as smol,
    ):
        reach = {"allow_hosts": ["x" * 64], "allow_cidrs": ["198.51.100.1/32"]}
        resources = smol.ResourceSpec(cpus=1, memory_mb=1024, **(reach if joined else {"network": False}))
        config = smol.MachineConfig(image=image, persistent=True, resources=resources)
        if joined:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            config.egress_interceptor = smol.EgressInterceptor(address, secrets.token_hex(32))
        machine = smol.Machine.create(config, engine.here())
        up, launcher = time.perf_counter(), time.process_time() - launcher
        machine.exec(["/bin/sh", "-c", "true"], smol.ExecOptions(user="1000:1000"))
        done = time.perf_counter()
        machine.delete()
    return Start(until_up=up - began, command=done - up, making=up - began, launcher=launcher)


def ours(home: Path) -> Start:
    """Launch a bottle, as ``start`` does once its modules are loaded, and run ``true``."""
    create, made_in, sidecars = Machine.create, [0.0], list[int]()
    give = SidecarProcess.give_listeners

    def timed(settings: MachineSettings, binding: Binding | None) -> Machine:
        began = time.perf_counter()
        made = create(settings, binding)
        made_in.append(time.perf_counter() - began)
        return made

    def noted(sidecar: SidecarProcess, listeners: Sequence[tuple[ListenerRole, socket.socket]]) -> None:
        sidecars.append(sidecar.pid)
        give(sidecar, listeners)

    began, launcher = time.perf_counter(), time.process_time()
    backend = get_bottle_backend(_BACKEND)
    backend.begin_ahead()
    spec = BottleSpec(manifest=Manifest.resolve(home), agent_name="bench", user_cwd=home, headless=True)
    plan = prepare_plan(spec, backend, load_operator_config())
    with (
        mock.patch.object(Machine, "create", timed),
        mock.patch.object(SidecarProcess, "give_listeners", noted),
        launch_bottle(plan, backend) as bottle,
    ):
        up, launcher = time.perf_counter(), time.process_time() - launcher
        sidecar = _processor_time(sidecars[-1])
        bottle.exec("true")
        done = time.perf_counter()
    settle(plan.identity, 0)
    return Start(
        until_up=up - began, command=done - up, making=made_in[-1], launcher=launcher, sidecar=sidecar
    )


def _processor_time(pid: int) -> float:
    """Give the seconds that a process has used so far (proc(5), "stat")."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def workspace(home: Path, image: str) -> tuple[float, float]:
    """Bring a folder in: seconds through the engine's shared folder, seconds as our archive."""
    folder = home / "work"
    for number in range(_FILES):
        path = folder / f"{number % 20}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(_FILE_BYTES))
    for path in (home, folder, *folder.rglob("*")):  # root's machines read as an account of their own
        path.chmod(0o755)
    with engine.engine_at_work("the engine's own machine could not be made") as smol:
        resources = smol.ResourceSpec(cpus=1, memory_mb=1024, network=False)
        mounts = [smol.MountSpec(str(folder), "/shared", read_only=True)]
        config = smol.MachineConfig(image=image, persistent=True, resources=resources, mounts=mounts)
        machine = smol.Machine.create(config, engine.here())
        began = time.perf_counter()
        done = machine.exec(["/bin/cp", "-a", "/shared", "/tmp/work"], smol.ExecOptions(timeout=600))
        shared = time.perf_counter() - began
        machine.delete()
    if done.exit_code != 0:
        raise RuntimeError(f"the shared folder could not be copied: {done.stderr}")
    spec = BottleSpec(manifest=Manifest.resolve(home), agent_name="bench", user_cwd=home, headless=True)
    plan = prepare_plan(spec, get_bottle_backend(_BACKEND), load_operator_config())
    with launch_bottle(plan) as bottle:
        began = time.perf_counter()
        bottle.cp_in(folder, "/home/agent/workspace/work")
        archive = time.perf_counter() - began
    settle(plan.identity, 0)
    return shared, archive


def measure() -> Table:
    """Measure where machines boot, here or in an emulated machine; raises what finding those parts raises."""
    from tests.support.machine_image import machine_disk, machine_image  # noqa: PLC0415
    from tests.tools.kvmbox import Disk, can_have_two, find_parts, run  # noqa: PLC0415

    command = [sys.executable, "-m", "benchmarks.machines", "--rounds", str(_ROUNDS)]
    with tempfile.TemporaryDirectory(prefix="bench-machines-") as out:
        told = Path(out, "result.json")
        if get_bottle_backend(_BACKEND).probe().level == "ok":
            command += ["--image", machine_image(), "--out", str(told)]
            subprocess.run(command, check=True)
        else:
            command += ["--image", "/mnt/image", "--out", "/mnt/kvmbox/result.json"]
            disk = Disk(image=machine_disk(), point="/mnt/image")
            run(command, out=Path(out), disks=[disk], processors=2 if can_have_two(find_parts()) else 1)
        return _table(json.loads(told.read_text()))


def _table(result: dict[str, Any]) -> Table:
    table = Table(
        title="A bottle in a microVM beside the engine's own machine, the same image",
        columns=("what", "the engine's own s", "bot-bottle s", "ratio"),
    )
    for what, theirs, ours_ in result["rows"]:
        table.add(what, f"{theirs:.2f}", f"{ours_:.2f}", f"{ours_ / theirs:.2f}" if theirs else "")
    table.notes.append(
        f"Medians of {result['rounds']} rounds in alternation, the workspace once. "
        "What the engine's own start leaves out: a sidecar with its CA and rules, the account, the filter, "
        "the trust in that CA."
    )
    if result["emulated"]:
        table.notes.append(
            "Taken in an emulated machine (QEMU without acceleration, some 20 times slower): "
            "absolute times mean nothing, its clock goes slower than ours, and Python, which is ours alone, "
            "weighs more than where KVM boots."
        )
    if result["processors"] == 1:
        table.notes.append(
            "The emulated machine has one processor, on which sidecar and machine come up in turn; "
            f'on two they do so at once, of which the row "{_BESIDE}" is the lower bound.'
        )
    return table


def main() -> None:
    """Measure here and write JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.machines")
    parser.add_argument("--image", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-machines-") as folder:
        home = Path(folder)
        os.environ["BOT_BOTTLE_HOME"] = str(home / ".bot-bottle")
        for name, text in (
            ("bottles/bench.md", _BOTTLE),
            ("agents/bench.md", "---\nbottle: bench\n---\n"),
            ("config.toml", f'[smolmachines]\nimage = "{chosen.image}"\n'),
        ):
            path = home / ".bot-bottle" / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o600)
        rounds = [
            (the_engines_own(chosen.image), ours(home), the_engines_own(chosen.image, joined=True))
            for _ in range(chosen.rounds + 1)
        ][1:]
        print(*rounds, sep="\n", flush=True)  # the rest may still fail
        shared, archive = workspace(home, chosen.image)

    def row(what: str, value: Callable[[Start], float]) -> list[str | float]:
        return [what, *(statistics.median(value(one[side]) for one in rounds) for side in (0, 1))]

    def beside(one: Start) -> float:
        return one.until_up + one.command - one.sidecar

    with_network = statistics.median(beside(one[2]) for one in rounds)
    size = _FILES * _FILE_BYTES >> 20
    result = {
        "emulated": bool(os.environ.get("BOT_BOTTLE_KVMBOX")),
        "processors": len(os.sched_getaffinity(0)),
        "rounds": chosen.rounds,
        "rows": [
            row("until a command can run", lambda one: one.until_up),
            row("of that, making the machine", lambda one: one.making),
            row("one command (true)", lambda one: one.command),
            row("both", lambda one: one.until_up + one.command),
            row("processor time of the launching process", lambda one: one.launcher),
            row("processor time of the sidecar", lambda one: one.sidecar),
            row(_BESIDE, beside),
            [_JOINED, with_network, statistics.median(beside(one[1]) for one in rounds)],
            [f"{_FILES} files of {size} MiB go in (shared folder, archive)", shared, archive],
        ],
        "each": [[asdict(side) for side in one] for one in rounds],
    }
    print(json.dumps(result, indent=2), flush=True)
    chosen.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
