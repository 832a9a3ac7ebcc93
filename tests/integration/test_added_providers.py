"""The example providers, with the real programs from their registries, in real bottles."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import cannot
from tests.support.npm import installed
from tests.support.outside import download_cache, new_marker
from tests.support.watch import Watch

if TYPE_CHECKING:
    from bot_bottle.demo.upstreams import Seen
    from tests.support.lab import Lab
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples" / "providers"
#: Without a model's name it first asks another model which one to take, and for a minute and a half does not
#: believe that the scripted answer is none.
_SETTINGS = {"gemini": "env: {GEMINI_MODEL: gemini-2.5-pro}\n"}


def run_example(lab: Lab, world: World, name: str, program: Path, variable: str, key: str) -> list[Seen]:
    """Add an example to the operator's providers as its reader would, and run one task with the real program.

    Gives the requests that carried the task. The key must not have been anywhere on this host meanwhile.
    """
    if lab.engine_host or lab.machine_image:
        pytest.skip("here programs come in images, and an example's is in none")
    target = lab.home / "providers" / name
    if not target.exists():
        shutil.copytree(EXAMPLES / name, target)
        for path in (target.parent, target, *target.iterdir()):
            path.chmod(0o700 if path.is_dir() else 0o600)
    settings = f"agent_provider: {{template: {name}}}\n{_SETTINGS.get(name, '')}"
    lab.declare(name, settings, prompt="Be brief.")
    task, answer = new_marker("task"), new_marker("answer")
    world.call("model", final_text=answer)
    env = {"PATH": f"{program.parent}{os.pathsep}{lab.env['PATH']}", variable: key}
    argv = ("start", name, "--yes", "--headless", "--json", "--prompt", f"Say it: {task}")
    with Watch(key, lab.home) as watch:
        run = lab.cli(*argv, env=env, timeout=240)
    assert run.returncode == 0, run.out + run.err
    assert answer in run.err
    tokens = json.loads(run.out)["tokens"]
    assert tokens["answers"] >= 1
    assert all(one["input_tokens"] >= 11 and one["output_tokens"] >= 5 for one in tokens["models"])
    assert all("scripted" in one["model"] or name == "opencode" for one in tokens["models"])
    assert watch.found == set()
    asked = [seen for seen in world.records().requests if task.encode() in seen.body]
    assert any(b"Be brief." in seen.body for seen in asked)
    assert not any(key.encode() in seen.body for seen in asked)
    return asked


def test_opencode(lab: Lab, world: World) -> None:
    key = f"sk-ant-api03-{secrets.token_hex(24)}"
    asked = run_example(
        lab, world, "opencode", installed("opencode-ai", "opencode"), "ANTHROPIC_API_KEY", key
    )
    assert all(seen.values("x-api-key") == [key] for seen in asked)


def test_gemini(lab: Lab, world: World) -> None:
    key = f"AIza{secrets.token_hex(17)}"
    asked = run_example(
        lab, world, "gemini", installed("@google/gemini-cli", "gemini"), "GEMINI_API_KEY", key
    )
    assert all(seen.values("x-goog-api-key") == [key] for seen in asked)


def test_aider(lab: Lab, world: World) -> None:
    key = f"sk-{secrets.token_hex(24)}"
    program = download_cache() / "aider" / "venv" / "bin" / "aider"
    if not program.exists():
        cannot(
            "aider is not in the cache of downloads: python -m venv CACHE/aider/venv, pip install aider-chat"
        )
    asked = run_example(lab, world, "aider", program, "OPENAI_API_KEY", key)
    assert all(seen.values("authorization") == [f"Bearer {key}"] for seen in asked)
