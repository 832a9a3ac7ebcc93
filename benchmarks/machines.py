"""How long a bottle in a microVM takes to start, beside the engine's own way to start the same image.

``python -m benchmarks machines`` runs this where machines boot, and otherwise in an emulated machine
(tests.tools.kvmbox), in which absolute times mean nothing: only how one side stands to the other does.

Both sides make a machine of one processor and 1 GiB from the same image, run ``true`` in it, and remove it;
they take turns, and the first turn of each is not counted. Then a workspace goes in: as our archive, and
through the engine's shared folder, from which it is copied inside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.report import Table
from bot_bottle.backend.base import BottleSpec
from bot_bottle.backend.launch import launch_bottle, settle
from bot_bottle.backend.prepare import prepare_plan
from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.backend.smolmachines import engine
from bot_bottle.backend.smolmachines.machine import Binding, Machine, MachineSettings
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import load_operator_config

_BACKEND = "smolmachines"
_ROUNDS = 3
_FILES, _FILE_BYTES = 1000, 16 << 10
_BOTTLE = """\
---
agent_provider: {template: command, argv: [/bin/true]}
egress: {routes: [{host: example.com}]}
limits: {memory: 1GiB, cpus: 1}
---
"""


def the_engines_own(image: str) -> tuple[float, float]:
    """Make a machine and run ``true``: seconds until it runs, seconds of the command."""
    began = time.perf_counter()
    with engine.engine_at_work("the engine's own machine could not be made") as smol:
        resources = smol.ResourceSpec(cpus=1, memory_mb=1024, network=False)
        config = smol.MachineConfig(image=image, persistent=True, resources=resources)
        machine = smol.Machine.create(config, engine.here())
        up = time.perf_counter()
        machine.exec(["/bin/sh", "-c", "true"], smol.ExecOptions(user="1000:1000"))
        done = time.perf_counter()
        machine.delete()
    return up - began, done - up


def ours(home: Path) -> tuple[float, float, float]:
    """Launch a bottle and run ``true``: seconds until it is yielded, of the command, of the engine alone."""
    spec = BottleSpec(manifest=Manifest.resolve(home), agent_name="bench", user_cwd=home, headless=True)
    create, spent = Machine.create, [0.0]

    def timed(settings: MachineSettings, binding: Binding | None) -> Machine:
        began = time.perf_counter()
        made = create(settings, binding)
        spent.append(time.perf_counter() - began)
        return made

    began = time.perf_counter()
    plan = prepare_plan(spec, get_bottle_backend(_BACKEND), load_operator_config())
    with mock.patch.object(Machine, "create", timed), launch_bottle(plan) as bottle:
        up = time.perf_counter()
        bottle.exec("true")
        done = time.perf_counter()
    settle(plan.identity, 0)
    return up - began, done - up, spent[-1]


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
    from tests.tools.kvmbox import Disk, run  # noqa: PLC0415

    command = [sys.executable, "-m", "benchmarks.machines", "--rounds", str(_ROUNDS)]
    with tempfile.TemporaryDirectory(prefix="bench-machines-") as out:
        told = Path(out, "result.json")
        if get_bottle_backend(_BACKEND).probe().level == "ok":
            command += ["--image", machine_image(), "--out", str(told)]
            subprocess.run(command, check=True)
        else:
            command += ["--image", "/mnt/image", "--out", "/mnt/kvmbox/result.json"]
            run(command, out=Path(out), disks=[Disk(image=machine_disk(), point="/mnt/image")])
        return _table(json.loads(told.read_text()))


def _table(result: dict[str, Any]) -> Table:
    table = Table(
        title="A bottle in a microVM beside the engine's own machine, the same image",
        columns=("what", "the engine's own s", "bot-bottle s", "ratio"),
    )
    for what, theirs, ours_ in result["rows"]:
        table.add(what, f"{theirs:.2f}", f"{ours_:.2f}", f"{ours_ / theirs:.2f}")
    table.notes.append(
        f"Medians of {result['rounds']} rounds in alternation, the workspace once. "
        "What the engine's own start leaves out: a sidecar with its CA and rules, the account, the filter, "
        "the trust in that CA."
    )
    if result["emulated"]:
        table.notes.append(
            "Taken in an emulated machine (QEMU without acceleration, some 20 times slower): "
            "absolute times mean nothing, and Python, which is ours alone, weighs more than where KVM boots."
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
        rounds = [(the_engines_own(chosen.image), ours(home)) for _ in range(chosen.rounds + 1)][1:]
        print(json.dumps(rounds), flush=True)  # the rest may still fail
        shared, archive = workspace(home, chosen.image)

    def median(side: int, place: int) -> float:
        return statistics.median(one[side][place] for one in rounds)

    size = _FILES * _FILE_BYTES >> 20
    result = {
        "emulated": bool(os.environ.get("BOT_BOTTLE_KVMBOX")),
        "rounds": chosen.rounds,
        "rows": [
            ["until a command can run", median(0, 0), median(1, 0)],
            ["of that, making the machine", median(0, 0), median(1, 2)],
            ["one command (true)", median(0, 1), median(1, 1)],
            ["both", median(0, 0) + median(0, 1), median(1, 0) + median(1, 1)],
            [f"{_FILES} files of {size} MiB go in (shared folder, archive)", shared, archive],
        ],
        "each": [[round(value, 2) for side in one for value in side] for one in rounds],
    }
    print(json.dumps(result, indent=2), flush=True)
    chosen.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
