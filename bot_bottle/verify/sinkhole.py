"""What is not HTTP where every address is a sinkhole: a DNS server, a UDP sink and a packet log."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import socket
import struct
import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

#: What the scripted DNS answers for a name nobody scripted: public, so that the address guard permits it.
PUBLIC_V4 = "93.184.215.14"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One DNS question that reached the outside."""

    name: str
    kind: int
    transport: Literal["udp", "tcp"]
    server: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One IP packet that was not between loopback addresses. ``port`` is 0 where the protocol has none."""

    protocol: int
    destination: str
    port: int


class Barrier:
    """Know that all datagrams sent before a moment have been written down: one more is sent, and waited for.

    A record that is read too early shows nothing and would pass for an attack that was held.
    """

    _PREFIX = b"barrier "

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._passed: set[bytes] = set()
        self._changed = threading.Condition()

    def saw(self, data: bytes) -> bool:
        """Tell whether ``data`` is a barrier's, and let it pass if so."""
        if not data.startswith(self._PREFIX):
            return False
        with self._changed:
            self._passed.add(data)
            self._changed.notify_all()
        return True

    def wait(self, family: socket.AddressFamily, port: int) -> None:
        """Send a barrier to ``port`` of this family's loopback address and wait until it was seen."""
        data = self._PREFIX + str(next(self._numbers)).encode()
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(data, ("127.0.0.1" if family == socket.AF_INET else "::1", port))
        with self._changed:
            if not self._changed.wait_for(lambda: data in self._passed, timeout=360):
                raise RuntimeError(f"the sink on UDP port {port} does not answer")


class ScriptedDns:
    """Answer A and AAAA from a script, on UDP and TCP port 53 of every address (RFC 1035)."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self._barrier = Barrier()
        self._answers: dict[str, deque[tuple[str, ...]]] = {}
        self._udp = _udp_sockets(53)
        self._tcp = _tcp_listeners(53)
        for udp in self._udp:
            threading.Thread(target=self._serve_udp, args=(udp,), daemon=True).start()
        for tcp in self._tcp:
            threading.Thread(target=self._serve_tcp, args=(tcp,), daemon=True).start()

    def settle(self) -> None:
        """Wait until all questions sent so far by UDP are written down."""
        for family in (socket.AF_INET, socket.AF_INET6):
            self._barrier.wait(family, 53)

    def script(self, name: str, answers: list[list[str]]) -> None:
        """Answer ``name`` with each list of addresses in turn; the last one stays."""
        self._answers[name] = deque(tuple(addresses) for addresses in answers)

    def _serve_udp(self, sock: socket.socket) -> None:
        while True:
            data, ancillary, _, peer = sock.recvmsg(4096, 256)
            if self._barrier.saw(data):
                continue
            reply = self._reply(data, "udp", _destination(ancillary))
            if reply:
                # Answer from the address that was asked, or the resolver ignores it.
                sock.sendmsg([reply], [(level, kind, value) for level, kind, value in ancillary], 0, peer)

    def _serve_tcp(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                try:
                    data = connection.recv(4096)
                    reply = self._reply(data[2:], "tcp", connection.getsockname()[0])
                    connection.sendall(struct.pack("!H", len(reply)) + reply)
                except OSError:
                    continue

    def _reply(self, data: bytes, transport: Literal["udp", "tcp"], server: str) -> bytes:
        try:
            name, end = _name_at(data, 12)
            kind, klass = struct.unpack_from("!HH", data, end)
        except (IndexError, struct.error, UnicodeDecodeError):
            self.questions.append(Question(name=repr(data), kind=0, transport=transport, server=server))
            return b""
        self.questions.append(Question(name=name, kind=kind, transport=transport, server=server))
        records = [_record(kind, klass, text) for text in self._addresses(name, kind)]
        question = data[12 : end + 4]
        return data[:2] + struct.pack("!HHHHH", 0x8180, 1, len(records), 0, 0) + question + b"".join(records)

    def _addresses(self, name: str, kind: int) -> list[str]:
        version = {1: 4, 28: 6}.get(kind)
        script = self._answers.get(name.lower())
        if script is None:
            return [PUBLIC_V4] if kind == 1 else []
        wanted = [text for text in script[0] if ipaddress.ip_address(text).version == version]
        if kind == 1 and len(script) > 1:  # A is asked once a look-up; AAAA belongs to the same one
            script.popleft()
        return wanted


class UdpSink:
    """Write down every datagram that arrives on ``ports`` of any address."""

    def __init__(self, ports: tuple[int, ...]) -> None:
        self.datagrams: list[tuple[str, int, bytes]] = []
        self._ports = ports
        self._barrier = Barrier()
        for port in ports:
            for sock in _udp_sockets(port):
                threading.Thread(target=self._serve, args=(sock, port), daemon=True).start()

    def settle(self) -> None:
        """Wait until all datagrams sent so far are written down."""
        for port in self._ports:
            for family in (socket.AF_INET, socket.AF_INET6):
                self._barrier.wait(family, port)

    def _serve(self, sock: socket.socket, port: int) -> None:
        while True:
            data, ancillary, _, _ = sock.recvmsg(4096, 256)
            if self._barrier.saw(data):
                continue
            self.datagrams.append((_destination(ancillary), port, data))


class PacketLog:
    """Note every IP packet on ``lo`` whose destination is no loopback address, whatever its protocol."""

    def __init__(self) -> None:
        self.packets: dict[Packet, None] = {}  # a set that keeps the order in which they came
        self._barrier = Barrier()
        eth_p_all = 0x0003
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(eth_p_all))
        so_rcvbufforce, enough = 33, 64 << 20
        with contextlib.suppress(PermissionError):  # as an ordinary user the default has to do
            self._sock.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, enough)
        threading.Thread(target=self._serve, daemon=True).start()

    def settle(self) -> None:
        """Wait until all packets sent so far are noted."""
        self._barrier.wait(socket.AF_INET, _DISCARD)

    def _serve(self) -> None:
        while True:
            data = self._sock.recv(65536)
            packet = _packet(data)
            if packet and not ipaddress.ip_address(packet.destination).is_loopback:
                self.packets[packet] = None
            elif packet and packet.port == _DISCARD:
                self._barrier.saw(data[28:])  # past an IPv4 header without options and the UDP header


_DISCARD = 9  # RFC 863; nobody listens there


def _packet(data: bytes) -> Packet | None:
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        protocol, start = data[9], (data[0] & 0xF) * 4
        destination = str(ipaddress.ip_address(data[16:20]))
    elif version == 6 and len(data) >= 40:
        protocol, start = data[6], 40
        destination = str(ipaddress.ip_address(data[24:40]))
    else:
        return None
    has_port = protocol in {6, 17, 132} and len(data) >= start + 4
    port = struct.unpack_from("!H", data, start + 2)[0] if has_port else 0
    return Packet(protocol=protocol, destination=destination, port=port)


def tcp_listeners(ports: tuple[int, ...]) -> tuple[socket.socket, ...]:
    """Listen on ``ports`` of every IPv4 and IPv6 address."""
    return tuple(listener for port in ports for listener in _tcp_listeners(port))


def _tcp_listeners(port: int) -> list[socket.socket]:
    return [
        socket.create_server(("0.0.0.0", port), backlog=128),  # noqa: S104 - every address is what this is for
        socket.create_server(("::", port), family=socket.AF_INET6, backlog=128),
    ]


def _udp_sockets(port: int) -> list[socket.socket]:
    v4 = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    v4.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    v4.bind(("0.0.0.0", port))  # noqa: S104 - as above
    v6 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    v6.bind(("::", port))
    return [v4, v6]


_IP_PKTINFO = 8  # <linux/in.h>; the socket module names it from Python 3.14 on


def _destination(ancillary: list[tuple[int, int, bytes]]) -> str:
    for level, _, value in ancillary:
        if level == socket.IPPROTO_IP:
            return str(ipaddress.ip_address(value[8:12]))
        if level == socket.IPPROTO_IPV6:
            return str(ipaddress.ip_address(value[:16]))
    return ""


def _name_at(data: bytes, offset: int) -> tuple[str, int]:
    labels = []
    while data[offset]:
        length = data[offset]
        labels.append(data[offset + 1 : offset + 1 + length].decode("latin-1"))
        offset += 1 + length
    return ".".join(labels), offset + 1


def _record(kind: int, klass: int, text: str) -> bytes:
    address = ipaddress.ip_address(text).packed
    return struct.pack("!HHHIH", 0xC00C, kind, klass, 0, len(address)) + address
