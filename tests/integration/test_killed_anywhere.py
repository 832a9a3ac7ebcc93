"""The launcher killed at every step of launch and teardown: nothing of it lives on, is left, or is lost."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.family import containers, descendants, volumes
from tests.support.outside import PACE, REPO

if TYPE_CHECKING:
    from tests.support.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

_KILLED = 128 + 9
_AT_ONCE = 2
_LAUNCH, _BWRAP, _DOCKER = (
    "bot_bottle.backend.launch",
    "bot_bottle.backend.bubblewrap",
    "bot_bottle.backend.docker",
)
_SIDECAR, _STATE = "bot_bottle.sidecar.client", "bot_bottle.bottle_state"
_API = "docker.api"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where it is killed; ``kept`` says that the agent's work is there to go on with afterwards.

    ``code`` is the exit code of the agent that it gets to.
    """

    at: str
    kept: bool = False
    code: int = 0


# Before there is a bottle to keep anything of.
_STATE_MADE = (
    Step(at=f"before:1:{_STATE}:write_metadata"),
    Step(at=f"after:1:{_STATE}:create_state"),
    Step(at=f"after:1:{_STATE}:_take_lock"),
)
_COMING_UP = (
    Step(at=f"after:1:{_LAUNCH}:provision"),
    Step(at=f"before:1:{_STATE}:mark_preserved"),
)
_UP = (
    Step(at=f"after:1:{_STATE}:mark_preserved", kept=True),
    Step(at=f"before:1:{_LAUNCH}:settle", kept=True),
    Step(at=f"after:1:{_LAUNCH}:_note_end", kept=True, code=3),
)
# The agent ended well, and what is half removed is nothing to go on with.
_REMOVING = (
    Step(at=f"after:1:{_STATE}:clear_preserve_marker"),
    Step(at=f"before:1:{_STATE}:cleanup_state"),
    Step(at=f"after:1:{_STATE}:remove_tree"),
    Step(at=f"after:3:{_STATE}:remove_tree"),
)
STEPS = {
    "bubblewrap": (
        *_STATE_MADE,
        Step(at=f"after:1:{_SIDECAR}:SidecarProcess.start"),
        Step(at=f"after:1:{_BWRAP}.backend:prepare_folders"),
        Step(at=f"after:1:{_BWRAP}.backend:make_cgroup"),
        Step(at=f"after:1:{_BWRAP}.sandbox:fork_quietly"),
        # While bubblewrap itself is half way, and in the very moment in which it has said so.
        Step(at=f"before:1:{_BWRAP}.sandbox:_read_info"),
        Step(at=f"after:1:{_BWRAP}.sandbox:_read_info"),
        Step(at=f"after:1:{_BWRAP}.backend:start_sandbox"),
        Step(at=f"after:1:{_BWRAP}.netns:open_listeners"),
        Step(at=f"after:1:{_BWRAP}.sandbox:Sandbox.release"),
        Step(at=f"after:1:{_BWRAP}.backend:write_trust"),
        Step(at=f"after:1:{_SIDECAR}:SidecarProcess.give_listeners"),
        *_COMING_UP,
        *_UP,
        Step(at=f"before:1:{_BWRAP}.sandbox:Sandbox.stop", kept=True),
        Step(at=f"after:1:{_BWRAP}.sandbox:Sandbox.stop", kept=True),
        Step(at=f"after:1:{_BWRAP}.cgroup:Cgroup.remove", kept=True),
        Step(at=f"after:1:{_SIDECAR}:SidecarProcess.close", kept=True),
        *_REMOVING,
    ),
    "docker": (
        Step(at=f"after:1:{_DOCKER}.volumes:note_engine"),
        Step(at=f"after:1:{_API}.volume:VolumeApiMixin.create_volume"),
        Step(at=f"after:1:{_API}.container:ContainerApiMixin.create_container"),
        Step(at=f"after:2:{_API}.container:ContainerApiMixin.create_container"),
        Step(at=f"after:2:{_API}.container:ContainerApiMixin.start"),
        Step(at=f"before:1:{_STATE}:mark_preserved"),
        Step(at=f"after:1:{_STATE}:mark_preserved", kept=True),
        Step(at=f"after:1:{_DOCKER}.removal:remove_container", kept=True),
        Step(at=f"after:1:{_DOCKER}.sidecar:ContainerSidecar.close", kept=True),
        Step(at=f"before:1:{_DOCKER}.volumes:remove_home"),
    ),
}


def test_a_launcher_killed_at_any_step_leaves_nothing_and_loses_nothing(lab: Lab) -> None:
    steps = STEPS.get(lab.backend, ())
    if not steps:
        pytest.skip(
            "a microVM's steps are its engine's, which is tested for one kill in test_contract_life.py"
        )
    if os.getuid() == 0 and lab.backend == "bubblewrap" and lab.account.name != "root":
        pytest.skip(
            "root's bottles have all that an ordinary user's have, and control groups and accounts too"
        )
    agents = {f"killed{number:02}": step for number, step in enumerate(steps)}
    for agent, step in agents.items():
        script = f"[ -e been ] && exit 0; touch been; exit {step.code}"
        lab.declare(
            agent, f"agent_provider: {{template: command, argv: {json.dumps(['/bin/sh', '-c', script])}}}\n"
        )
    _kill_all(lab, agents)

    ours = _states(lab, agents)
    found = {agents[agent].at: state["status"] for agent, state in ours.items()}
    expected = {step.at: "preserved" if step.kept else "unfinished" for step in steps}
    # What was only just about to be made, or was as good as removed, may be gone altogether.
    assert found == {at: status for at, status in expected.items() if at in found}
    assert {at for at, status in expected.items() if status == "preserved"} <= found.keys()

    cleaned = lab.cli("cleanup", "--yes", timeout=120 * PACE)
    assert cleaned.returncode == 0, cleaned.err
    again = lab.cli("cleanup", "--yes")
    assert (again.returncode, "nothing to remove" in again.out) == (0, True), again.out
    left = _states(lab, agents).keys()
    assert left == {agent for agent, step in agents.items() if step.kept}
    for agent, state in ours.items():
        if agent not in left:
            assert (containers(lab, state["identity"]), volumes(lab, state["identity"])) == ([], [])
    for agent in left:
        identity = ours[agent]["identity"]
        resumed = lab.cli("resume", identity, "--yes", "--headless")
        assert resumed.returncode == 0, (agents[agent].at, resumed.err)
        verified = lab.cli("audit", "verify", identity)
        assert verified.returncode == 0, (agents[agent].at, verified.out)
    assert _states(lab, agents) == {}
    last = lab.cli("cleanup", "--yes")
    assert (last.returncode, "nothing to remove" in last.out) == (0, True), last.out


def _states(lab: Lab, agents: dict[str, Step]) -> dict[str, dict[str, Any]]:
    """Give the states that there are, by agent; one without a record yet has it in its name alone."""
    listed = ((str(state["identity"])[:-6], state) for state in lab.cli("list", "--json").json())
    return {agent: state for agent, state in listed if agent in agents}


def _kill_all(lab: Lab, agents: dict[str, Step]) -> None:
    """Launch each, a few at a time, and wait until each has been killed and nothing lives on below it."""
    waiting, running = list(agents), dict[str, int]()
    while waiting or running:
        while waiting and len(running) < _AT_ONCE:
            agent = waiting.pop(0)
            log = lab.user_home / f"{agent}.log"
            log.write_bytes(b"")
            lab.own()
            step = agents[agent].at
            running[agent] = lab.world.call(
                "spawn",
                argv=[
                    sys.executable,
                    "-m",
                    "tests.support.killed_at",
                    step,
                    "start",
                    agent,
                    "--yes",
                    "--headless",
                ],
                env={**lab.env, "PYTHONPATH": str(REPO)},
                cwd=str(REPO),
                uid=lab.account.uid,
                log=str(log),
            )
        agent, pid = next(iter(running.items()))
        del running[agent]
        code = lab.world.call("wait", pid=pid, timeout=180 * PACE)
        words = (lab.user_home / f"{agent}.log").read_text()
        alive = [_told(below) for below in descendants(pid)] if code is None else []
        assert code == _KILLED, f"{agents[agent].at}: ended with {code}; lives on: {alive}\n{words}"


def _told(pid: int) -> str:
    """Say what a process is and what it waits for; empty for one that has gone."""
    place = Path(f"/proc/{pid}")
    with contextlib.suppress(OSError):
        words = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return f"{pid} {words[:200]} ({(place / 'wchan').read_text()})"
    return ""
