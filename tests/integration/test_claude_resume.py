"""A killed session of the real Claude Code is kept without its credential, and ``resume`` goes on with it."""

from __future__ import annotations

import base64
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, Popen, run
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.registry import choose_backend
from bot_bottle.demo.authority import Authority
from bot_bottle.demo.messages_api import ScriptedModel
from bot_bottle.demo.upstreams import ScriptedServer
from bot_bottle.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

TOKEN = "sk-ant-oat01-MARKED-0c9f4e7d21b84a66-real-token"

#: What the scripted model makes the agent's shell tool do: wait until the test has killed the launcher.
TOOL = """
touch /home/agent/workspace/ready
while [ ! -e /home/agent/workspace/go-on ]; do sleep 0.05; done
"""


@pytest.fixture
def api() -> Iterator[tuple[ScriptedServer, Authority]]:
    authority = Authority("Scripted model")
    model = ScriptedModel(
        "I was refused, so I stop here.", tool="Bash", tool_input={"command": TOOL, "description": "look"}
    )
    with ScriptedServer("api", model, authority=authority, default_host="api.anthropic.com") as server:
        yield server, authority


@pytest.fixture
def operator(tmp_path: Path, api: tuple[ScriptedServer, Authority], claude: Path) -> dict[str, str]:
    """An operator's home with one bottle for the real program, and the environment to start it from."""
    try:
        choose_backend("", os.environ)
    except UnavailableError as error:
        pytest.skip(str(error))
    server, authority = api
    home = tmp_path / "operator"
    for folder in (home, home / "bottles", home / "agents"):
        folder.mkdir(mode=0o700)
    ca = tmp_path / "lab-ca.pem"
    ca.write_text(authority.pem)
    (home / "config.toml").write_text(
        f'[egress]\nupstream_ca = "{ca}"\n[pins]\n"api.anthropic.com" = "{server.address}"\n'
    )
    (home / "bottles" / "lab.md").write_text(
        "---\nagent_provider:\n  template: claude\n  auth_token: LAB_TOKEN\n---\n"
    )
    (home / "agents" / "worker.md").write_text("---\nbottle: lab\n---\nBe brief.\n")
    for path in home.rglob("*.*"):
        path.chmod(0o600)
    return {
        "PATH": f"{claude.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "BOT_BOTTLE_HOME": str(home),
        "LANG": "C.UTF-8",
        "LAB_TOKEN": TOKEN,
    }


def forms_of(value: str) -> tuple[bytes, ...]:
    raw = value.encode()
    return raw, base64.b64encode(raw)[:-4], raw.hex().encode()


def holders(folder: Path, needles: tuple[bytes, ...]) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            found += [str(path.relative_to(folder)) for needle in needles if needle in data]
    return found


@contextmanager
def headless_start(operator: dict[str, str], cwd: Path, task: str) -> Iterator[tuple[Popen[bytes], Path]]:
    """Start the agent and give its launcher and its state folder; kill the launcher if the test fails."""
    states = Path(operator["BOT_BOTTLE_HOME"]) / "state"
    argv = [sys.executable, "-m", "bot_bottle", "start", "worker", "--yes", "--headless", "--prompt", task]
    with Popen(argv, env=operator, cwd=cwd, stdin=DEVNULL, stdout=PIPE, stderr=PIPE) as process:
        try:
            while not states.is_dir() or not list(states.iterdir()):
                assert process.poll() is None, process.communicate()
                time.sleep(0.01)
            (state,) = states.iterdir()
            wait_for(state / "workspace" / "ready", process)
            yield process, state
        finally:
            process.kill()


def wait_for(path: Path, process: Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            out, err = process.communicate(timeout=30) if process.poll() is not None else (b"", b"it hangs")
            pytest.fail(f"the agent never got to {path.name}:\n{out.decode()}\n{err.decode()}")
        time.sleep(0.02)


@pytest.mark.timeout(900)
def test_a_killed_session_is_kept_and_resume_continues_it(
    operator: dict[str, str], api: tuple[ScriptedServer, Authority], tmp_path: Path
) -> None:
    """``resume`` runs the program's own continue mode in the same home."""
    server, _ = api
    home = Path(operator["BOT_BOTTLE_HOME"])
    with headless_start(operator, tmp_path, "First task.") as (process, state):
        process.kill()
        process.communicate()
    assert [path.name for path in (home / "state").iterdir()] == [state.name]
    assert holders(state, forms_of(TOKEN)) == []
    (state / "workspace" / "go-on").touch()

    before = len(server.seen)
    task = ("--yes", "--headless", "--prompt", "Second task.")
    resumed = bot_bottle(operator, tmp_path, "resume", state.name, *task)
    assert resumed.returncode == 0, resumed.stderr.decode()
    later = [seen for seen in server.seen[before:] if seen.target.startswith("/v1/messages")]
    assert any(b"First task." in seen.body and b"Second task." in seen.body for seen in later)
    assert list((home / "state").iterdir()) == []


def bot_bottle(operator: dict[str, str], cwd: Path, *args: str) -> CompletedProcess[bytes]:
    argv = [sys.executable, "-m", "bot_bottle", *args]
    return run(argv, env=operator, cwd=cwd, stdin=DEVNULL, capture_output=True, check=False, timeout=180)
