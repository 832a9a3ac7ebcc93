"""Where everything ends that leaves the bottle under test, written down.

Where this account may make namespaces and the sidecar runs on this machine, the whole run takes place in a
network of its own in which every address is the sinkhole's: nothing real can be reached, and whatever leaves,
to any address by any protocol, is seen. Elsewhere (a sidecar in an engine's container) the sinkhole is a few
servers of this machine that the allowed and forbidden names are pinned to, and what has no name to go to is
judged by what the kernel told the attacker.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bot_bottle.demo.authority import Authority
from bot_bottle.demo.upstreams import Answer, ScriptedServer, Seen, hello
from bot_bottle.errors import UnavailableError
from bot_bottle.verify import namespaces, sinkhole

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ECHO_HOSTS = ("echo.test", "query.test")
#: A resolver that no network has (RFC 5737); in a network of its own it is the sinkhole's like any address.
RESOLVER = "192.0.2.53"
_TCP_PORTS = (22, 25, 80, 443, 853, 3128, 5432, 8080, 8443, 9099, 9418)
_UDP_PORTS = (123, 443, 853, 5353, 9999)


class Outside(Protocol):
    """What arrived, asked by mark and by address."""

    whole: bool
    """Whether every address is the sinkhole's."""
    authority: Authority

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Every request so far, oldest first."""

    def arrived(self, mark: str) -> list[str]:
        """Say every place where ``mark`` was seen, in whatever case; empty where it never got out."""

    def packets_to(self, address: str) -> int:
        """Count the packets that went to an address; always 0 where they cannot be seen."""

    def lead(self, names: Mapping[str, str]) -> None:
        """Answer look-ups of these names with these addresses, where look-ups end here."""

    @property
    def door(self) -> tuple[str, int]:
        """An address and port at which this listens, and which no bottle may reach by itself."""

    def pins(self, hosts: tuple[str, ...]) -> str:
        """Give the lines of config.toml that lead these names here."""


def own_network_possible() -> bool:
    """Try, in a process that ends at once, whether this account may have a network of its own."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(OSError):
            namespaces.leave_the_host()
            namespaces.own_every_address()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def enter_own_network(scratch: Path) -> None:
    """Move this process, which may have one thread only, where every address is its own.

    Names are asked of :data:`RESOLVER` there and nowhere else. Raises ``OSError``.
    """
    namespaces.leave_the_host()
    namespaces.cover_file(Path("/etc/resolv.conf"), f"nameserver {RESOLVER}\noptions timeout:1\n", scratch)
    switch = "passwd: files\ngroup: files\nhosts: files dns\n"
    namespaces.cover_file(Path("/etc/nsswitch.conf"), switch, scratch)
    namespaces.own_every_address()


@contextlib.contextmanager
def whole_outside() -> Iterator[Outside]:
    """Serve every address of the network that :func:`enter_own_network` made."""
    authority = Authority("bot-bottle verify")
    listeners = sinkhole.tcp_listeners(_TCP_PORTS)
    with ScriptedServer("outside", _answer, authority=authority, listeners=listeners) as server:
        yield _Whole(authority, server)


@contextlib.contextmanager
def pinned_outside(place: str) -> Iterator[Outside]:
    """Serve one port of this machine's address ``place``; raises ``UnavailableError`` where it has none."""
    authority = Authority("bot-bottle verify")
    try:
        listener = socket.create_server((place, 0), backlog=128)
    except OSError as error:
        raise UnavailableError(
            f"what attacks are judged by cannot listen on {place}, where the bottle's sidecar would "
            f"look for this machine ({error.strerror}); for an engine on another machine, run verify there"
        ) from error
    with ScriptedServer("outside", _answer, authority=authority, listeners=(listener,)) as server:
        yield _Pinned(authority, server)


class _Pinned:
    """Some addresses of this machine: what no name leads here is not seen."""

    whole = False

    def __init__(self, authority: Authority, server: ScriptedServer) -> None:
        self.authority = authority
        self._server = server

    @property
    def seen(self) -> tuple[Seen, ...]:
        return self._server.seen

    @property
    def door(self) -> tuple[str, int]:
        host, _, port = self._server.address.rpartition(":")
        return host, int(port)

    def arrived(self, mark: str) -> list[str]:
        needle = mark.lower()
        return [
            f"{seen.method or 'bytes'} {seen.target} to {seen.host or seen.local[0]}"
            for seen in self.seen
            if needle in seen.sni.lower() or needle.encode() in (seen.raw + seen.body).lower()
        ]

    def packets_to(self, address: str) -> int:
        return sum(local[0] == address for local in self._server.accepted)

    def lead(self, names: Mapping[str, str]) -> None:
        del names

    def pins(self, hosts: tuple[str, ...]) -> str:
        return "[pins]\n" + "".join(f'"{host}" = "{self._server.address}"\n' for host in hosts)


class _Whole(_Pinned):
    """Every address: nothing needs to be led here, and packets of any kind are seen."""

    whole = True

    def __init__(self, authority: Authority, server: ScriptedServer) -> None:
        super().__init__(authority, server)
        self._dns = sinkhole.ScriptedDns()
        self._udp = sinkhole.UdpSink(_UDP_PORTS)
        self._packets = sinkhole.PacketLog()

    @property
    def door(self) -> tuple[str, int]:
        return sinkhole.PUBLIC_V4, 8080

    def arrived(self, mark: str) -> list[str]:
        for sink in (self._dns, self._udp):
            sink.settle()
        needle = mark.lower()
        places = super().arrived(mark)
        places += [
            f"a DNS question for {one.name}" for one in self._dns.questions if needle in one.name.lower()
        ]
        places += [
            f"a datagram to {address}:{port}"
            for address, port, data in self._udp.datagrams
            if needle.encode() in data.lower()
        ]
        return places

    def packets_to(self, address: str) -> int:
        self._packets.settle()
        return sum(packet.destination == address for packet in tuple(self._packets.packets))

    def lead(self, names: Mapping[str, str]) -> None:
        for name, address in names.items():
            self._dns.script(name, [[address]])

    def pins(self, hosts: tuple[str, ...]) -> str:
        del hosts
        return ""


def _answer(seen: Seen) -> Answer:
    """Answer as the host that is asked: one that repeats what it is told, or any other."""
    if seen.host.partition(":")[0] in ECHO_HOSTS:
        told = next(iter(seen.values("authorization")), "none")
        return Answer(body=seen.raw + seen.body, headers=(("X-Told", told), ("X-Target", seen.target)))
    if seen.target == "/moved":
        return Answer(status=302, headers=(("Location", "https://evil.test"),))
    return hello(seen)
