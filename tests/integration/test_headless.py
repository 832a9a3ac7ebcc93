"""Unattended sessions in real bottles: task from stdin, one object on stdout, ``--timeout``, SIGTERM."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.family import wait_until
from tests.support.outside import PACE, new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def declare(lab: Lab, name: str, script: str, more: str = "") -> None:
    argv = json.dumps(["/bin/sh", "-c", script])
    lab.declare(
        name,
        f"agent_provider: {{template: command, argv: {argv}}}\n"
        f"egress: {{routes: [{{host: allowed.test, methods: [GET]}}{more}]}}\n",
    )


def test_a_task_from_stdin_and_one_object_at_the_end(lab: Lab) -> None:
    marker = new_marker("headless")
    script = (
        'cat "$BOT_BOTTLE_PROMPT_FILE"; curl -s -o /dev/null https://allowed.test/; '
        "curl -s -o /dev/null https://elsewhere.test/; "
        "curl -s -o /dev/null https://second.test/refused; exit 3"
    )
    token = new_marker("ended-token")
    auth = "auth: {scheme: Bearer, token_ref: ENDED_TOKEN}"
    declare(lab, "headless", script, f", {{host: second.test, {auth}}}")
    arguments = ("start", "headless", "--yes", "--headless", "--prompt", "-", "--json")
    run = lab.cli(
        *arguments, stdin=f"Do it, {marker}.\n".encode(), env={"ENDED_TOKEN": token}, timeout=120 * PACE
    )
    assert run.returncode == 3, run.out + run.err
    result = json.loads(run.out)
    assert f"Do it, {marker}." in run.err
    assert (result["exit_code"], result["ended_by"]) == (3, "agent")
    assert result["decisions"] == {"allowed": 2, "denied": 1, "failed": 0}
    (refused,) = result["refused_credentials"]
    assert (refused["host"], refused["credential"], refused["count"]) == ("second.test", "ENDED_TOKEN", 1)
    assert "second.test refused the credential ENDED_TOKEN (401) once" in run.err
    assert token not in run.err + run.out
    assert result["denials"] == [{"host": "elsewhere.test", "reason": "host_not_allowed", "count": 1}]
    assert [state["identity"] for state in lab.states("headless")] == [result["identity"]]
    ended = lab.cli("logs", result["identity"], "--event", "session", "--json").json()
    assert (ended["state"], ended["exit_code"]) == ("ended", 3)
    assert lab.cli("cleanup", result["identity"], "--yes").returncode == 0


def test_what_else_is_on_stdin_is_not_the_agents(lab: Lab) -> None:
    declare(lab, "loop", "wc -c")
    command = ("start", "loop", "--yes", "--headless", "--prompt", "one")
    run = lab.cli(*command, stdin=b"the next task\n", timeout=120 * PACE)
    assert (run.returncode, run.out.strip()) == (0, "0"), run.out + run.err


def test_when_time_is_up_everything_in_the_bottle_ends(lab: Lab) -> None:
    declare(lab, "slow", "echo begun > begun; sleep 1000 & sleep 1000")
    run = lab.cli("start", "slow", "--yes", "--headless", "--timeout", "2s", "--json", timeout=120 * PACE)
    assert run.returncode == 124, run.out + run.err
    result = json.loads(run.out)
    assert (result["ended_by"], result["preserved"]) == ("timeout", True)
    (state,) = lab.states("slow")
    assert (state["status"], state["exit_code"]) == ("preserved", 124)
    verified = lab.cli("audit", "verify", result["identity"])
    assert verified.returncode == 0, verified.out
    assert lab.cli("cleanup", result["identity"], "--yes").returncode == 0


def test_sigterm_ends_a_headless_run_in_order(lab: Lab) -> None:
    declare(lab, "ended", "echo it has be''gun >&2; sleep 1000")
    log = lab.user_home / "ended.log"
    log.touch()
    pid = lab.spawn("start", "ended", "--yes", "--headless", "--json", log=log)
    wait_until(lambda: "it has begun" in log.read_text(), "the agent to begin", seconds=60 * PACE)
    lab.world.call("kill", pid=pid, number=signal.SIGTERM)
    assert lab.world.call("wait", pid=pid, timeout=60 * PACE) == 143
    said = log.read_text()
    result = json.loads(said[said.index("\n{\n") : said.rindex("\n}") + 2])
    assert (result["exit_code"], result["ended_by"], result["preserved"]) == (143, "signal", True)
    (state,) = lab.states("ended")
    assert state["status"] == "preserved"
    verified = lab.cli("audit", "verify", result["identity"])
    assert verified.returncode == 0, verified.out
    assert lab.cli("cleanup", result["identity"], "--yes").returncode == 0
