"""``bot-bottle run``: several real bottles at a time, and nothing left of one that fails."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.family import wait_until
from tests.support.outside import PACE

if TYPE_CHECKING:
    from tests.support.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def declare(lab: Lab, name: str, script: str, more: str = "") -> None:
    argv = json.dumps(["/bin/sh", "-c", script])
    lab.declare(name, f"agent_provider: {{template: command, argv: {argv}}}\n{more}")


def test_agents_run_side_by_side_and_one_that_fails_ends_no_other(lab: Lab) -> None:
    declare(lab, "reads", 'cat "$BOT_BOTTLE_PROMPT_FILE"; curl -s -o /dev/null https://no.test/')
    declare(lab, "fails", "exit 7")
    declare(lab, "never", "exit 0", "env: {X: '${NOBODY_SET_THIS}'}\n")
    task = lab.user_home / "task.md"
    task.write_text("Do this, all of you.\n")
    lab.own()
    run = lab.cli(
        *("run", "reads", "fails", "never", "--headless", "--yes", "--json", "--prompt-file", str(task)),
        timeout=200 * PACE,
    )
    assert run.returncode == 1, run.out + run.err
    reads, fails, never = json.loads(run.out)
    assert (reads["exit_code"], reads["preserved"], reads["decisions"]["denied"]) == (0, False, 1)
    assert (fails["exit_code"], fails["preserved"]) == (7, True)
    assert never["exit_code"] == 2
    assert "NOBODY_SET_THIS" in never["error"]
    assert "Do this, all of you." in Path(reads["log"]).read_text()
    assert "AGENT" in run.err
    assert lab.states("reads") == lab.states("never") == []
    assert lab.cli("cleanup", fails["identity"], "--yes").returncode == 0
    assert lab.states("fails") == []


def test_sigterm_ends_all_of_them_in_order(lab: Lab) -> None:
    declare(lab, "one", "echo it has be''gun; sleep 1000")
    declare(lab, "two", "echo it has be''gun; sleep 1000")
    log = lab.user_home / "run.log"
    log.touch()
    pid = lab.spawn("run", "one", "two", "--headless", "--yes", "--prompt", "x", log=log)
    runs = lab.home / "runs"

    def begun() -> bool:
        texts = [path.read_text() for name in ("one", "two") for path in runs.glob(f"{name}-*.log")]
        return sum("it has begun" in text for text in texts) == 2

    wait_until(begun, "both to begin", seconds=90 * PACE)
    lab.world.call("kill", pid=pid, number=signal.SIGTERM)
    assert lab.world.call("wait", pid=pid, timeout=90 * PACE) == 143
    states = [*lab.states("one"), *lab.states("two")]
    assert [state["status"] for state in states] == ["preserved", "preserved"]
    for state in states:
        assert lab.cli("audit", "verify", state["identity"]).returncode == 0
        assert lab.cli("cleanup", state["identity"], "--yes").returncode == 0
