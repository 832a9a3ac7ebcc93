"""What a bottle in gVisor has to show for it: another kernel, the same network, and no more of the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.agent_account import AGENT_UID
from tests.attacks import inside
from tests.attacks.conftest import TOKEN_REF
from tests.attacks.test_a_control_plane import _NETLINK as NETLINK
from tests.attacks.test_docker_engine import GATEWAYS, inspected
from tests.support.engine import GVISOR, GVISOR_APART
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]


@pytest.fixture(scope="module", autouse=True)
def only_gvisor(backend: str) -> None:
    if backend != "gvisor":
        pytest.skip("these are about gVisor's kernel")


def test_gvisor_is_taken_by_itself_and_its_kernel_answers(bottle: RunningBottle, lab: Lab) -> None:
    """Neither an image nor a setting can change what the kernel calls itself."""
    host = inspected(lab, bottle.identity, "agent")["HostConfig"]
    assert host["Runtime"] == GVISOR
    release, version = bottle.sh("uname -r; cat /proc/version").out.splitlines()
    assert release != os.uname().release
    assert version.startswith(f"Linux version {release} ")
    assert os.uname().version not in version
    code = """
buffer = ctypes.create_string_buffer(1 << 16)
size = libc.klogctl(3, buffer, len(buffer))  # SYSLOG_ACTION_READ_ALL
tell(text=buffer.raw[:size].decode() if size >= 0 else errno.errorcode[ctypes.get_errno()])
"""
    text = inside.run(bottle, code)["text"]
    assert "Starting gVisor" in text or text == "EPERM", text  # the bottle's filter takes this call away


def test_gvisor_is_named_before_a_launch_and_by_doctor(lab: Lab) -> None:
    shown = lab.cli("start", "attack", "--dry-run", env={TOKEN_REF: "any"})
    assert "container without network, own kernel in user space (gVisor)" in shown.out + shown.err
    assert "shared kernel" not in shown.out + shown.err
    assert f"bottles run in gVisor ({GVISOR})" in lab.cli("doctor").out


def test_gvisor_with_a_network_stack_of_its_own_is_refused(lab: Lab) -> None:
    config = lab.home / "config.toml"
    before, running = config.read_text(), lab.states("attack")
    lab.write("config.toml", before.replace('runtime = "auto"', f'runtime = "{GVISOR_APART}"'))
    try:
        refused = lab.cli("start", "attack", "--yes", "--headless", "--prompt", "go", env={TOKEN_REF: "any"})
    finally:
        lab.write("config.toml", before)
    assert refused.returncode == 2
    assert f"config.toml is {GVISOR_APART}, which is gVisor with a network stack of its own" in refused.err
    assert "sudo runsc install --runtime runsc-bottle -- --network=host, and" in refused.err
    assert lab.states("attack") == running


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_gvisor_the_hosts_services_are_out_of_reach(
    bottle: RunningBottle, world: World, gateway: str
) -> None:
    """It speaks through sockets of the host's kernel, but of a namespace where there is no such address."""
    before = world.records().accepted.count((gateway, 8080))
    code = """
try:
    socket.create_connection((gateway, 8080)).close()
    tell(result="connected")
except OSError as error:
    tell(result=errno.errorcode.get(error.errno, str(error)))
"""
    assert inside.run(bottle, code, gateway=gateway)["result"] == "ENETUNREACH"
    assert world.records().accepted.count((gateway, 8080)) == before


def test_gvisor_the_doors_are_open_on_both_loopbacks(bottle: RunningBottle, world: World) -> None:
    """The doorkeeper opened them below 1024 without a capability, though gVisor sets no kernel switch."""
    for address in ("127.0.0.1", "[::1]"):
        marker = new_marker("loopback")
        url = f"https://allowed.test/{marker}"
        answer = bottle.sh(f"curl -sS -m 20 --noproxy '*' --connect-to allowed.test:443:{address}:443 {url}")
        assert answer.returncode == 0, answer.err
        assert world.reached(marker)


@pytest.mark.parametrize("family", ["AF_PACKET", "AF_VSOCK", "AF_ALG"])
def test_gvisor_other_socket_families_are_not_there(bottle: RunningBottle, family: str) -> None:
    code = """
try:
    socket.socket(getattr(socket, family), socket.SOCK_SEQPACKET if family == "AF_ALG" else socket.SOCK_DGRAM)
    tell(result="open")
except OSError as error:
    tell(result=errno.errorcode[error.errno])
"""
    assert inside.run(bottle, code, family=family)["result"] in {"EPERM", "EACCES", "EAFNOSUPPORT"}


@pytest.mark.parametrize("how", ["", "unshare -Ur "])
def test_gvisor_neither_raw_sockets_nor_another_network(bottle: RunningBottle, how: str) -> None:
    """Also not for root of a user namespace of gVisor's kernel, which lets everybody make one."""
    code = """
found = {}
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_PACKET):
    for protocol in (1, 58, 255):
        try:
            socket.socket(family, socket.SOCK_RAW, protocol)
            found[f"{family}-{protocol}"] = "open"
        except OSError as error:
            found[f"{family}-{protocol}"] = errno.errorcode[error.errno]
tell(user=os.getuid(), **found)
"""
    found = run_as(bottle, how, code)
    assert found.pop("user") == (0 if how else AGENT_UID)
    assert "open" not in found.values(), found
    changed = run_as(bottle, how, NETLINK)
    assert len(changed) == 3
    assert 0 not in changed.values(), changed
    assert bottle.sh("cat /proc/net/dev | sed 1,2d | cut -d: -f1").out.split() == ["lo"]


def run_as(bottle: RunningBottle, how: str, code: str) -> dict[str, Any]:
    """Run Python inside, started in this way."""
    script = f"exec {how}python3 -I -S -"
    result: dict[str, Any] = bottle.sh(script, stdin=(inside.PRELUDE + code).encode()).json()
    return result


def test_gvisor_a_narrow_bound_on_processes_leaves_room_for_its_own(lab: Lab) -> None:
    """Its kernel is a program of many threads, which count as the bottle's; as many as declared still run."""
    lab.declare(
        "narrow",
        "agent_provider: {template: command, argv: [/bin/true]}\nlimits: {pids: 20, memory: 256MiB}\n",
    )
    with lab.launch("narrow") as running:
        script = (
            'for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 600 & all="$all $!"; done; kill $all && echo all'
        )
        assert running.sh(script).out == "all\n"
        assert running.sh("echo fine").out == "fine\n"
