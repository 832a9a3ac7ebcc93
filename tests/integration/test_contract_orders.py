"""What the operator may do to a bottle that runs, on every backend: look on, change, cut off, end, remove."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.family import Family, containers, wait_until

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle

pytestmark = pytest.mark.integration

BOTTLE = (
    "agent_provider: {template: command, argv: [/bin/true]}\n"
    "env: {MARK: one}\n"
    "limits: {pids: 200}\n"
    "egress: {routes: [{host: allowed.test}, {host: second.test, path_allowlist: [/a/]}]}\n"
)
STATUS = "curl -sS -o /dev/null -m 10 -w '%{http_code}' "
TOKEN = "marked-applied-credential-77f0"


def status_of(running: RunningBottle, url: str) -> str:
    return running.sh(STATUS + url).out


def reason_of(running: RunningBottle, url: str) -> str:
    return str(running.sh(f"curl -sS -m 10 {url}").json()["reason"])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


def test_a_running_bottle_is_looked_on_changed_and_cut_off(lab: Lab) -> None:
    lab.declare("ordered", BOTTLE)
    with lab.launch("ordered") as running:
        identity = running.identity
        assert status_of(running, "https://allowed.test/seen") == "200"
        assert status_of(running, "https://elsewhere.test/") == "403"

        # Looked on: the record by its filters, the routes with their counts.
        wait_until(lambda: bool(running.decisions("elsewhere.test")), "the denial is on record")
        logged = [json.loads(line) for line in lab.cli("logs", identity, "--json").out.splitlines()]
        assert logged == running.audit()[: len(logged)]
        denied = lab.cli("logs", identity, "--denied", "--since", "1h")
        assert "elsewhere.test" in denied.out
        assert "allowed.test" not in denied.out
        assert lab.cli("logs", identity, "--host", "*.nowhere").out == ""
        info = lab.cli("info", identity, "--json").json()
        counted = {one["host"]: one["counters"] for one in info["sidecar"]["routes"]}
        assert counted["allowed.test"]["requests"] == 1
        assert info["sidecar"]["elsewhere"]["counters"]["denied"] == 1
        assert "allowed.test" in lab.cli("info", identity).out

        # Changed: what can be is, what cannot is named.
        unchanged = lab.cli("apply", identity, "--yes", "--json").json()
        assert (unchanged["applied"], unchanged["restart"]) == (False, [])
        changed = BOTTLE.replace("MARK: one", "MARK: two").replace("200", "300")
        lab.declare("ordered", changed.replace("{host: allowed.test}", "{host: third.test}"))
        shown = lab.cli("apply", identity, "--dry-run")
        assert shown.returncode == 0, shown.err
        assert "- allowed.test" in shown.out
        assert "+ third.test" in shown.out
        assert status_of(running, "https://allowed.test/") == "200"
        applied = lab.cli("apply", identity, "--yes", "--json").json()
        assert applied["restart"] == ["env.MARK: changed", "limits.pids: 200 -> 300"]
        assert reason_of(running, "https://allowed.test/") == "host_not_allowed"
        assert status_of(running, "https://third.test/") == "200"

        # A new credential is the operator's variable of this moment, and shown nowhere.
        auth = "{host: second.test, auth: {scheme: Bearer, token_ref: LATE_TOKEN}}"
        lab.declare("ordered", changed.replace("{host: second.test, path_allowlist: [/a/]}", auth))
        unset = lab.cli("apply", identity, "--yes")
        assert unset.returncode == 2
        assert "LATE_TOKEN" in unset.err
        late = lab.cli("apply", identity, "--yes", env={"LATE_TOKEN": TOKEN})
        assert "credential LATE_TOKEN" in late.out, late.err
        assert status_of(running, "https://second.test/late") == "200"
        seen = [one for one in lab.world.records().requests if one.target == "/late"]
        assert f"Bearer {TOKEN}" in json.dumps(seen[-1].headers)
        assert TOKEN not in json.dumps(running.audit()) + late.out + late.err
        again = lab.cli("apply", identity, "--yes", "--json").json()  # held already: no variable is needed
        assert (again["applied"], again["new_credentials"]) == (False, [])

        # Cut off, and let go on.
        cut = lab.cli("panic", identity, "--no-freeze", "--json").json()
        assert [(one["identity"], one["trouble"]) for one in cut] == [(identity, "")]
        assert reason_of(running, "https://second.test/") == "panic"
        assert "panic" in lab.cli("info", identity).out
        assert [one["cut_off"] for one in lab.states("ordered")] == [True]
        rows = lab.cli("list").out.splitlines()  # as wide as the longest identity of what else is there
        assert [one.removeprefix(identity).split()[:2] for one in rows if one.startswith(identity)] == [
            ["cut", "off"]
        ]
        assert lab.cli("panic", identity, "--lift").returncode == 0
        assert status_of(running, "https://second.test/") == "200"
        assert [one["cut_off"] for one in lab.states("ordered")] == [False]
    listed = {one["identity"]: one for one in lab.cli("list", "--all", "--json").json()}
    assert (listed[identity]["status"], listed[identity]["agent"]) == ("ended", "ordered")
    assert identity not in {one["identity"] for one in lab.cli("list", "--json").json()}
    assert "third.test" in lab.cli("logs", identity).out
    assert lab.cli("apply", identity, "--yes").returncode == 2


def test_a_panic_holds_the_agent_still(lab: Lab) -> None:
    lab.declare("still", BOTTLE)
    with lab.launch("still") as running:
        running.sh("(while :; do echo x >> ~/ticks; (sleep 0.02); done) > /dev/null 2>&1 &")
        frozen = lab.cli("panic", running.identity, "--json").json()[0]["frozen"]
        assert frozen is True
        if lab.backend == "docker":
            assert [one["State"] for one in containers(lab, running.identity, "agent")] == ["paused"]
        if lab.backend == "bubblewrap":
            with Family(lab, running.launcher_pid, running.identity) as family:
                status = [Path(f"/proc/{pid}/status").read_text() for pid in family.pids]
            numbers = [one.partition("NSpid:")[2].partition("\n")[0].split() for one in status]
            # PID 1 is our own, and has to hear its launcher's end.
            inside = [
                one for one, seen in zip(status, numbers, strict=True) if len(seen) > 1 and seen[-1] != "1"
            ]
            assert len(inside) > 1
            assert {one.partition("State:")[2].split()[0] for one in inside} <= {"T", "Z"}
        assert lab.cli("panic", running.identity, "--lift").returncode == 0
        before = running.sh("wc -l < ~/ticks").out
        wait_until(lambda: running.sh("wc -l < ~/ticks").out != before, "the agent goes on")
        assert status_of(running, "https://allowed.test/") == "200"
        lab.cli("panic", running.identity)
    # A session whose agent is held still ends like any other.
    assert lab.states("still") == []


def test_logs_follow_until_the_bottle_ends_or_the_reader_does(lab: Lab) -> None:
    lab.declare("followed", BOTTLE)
    log, cut = (lab.user_home / name for name in ("followed.log", "cut.log"))
    with lab.launch("followed") as running:
        identity = running.identity
        reader = lab.spawn("logs", identity, "-f", "--json", log=log)
        other = lab.spawn("logs", identity, "-f", "--json", "--host", "allowed.test", log=cut)
        assert status_of(running, "https://allowed.test/first") == "200"
        wait_until(
            lambda: "/first" in log.read_text() and "/first" in cut.read_text(), "both readers hear it"
        )
        lab.world.call("kill", pid=other, number=signal.SIGINT)
        assert lab.world.call("wait", pid=other, timeout=30) == 130
        assert {one["host"] for one in lines(cut)} == {"allowed.test"}
        assert "Traceback" not in cut.read_text()
        assert status_of(running, "https://allowed.test/last") == "200"
    assert lab.world.call("wait", pid=reader, timeout=30) == 0
    assert lines(log) == [json.loads(line) for line in running.audit_path.read_text().splitlines()]
    assert lines(log)[-1]["event"] == "end"


def test_who_follows_a_bottle_whose_sidecar_dies_is_told(lab: Lab) -> None:
    lab.declare("deserted", BOTTLE)
    log = lab.user_home / "deserted.log"
    running = lab.launch("deserted")
    try:
        reader = lab.spawn("logs", running.identity, "-f", log=log)
        assert status_of(running, "https://allowed.test/before") == "200"
        wait_until(lambda: "/before" in log.read_text(), "the reader hears")
        with Family(lab, running.launcher_pid, running.identity) as family:
            os.kill(family.sidecar(), signal.SIGKILL)
        assert lab.world.call("wait", pid=reader, timeout=60) == 4
        assert "the sidecar of" in log.read_text()
        assert "bot-bottle stop" in log.read_text()
    finally:
        running.close(exit_code=1)


def test_stop_ends_a_session_and_rm_removes_what_it_left(lab: Lab) -> None:
    argv = json.dumps(["/bin/sh", "-c", "echo begun > note; exec sleep 600"])
    lab.declare("stopped", f"agent_provider: {{template: command, argv: {argv}}}\n")
    log = lab.user_home / "stopped.log"
    starter = lab.spawn("start", "stopped", "--yes", "--headless", log=log)
    wait_until(lambda: [one["status"] for one in lab.states("stopped")] == ["running"], "it runs")
    (state,) = lab.states("stopped")
    identity = state["identity"]
    wait_until(lambda: "CA SHA-256" in log.read_text(), "it is up")
    refused = lab.cli("rm", identity, "--yes")
    assert (refused.returncode, "is running" in refused.err) == (2, True)
    stopped = lab.cli("stop", identity)
    assert stopped.returncode == 0, stopped.err + log.read_text()
    assert lab.world.call("wait", pid=starter, timeout=30) == 128 + signal.SIGTERM
    assert f"bot-bottle resume {identity}" in stopped.out
    assert lab.cli("stop", identity).returncode == 2
    assert [one["status"] for one in lab.states("stopped")] == ["preserved"]
    removed = lab.cli("rm", identity, "--yes")
    assert removed.returncode == 0, removed.err
    assert lab.states("stopped") == []
    verified = lab.cli("audit", "verify", identity)
    assert verified.returncode == 0, verified.out
