"""The life of a bottle on every backend, for every account: what goes in, what stays, what is on record."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.support.family import Family, containers, descendants, is_machine, volumes, wait_until
from tests.support.lab import RaisedError
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = pytest.mark.integration

BOTTLE = (
    "agent_provider:\n  template: command\n  argv: [/bin/true]\negress: {routes: [{host: allowed.test}]}\n"
)

_QUESTION = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "request_capability", "arguments": {"text": "jq", "reason": "to read"}},
}
#: Asks the operator for something, and waits for the answer.
_ASK = (
    "curl -sS -m 60 -H 'Accept: application/json, text/event-stream' -H 'Content-Type: application/json' "
    f"-d '{json.dumps(_QUESTION)}' $BOT_BOTTLE_SUPERVISE_URL"
)


def declare_script(lab: Lab, name: str, script: str, extra: str = "") -> None:
    argv = json.dumps(["/bin/sh", "-c", script])
    lab.declare(name, f"agent_provider: {{template: command, argv: {argv}}}\n{extra}")


def family_of(lab: Lab, running: RunningBottle) -> Family:
    return Family(lab, running.launcher_pid, running.identity)


def assert_nothing_is_left(lab: Lab, agent: str, identity: str) -> None:
    """No state, no container, no volume: not even something for ``cleanup`` to find."""
    assert lab.states(agent) == []
    assert containers(lab, identity) == []
    assert volumes(lab, identity) == []
    cleaned = lab.cli("cleanup", "--yes")
    assert cleaned.returncode == 0, cleaned.err
    assert identity not in cleaned.out


def test_a_headless_session_passes_everything_on_and_leaves_nothing(lab: Lab) -> None:
    declare_script(lab, "whole", "echo out; echo err >&2; curl -sS -o /dev/null https://allowed.test/x")
    done = lab.cli("start", "whole", "--yes", "--headless")
    assert (done.returncode, done.out) == (0, "out\n"), done.err
    assert "err\n" in done.err
    (log,) = (lab.home / "audit").glob("whole-*.jsonl")
    verified = lab.cli("audit", "verify", log.stem)
    assert verified.returncode == 0, verified.out
    assert "ended cleanly" in verified.out
    assert_nothing_is_left(lab, "whole", log.stem)


def test_the_ca_that_the_bottle_trusts_is_told_by_its_fingerprint(lab: Lab) -> None:
    declare_script(lab, "trusting", 'cat "$NODE_EXTRA_CA_CERTS"')
    done = lab.cli("start", "trusting", "--yes", "--headless")
    assert done.returncode == 0, done.err
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(done.out)).hexdigest()
    assert re.findall(r"CA SHA-256 ([0-9a-f]{64})", done.err) == [fingerprint]


def test_list_shows_a_running_bottle_and_no_ended_one(lab: Lab) -> None:
    lab.declare("shown", BOTTLE)
    with lab.launch("shown") as running:
        (state,) = lab.states("shown")
        assert state == {**state, "identity": running.identity, "status": "running", "backend": lab.backend}
        active = lab.cli("list", "active", "--json").json()
        assert [one["backend"] for one in active if one["identity"] == running.identity] == [lab.backend]
        refused = lab.cli("cleanup", running.identity, "--yes")
        assert refused.returncode == 2
        assert "running" in refused.err
        assert running.sh("echo untouched").out == "untouched\n"
    assert lab.states("shown") == []


def test_work_is_kept_and_resume_goes_on_with_it(lab: Lab) -> None:
    script = "cat note 2>/dev/null && cat ~/dot && exit 0; echo kept > note; echo dot > ~/dot; exit 3"
    declare_script(lab, "goes-on", script)
    first = lab.cli("start", "goes-on", "--yes", "--headless")
    assert first.returncode == 3
    (state,) = lab.states("goes-on")
    assert (state["status"], state["exit_code"]) == ("preserved", 3)
    assert f"bot-bottle resume {state['identity']}" in first.err
    assert containers(lab, state["identity"]) == []
    second = lab.cli("resume", state["identity"], "--yes", "--headless")
    assert (second.returncode, second.out) == (0, "kept\ndot\n"), second.err
    verified = lab.cli("audit", "verify", state["identity"])
    assert verified.returncode == 0, verified.out
    assert_nothing_is_left(lab, "goes-on", state["identity"])


def test_a_kept_bottle_is_removed_only_when_named(lab: Lab) -> None:
    declare_script(lab, "named", "echo kept > note; exit 3")
    assert lab.cli("start", "named", "--yes", "--headless").returncode == 3
    (state,) = lab.states("named")
    identity = state["identity"]
    assert lab.cli("cleanup", "--yes").returncode == 0
    assert [one["identity"] for one in lab.states("named")] == [identity]
    removed = lab.cli("cleanup", identity, "--yes")
    assert removed.returncode == 0, removed.err
    assert_nothing_is_left(lab, "named", identity)
    again = lab.cli("cleanup", identity, "--yes")
    assert again.returncode == 2


def test_what_is_kept_follows_no_link_and_keeps_closed_folders(lab: Lab) -> None:
    lab.declare("comes-back", BOTTLE)
    first = lab.launch("comes-back")
    first.sh("echo kept > ~/note; ln -s /etc/passwd ~/.bot-bottle; ln -s / link; mkdir -m 000 ~/closed")
    assert first.sh("chmod 0 ~/workspace ~").returncode == 0
    first.close(exit_code=3)
    with lab.launch("comes-back", identity=first.identity) as second:
        found = second.sh("cat ~/note; readlink link; touch ~/note ~/workspace/new && stat -c %a ~/closed")
        assert found.out == "kept\n/\n0\n", found.err


def test_the_working_folder_comes_in_as_a_copy(lab: Lab) -> None:
    declare_script(lab, "copied", "cat note; echo changed > note; ls -A")
    (lab.project / "note").write_text("the operator's\n")
    lab.own()
    try:
        done = lab.cli("start", "copied", "--yes", "--headless", "--cwd")
        assert done.returncode == 0, done.err
        assert done.out.startswith("the operator's\n")
        assert (lab.project / "note").read_text() == "the operator's\n"
        without = lab.cli("start", "copied", "--yes", "--headless", "--no-cwd")
        assert without.out == "note\n", without.err
    finally:
        (lab.project / "note").unlink()


def test_every_decision_is_on_record_when_its_answer_is_there(lab: Lab, world: World) -> None:
    lab.declare("recorded", BOTTLE)
    with lab.launch("recorded") as running:
        for _ in range(5):
            allowed, denied = new_marker("on-record"), new_marker("on-record")
            running.sh(f"curl -sS -m 5 https://allowed.test/{allowed} https://{denied}.evil.test/")
            assert world.reached(allowed)
            assert [line["decision"] for line in running.decisions(f"/{allowed}")] == ["allow"]
            assert [line["reason"] for line in running.denied(denied)] == ["host_not_allowed"]
        verified = lab.cli("audit", "verify", running.identity)
        assert (verified.returncode, "still open" in verified.out) == (0, True), verified.out
    ended = lab.cli("audit", "verify", running.identity)
    assert ended.returncode == 0, ended.out
    sequence = [line["seq"] for line in running.audit()]
    assert sequence == list(range(sequence[0], sequence[0] + len(sequence)))


def test_a_closed_bottle_says_so_and_leaves_nothing(lab: Lab) -> None:
    lab.declare("closed", BOTTLE)
    running = lab.launch("closed")
    with family_of(lab, running) as family:
        running.close_bottle()
        running.close_bottle()
        with pytest.raises(RaisedError, match=r"LaunchError.*closed"):
            running.sh("true")
        running.close()
        family.wait_until_gone()
    assert_nothing_is_left(lab, "closed", running.identity)


def test_an_exception_in_the_session_takes_everything_down_and_keeps_the_work(lab: Lab) -> None:
    lab.declare("broken-off", BOTTLE)
    running = lab.launch("broken-off")
    running.sh("echo kept > ~/note; sleep 1000 >/dev/null 2>&1 &")
    with family_of(lab, running) as family:
        running.interrupt()
        family.wait_until_gone()
    assert [one["status"] for one in lab.states("broken-off")] == ["preserved"]
    with lab.launch("broken-off", identity=running.identity) as resumed:
        assert resumed.sh("cat ~/note").out == "kept\n"


def test_an_orderly_end_ends_what_the_agent_left_running(lab: Lab) -> None:
    lab.declare("orderly", BOTTLE)
    running = lab.launch("orderly")
    running.sh("sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & echo started")
    with family_of(lab, running) as family:
        running.close()
        family.wait_until_gone()
    assert_nothing_is_left(lab, "orderly", running.identity)


def test_a_killed_launcher_leaves_nothing_running_and_keeps_work_and_record(lab: Lab, world: World) -> None:
    lab.declare("killed", f"{BOTTLE}supervise: {str(not lab.machine_image).lower()}\n")
    running = lab.launch("killed")
    marker, late = new_marker("killed"), new_marker("late")
    running.sh("echo kept > ~/note; sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 &")
    running.sh(f"curl -sS -m 5 https://allowed.test/{marker}")
    asks = not lab.machine_image  # one whose launcher stands still may stand still itself
    if asks:
        running.sh(f"({_ASK}) >/dev/null 2>&1 &")
        wait_until(lambda: bool(lab.cli("requests", running.identity, "--json").json()), "the agent asks")
        running.sh(f"(sleep 3; curl -sS -m 60 https://allowed.test/{late}) >/dev/null 2>&1 &")
        running.kill(signal.SIGSTOP)  # of what is decided from now on it brings nothing home
        wait_until(lambda: bool(world.reached(late)), "what is decided meanwhile")
    with family_of(lab, running) as family:
        # Launcher, sidecar, what isolates; PID 1 and two sleepers are in a machine if there is one.
        assert len(family.pids) >= (3 if lab.machine_image else 6)
        running.kill(signal.SIGKILL)
        running.wait()
        running.abandon()
        family.wait_until_gone()
    assert [one["status"] for one in lab.states("killed")] == ["preserved"]
    if asks:  # an answer is written behind all of the record, wherever the end of that is still
        (request,) = lab.cli("requests", running.identity, "--json").json()
        denied = lab.cli("deny", request["request"], "not now")
        assert denied.returncode == 0, denied.err
        assert [one["event"] for one in running.audit()][-2:] == ["answered", "end"]
        assert running.decisions(f"/{late}"), "what was decided while the launcher stood still"
        assert lab.cli("audit", "verify", running.identity).returncode == 0
    cleaned = lab.cli("cleanup", "--yes")
    assert cleaned.returncode == 0, cleaned.err
    assert "nothing to remove" in lab.cli("cleanup", "--yes").out
    assert running.decisions(f"/{marker}"), "what was decided before the kill is not on record"
    verified = lab.cli("audit", "verify", running.identity)
    assert verified.returncode == 0, verified.out
    with lab.launch("killed", identity=running.identity) as resumed:
        assert resumed.sh("cat ~/note").out == "kept\n"
    assert lab.cli("audit", "verify", running.identity).returncode == 0
    assert_nothing_is_left(lab, "killed", running.identity)


def test_a_killed_sidecar_closes_the_way_out_and_the_launcher_still_ends(lab: Lab, world: World) -> None:
    lab.declare("orphaned", BOTTLE)
    running = lab.launch("orphaned")
    marker = new_marker("orphaned")
    with family_of(lab, running) as family:
        assert running.sh("curl -sS -m 5 -o /dev/null https://allowed.test/").returncode == 0
        os.kill(family.sidecar(), signal.SIGKILL)
        assert running.sh(f"curl -sS -m 5 https://allowed.test/{marker}").returncode != 0
        assert world.reached(marker) == []
        running.close(exit_code=1)
        family.wait_until_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_headless_launcher_that_is_told_to_end_takes_everything_down(lab: Lab, number: int) -> None:
    declare_script(lab, "told", "echo work > file; echo begun; exec sleep 1000")
    log = lab.user_home / f"told-{number}.log"
    log.write_bytes(b"")
    pid = lab.spawn("start", "told", "--yes", "--headless", log=log)
    wait_until(lambda: b"begun\n" in log.read_bytes(), "the agent has begun")
    (state,) = lab.states("told")
    with Family(lab, pid, state["identity"]) as family:
        lab.world.call("kill", pid=pid, number=number)
        assert lab.world.call("wait", pid=pid, timeout=30) == 128 + number
        family.wait_until_gone()
    words = log.read_text()
    assert f"bot-bottle resume {state['identity']}" in words
    assert "Traceback" not in words
    assert lab.cli("cleanup", state["identity"], "--yes").returncode == 0


def test_ctrl_c_during_the_bring_up_leaves_nothing(lab: Lab) -> None:
    declare_script(lab, "hasty", "echo be''gun")
    # A working folder that takes its time to be copied keeps the bring-up going.
    big = lab.project / "big"
    with big.open("wb") as file:
        file.truncate(8 << 30)
    lab.own()
    log = lab.user_home / "hasty.log"
    log.write_bytes(b"")
    try:
        pid = lab.spawn("start", "hasty", "--yes", "--headless", "--cwd", log=log)
        identity: list[str] = []

        def bottle_is_up() -> bool:
            assert lab.world.call("wait", pid=pid, timeout=0) is None, log.read_text()
            identity[:] = [state["identity"] for state in lab.states("hasty")]
            return bool(identity) and _is_up(lab, pid, identity[0])

        wait_until(bottle_is_up, "the bottle is up")
        with Family(lab, pid, identity[0]) as family:
            lab.world.call("kill", pid=pid, number=signal.SIGINT)
            assert lab.world.call("wait", pid=pid, timeout=60) == 128 + signal.SIGINT
            family.wait_until_gone()
    finally:
        big.unlink()
    words = log.read_text()
    assert "begun" not in words
    assert "Traceback" not in words
    assert_nothing_is_left(lab, "hasty", identity[0])


def _is_up(lab: Lab, launcher: int, identity: str) -> bool:
    """Tell whether the agent's side exists already: its container, or processes below the sandbox."""
    if lab.engine_host:
        return bool(containers(lab, identity, "agent"))
    if lab.machine_image:
        return any(is_machine(pid) for pid in descendants(launcher))
    return len(descendants(launcher)) >= 3


def test_a_launch_that_fails_leaves_nothing(lab: Lab) -> None:
    lab.declare("failing", BOTTLE)
    first = lab.launch("failing")
    first.close(exit_code=3)
    kept = first.audit_path.read_bytes()
    first.audit_path.write_bytes(kept.replace(b'"end"', b'"fin"'))  # a log that was changed: no launch
    try:
        with pytest.raises(AssertionError, match="LaunchError"):
            lab.launch("failing", identity=first.identity)
        assert containers(lab, first.identity) == []
    finally:
        first.audit_path.write_bytes(kept)
    assert [one["status"] for one in lab.states("failing")] == ["preserved"]
    with lab.launch("failing", identity=first.identity) as again:
        assert again.sh("echo fine").out == "fine\n"


def test_two_bottles_do_not_see_each_other(lab: Lab, room: RunningBottle) -> None:
    lab.declare("other", BOTTLE)
    with lab.launch("other") as other:
        other.sh("echo mine > /tmp/mine; echo mine > ~/mine; sleep 500 >/dev/null 2>&1 &")
        seen = room.sh("ls /tmp ~; cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out
        assert "sleep 500" not in seen
        assert "mine" not in seen
        if lab.machine_image:
            return  # two kernels: their namespaces have nothing to do with each other, numbers included
        inside = [one.sh("readlink /proc/self/ns/net /proc/self/ns/ipc").out for one in (room, other)]
        assert set(inside[0].split()).isdisjoint(inside[1].split())


def test_the_number_of_processes_and_files_is_bounded_and_the_bottle_survives_it(lab: Lab) -> None:
    lab.declare("counted", f"{BOTTLE}limits:\n  pids: 40\n  open_files: 64\n")
    code = """
import json, os, resource, signal
children = []
try:
    while len(children) < 500:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        children.append(pid)
except BlockingIOError:
    pass
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
files = []
try:
    while len(files) < 500:
        files.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    files.append(error.errno)
print(json.dumps([len(children), len(files), resource.getrlimit(resource.RLIMIT_CORE)]))
"""
    with lab.launch("counted") as running:
        children, files, core = running.py(code).json()
        assert 20 <= children <= 40
        assert 50 <= files <= 64
        assert core == [0, 0]
        assert running.sh("echo fine").out == "fine\n"
        assert running.sh("ulimit -n 65; ulimit -c 1").returncode != 0


def test_memory_is_bounded_where_the_preflight_says_so(lab: Lab) -> None:
    lab.declare("sized", f"{BOTTLE}limits:\n  memory: 128MiB\n")
    shown = lab.cli("start", "sized", "--dry-run")
    preflight = shown.out + shown.err
    if "memory 128 MiB: holds" not in preflight:
        assert "memory 128 MiB" in preflight
        pytest.skip(f"no control group for {lab.account.name} here, and the preflight says so")
    with lab.launch("sized") as running:
        assert running.py("x = b'x' * (400 << 20); print(len(x))").returncode == 128 + signal.SIGKILL
        assert running.sh("head -c 400M /dev/zero > /tmp/big").returncode != 0
        assert running.sh("echo fine").out == "fine\n"


def test_a_dry_run_starts_nothing(lab: Lab) -> None:
    lab.declare("dry", BOTTLE)
    shown = lab.cli("start", "dry", "--dry-run")
    assert shown.returncode == 0
    assert lab.backend in shown.out + shown.err
    assert lab.states("dry") == []
    assert list((lab.home / "audit").glob("dry-*")) == []
