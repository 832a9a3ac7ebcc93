"""How long a bottle in a microVM takes to start, beside the engine's own way to start the same image.

    python -m benchmarks.machines --image FOLDER [--rounds N]
    python -m tests.tools.kvmbox --disk IMAGE.ext4:/mnt/image -- .venv/bin/python -m benchmarks.machines \\
        --image /mnt/image

Both sides make a machine of one processor and 1 GiB from the same image, run ``true`` in it, and remove it;
they take turns, and the first turn of each is not counted. In an emulated machine (the second line) absolute
times mean nothing: only how one side stands to the other does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from bot_bottle.backend.base import BottleSpec
from bot_bottle.backend.launch import launch_bottle, settle
from bot_bottle.backend.prepare import prepare_plan
from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.backend.smolmachines import engine
from bot_bottle.manifest.model import Manifest
from bot_bottle.operator_config import load_operator_config

_BACKEND = "smolmachines"
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


def ours(home: Path) -> tuple[float, float]:
    """Launch a bottle and run ``true``: seconds until it is yielded, seconds of the command."""
    spec = BottleSpec(manifest=Manifest.resolve(home), agent_name="bench", user_cwd=home, headless=True)
    began = time.perf_counter()
    plan = prepare_plan(spec, get_bottle_backend(_BACKEND), load_operator_config())
    with launch_bottle(plan) as bottle:
        up = time.perf_counter()
        bottle.exec("true")
        done = time.perf_counter()
    settle(plan.identity, 0)
    return up - began, done - up


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.machines")
    parser.add_argument("--image", required=True)
    parser.add_argument("--rounds", type=int, default=5)
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
    theirs_up, ours_up = (statistics.median(one[side][0] for one in rounds) for side in (0, 1))
    result = {
        "emulated": bool(os.environ.get("BOT_BOTTLE_KVMBOX")),
        "rounds": chosen.rounds,
        "engine": {"start_s": round(theirs_up, 2), "command_s": _median(rounds, 0)},
        "bot-bottle": {"start_s": round(ours_up, 2), "command_s": _median(rounds, 1)},
        "start_ratio": round(ours_up / theirs_up, 3),
        "each": [[round(value, 2) for side in one for value in side] for one in rounds],
    }
    print(json.dumps(result, indent=2))


def _median(rounds: list[tuple[tuple[float, float], tuple[float, float]]], side: int) -> float:
    return round(statistics.median(one[side][1] for one in rounds), 2)


if __name__ == "__main__":
    main()
