"""What is particular to a bottle in containers: what ends it, what it leaves on an engine, whose is whose."""

from __future__ import annotations

import json
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.docker.labels import IDENTITY, INSTALLATION, ROLE
from tests.support.engine import BASE_IMAGE, engine_api
from tests.support.family import containers, volumes, wait_until
from tests.support.lab import Lab, RaisedError
from tests.support.outside import accounts, new_marker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.lab import RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

BOTTLE = "agent_provider: {template: command, argv: [/bin/true]}\negress: {routes: [{host: allowed.test}]}\n"


@pytest.fixture(scope="module")
def lab(world: World, engine_host: str) -> Lab:
    installation = Lab(world=world, account=accounts()[-1], backend="docker", engine_host=engine_host)
    installation.declare("plain", BOTTLE)
    return installation


@pytest.fixture(scope="module")
def bottle(lab: Lab) -> Iterator[RunningBottle]:
    with lab.launch("plain") as running:
        yield running


def script(name: str, text: str, lab: Lab, extra: str = "") -> None:
    argv = json.dumps(["/bin/sh", "-c", text])
    lab.declare(name, f"agent_provider: {{template: command, argv: {argv}}}\n{extra}")


def keep_one(lab: Lab, name: str) -> str:
    """Give the identity of a kept bottle with a note in its home."""
    script(name, "echo kept > ~/note; exit 3", lab)
    assert lab.cli("start", name, "--yes", "--headless").returncode == 3
    (state,) = lab.states(name)
    return str(state["identity"])


def installation_of(lab: Lab) -> str:
    return (lab.home / "installation").read_text().strip()


def test_the_agent_can_neither_end_nor_hold_the_first_process(bottle: RunningBottle) -> None:
    """Who holds PID 1's input open keeps a container from ending with its launcher."""
    tried = bottle.sh("kill -9 1; kill -9 7; ls /proc/1/fd/0 /proc/1/fd/3 /proc/1/root; cat /proc/1/environ")
    assert tried.out == ""
    assert tried.err.count("ermitted") + tried.err.count("denied") >= 4, tried.err
    assert bottle.sh("kill -9 -1").returncode == 128 + signal.SIGKILL
    assert bottle.sh("ps -o user= -p 1").out.strip() not in {"agent", "root"}
    assert bottle.sh("echo fine").out == "fine\n"


def test_what_root_placed_is_not_the_agents_to_change(bottle: RunningBottle) -> None:
    places = "/run/bot-bottle /run/bot-bottle/env /etc/ssl/certs /etc/ssl/certs/ca-certificates.crt"
    for place in places.split():
        for act in (f"rm -rf {place}", f"mv {place} {place}.x", f"chmod 777 {place}", f"echo x >> {place}"):
            bottle.sh(act)
    assert bottle.sh("test -s /run/bot-bottle/env; grep -c CERTIFICATE $SSL_CERT_FILE").out == "2\n"
    assert bottle.sh("mkdir /run/bot-bottle/x || mkdir /etc/ssl/certs/x").returncode != 0


def test_a_script_is_in_no_record_of_the_engines(lab: Lab, bottle: RunningBottle) -> None:
    marker = new_marker("script")
    since = int(time.time()) - 1
    assert bottle.sh(f"echo {marker}").out == f"{marker}\n"
    with engine_api(lab.engine_host) as api:
        events = list(api.events(since=since, until=int(time.time()) + 1, decode=True))
        (agent,) = containers(lab, bottle.identity, "agent")
        found = api.inspect_container(agent["Id"])
        execs = [api.exec_inspect(one) for one in found["ExecIDs"] or ()]
    told = json.dumps(events)
    assert "exec_create" in told
    assert marker not in told + json.dumps(found) + json.dumps(execs)


def test_a_bottle_full_of_processes_can_still_be_ended(lab: Lab) -> None:
    lab.declare("full", f"{BOTTLE}limits: {{pids: 30}}\n")
    with lab.launch("full") as running:
        with pytest.raises(RaisedError, match="TimeoutError"):
            # Becomes sleep without a fork, which by then would be refused.
            running.sh("bomb() { bomb | bomb & bomb | bomb; }; bomb 2>/dev/null & exec sleep 600", timeout=3)
        assert running.sh("echo fine").out == "fine\n"
        (agent,) = containers(lab, running.identity, "agent")
        with engine_api(lab.engine_host) as api:
            assert 30 <= api.inspect_container(agent["Id"])["HostConfig"]["PidsLimit"] <= 40


def test_an_agent_whose_output_nobody_reads_any_more_ends(lab: Lab) -> None:
    script("talkative", "yes", lab)
    start = f"{sys.executable} -m bot_bottle start talkative --yes --headless"
    done = lab.world.run(
        ["sh", "-c", f"exec 3>&1; ({start}; echo $? >&3) | head -n 1"],
        account=lab.account,
        env=lab.env,
        cwd=lab.project,
        timeout=90,
    )
    assert done.out.split() == ["y", str(128 + signal.SIGPIPE)], done.err
    for state in lab.states("talkative"):
        assert lab.cli("cleanup", state["identity"], "--yes").returncode == 0


def test_the_preflight_names_engine_and_boundary_and_doctor_says_the_same(lab: Lab) -> None:
    shown = lab.cli("start", "plain", "--dry-run").out
    assert "docker (asked for by config.toml); container without network, seccomp, shared kernel" in shown
    assert lab.engine_host in shown
    (line,) = [one for one in lab.cli("doctor").out.splitlines() if "backend docker" in one]
    assert lab.engine_host in line
    assert "runs as root" in line


def test_a_pin_to_loopback_is_refused(lab: Lab) -> None:
    config = lab.home / "config.toml"
    before = config.read_text()
    try:
        lab.write("config.toml", f'{before}\n[pins]\n"allowed.test" = "127.0.0.1:8443"\n')
        refused = lab.cli("start", "plain", "--yes", "--headless")
    finally:
        lab.write("config.toml", before)
    assert refused.returncode == 2
    assert "--backend bubblewrap" in refused.err
    assert {one["status"] for one in lab.states("plain")} <= {"running"}


def test_a_terminal_needs_the_client_program_and_says_so(lab: Lab) -> None:
    with lab.terminal("start", "plain", "--yes", env={"PATH": "/nonexistent"}) as terminal:
        before = terminal.wait_for("install it (docker-cli)")
        assert "client program 'docker'" in before
        assert terminal.exit_code() == 3


def test_another_installation_on_the_same_engine_is_left_alone(lab: Lab, world: World) -> None:
    other = Lab(world=world, account=lab.account, backend="docker", engine_host=lab.engine_host)
    kept = keep_one(lab, "mine")
    with lab.launch("plain") as running:
        keep_one(other, "theirs")
        cleaned = other.cli("cleanup", "--all", "--yes")
        assert cleaned.returncode == 0, cleaned.err
        assert kept not in cleaned.out + running.identity
        assert running.identity not in cleaned.out
        assert other.states("theirs") == []
        assert running.sh("echo fine").out == "fine\n"
    assert volumes(lab, kept) == [f"bot-bottle-{kept}-home"]
    assert lab.cli("resume", kept, "--yes", "--headless").returncode == 3
    assert lab.cli("cleanup", kept, "--yes").returncode == 0


def test_a_container_that_a_dead_launch_left_is_no_obstacle(lab: Lab) -> None:
    identity = keep_one(lab, "stale")
    labels = {INSTALLATION: installation_of(lab), IDENTITY: identity, ROLE: "agent"}
    with engine_api(lab.engine_host) as api:
        api.create_container(BASE_IMAGE, ["true"], name=f"bot-bottle-{identity}", labels=labels)
        shown = lab.cli("cleanup", stdin=b"").out
        assert f"container bot-bottle-{identity}" in shown
        resumed = lab.cli("resume", identity, "--yes", "--headless")
        assert resumed.returncode == 3, resumed.err
        assert containers(lab, identity) == []
        api.create_container(BASE_IMAGE, ["true"], name=f"bot-bottle-{identity}", labels=labels)
    assert lab.cli("cleanup", "--yes").returncode == 0
    assert containers(lab, identity) == []
    assert volumes(lab, identity) == [f"bot-bottle-{identity}-home"]
    assert lab.cli("cleanup", identity, "--yes").returncode == 0


def test_a_name_that_somebody_else_has_stops_the_launch_and_stays_theirs(lab: Lab) -> None:
    identity = keep_one(lab, "named")
    with engine_api(lab.engine_host) as api:
        theirs = api.create_container(BASE_IMAGE, ["true"], name=f"bot-bottle-{identity}")["Id"]
        try:
            refused = lab.cli("resume", identity, "--yes", "--headless")
            assert refused.returncode == 4, refused.err
            assert "already in use" in refused.err
            assert api.inspect_container(theirs)
        finally:
            api.remove_container(theirs)
    assert lab.cli("resume", identity, "--yes", "--headless").returncode == 3
    assert lab.cli("cleanup", identity, "--yes").returncode == 0


def test_a_home_that_was_removed_by_hand_is_missed(lab: Lab) -> None:
    identity = keep_one(lab, "missed")
    with engine_api(lab.engine_host) as api:
        api.remove_volume(f"bot-bottle-{identity}-home")
    refused = lab.cli("resume", identity, "--yes", "--headless")
    assert refused.returncode == 4
    assert "is gone from this engine" in refused.err
    assert lab.cli("cleanup", identity, "--yes").returncode == 0
    assert lab.states("missed") == []


def test_without_its_engine_a_bottle_is_neither_resumed_nor_forgotten(lab: Lab) -> None:
    identity = keep_one(lab, "away")
    away = {"DOCKER_HOST": "unix:///nonexistent/engine.sock"}
    refused = lab.cli("resume", identity, "--yes", "--headless", env=away)
    assert refused.returncode == 3
    assert "no engine answers at unix:///nonexistent" in refused.err
    not_removed = lab.cli("cleanup", identity, "--yes", env=away)
    assert not_removed.returncode == 1
    assert "not removed" in not_removed.err
    assert [one["identity"] for one in lab.states("away")] == [identity]
    assert "Traceback" not in refused.err + not_removed.err
    assert lab.cli("cleanup", identity, "--yes").returncode == 0
    assert volumes(lab, identity) == []


def test_a_workspace_replaced_by_a_link_is_no_way_to_resume(lab: Lab) -> None:
    script("linked", "cd /; rm -rf ~/workspace; ln -s /tmp ~/workspace; exit 3", lab)
    assert lab.cli("start", "linked", "--yes", "--headless").returncode == 3
    (state,) = lab.states("linked")
    refused = lab.cli("resume", state["identity"], "--yes", "--headless")
    assert refused.returncode == 4
    assert "is no folder any more" in refused.err
    assert containers(lab, state["identity"]) == []
    assert lab.cli("cleanup", state["identity"], "--yes").returncode == 0


@pytest.mark.parametrize("role", ["sidecar", "agent", "doorkeeper"])
def test_a_launcher_killed_while_it_brings_a_bottle_up_leaves_nothing_that_cleanup_does_not_know(
    lab: Lab, role: str
) -> None:
    log = lab.user_home / f"killed-{role}.log"
    log.write_bytes(b"")
    before = {one["Id"] for one in containers(lab, role=role)}
    pid = lab.spawn("start", "plain", "--yes", "--headless", log=log)

    def there() -> bool:
        return bool({one["Id"] for one in containers(lab, role=role)} - before) or _ended(lab, pid)

    wait_until(there, f"a container of the {role} is made")
    lab.world.call("kill", pid=pid, number=signal.SIGKILL)
    lab.world.call("wait", pid=pid, timeout=30)
    mine = f"{INSTALLATION}={installation_of(lab)}"

    def running() -> list[str]:
        with engine_api(lab.engine_host) as api:
            return [one["Id"] for one in api.containers(filters={"label": mine})]

    busy = {one["identity"] for one in lab.states("plain") if one["status"] == "running"}
    wait_until(
        lambda: len(running()) == 2 * len(busy), "what had started has ended with its launcher by itself"
    )
    assert lab.cli("cleanup", "--yes").returncode == 0
    with engine_api(lab.engine_host) as api:
        left = api.containers(all=True, filters={"label": mine})
        assert {one["Labels"][IDENTITY] for one in left} <= busy
        kept = {one["identity"] for one in lab.states("plain")}
        found = api.volumes(filters={"label": mine})["Volumes"] or []
        assert {one["Labels"][IDENTITY] for one in found} <= kept | busy
    assert "nothing to remove" in lab.cli("cleanup", "--yes").out
    for one in lab.states("plain"):
        if one["status"] != "running":
            assert lab.cli("cleanup", one["identity"], "--yes").returncode == 0


def _ended(lab: Lab, pid: int) -> bool:
    return lab.world.call("wait", pid=pid, timeout=0) is not None
