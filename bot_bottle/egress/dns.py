"""The only DNS a bottle sees: every name is the sidecar itself, nothing is ever forwarded (RFC 1035).

So a client that ignores proxy variables still arrives at the sidecar, and no query, whatever it spells,
leaves the machine. The parser and the answer are pure; the two protocols below only carry bytes.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_A, _OPT, _AAAA = 1, 41, 28
_IN = 1
_FORMERR, _NOTIMP = 1, 4
_TTL_SECONDS = 60
_HEADER = struct.Struct("!6H")
_MAX_NAME = 255
_UDP_PAYLOAD = 1232  # DNS flag day 2020: what passes unfragmented everywhere

#: Where the sidecar is for most bottles.
LOOPBACK = "127.0.0.1"
_SELF_V6 = IPv6Address("::1").packed

#: How long and how many TCP clients may hold the resolver.
_TCP_IDLE_SECONDS = 10.0
_TCP_MAX_CLIENTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsAnswer:
    """What to send back. ``name`` is the name asked for in presentation form, empty where none was read."""

    wire: bytes
    name: str = ""


def answer(query: bytes, *, with_ipv6: bool = True, here: str = LOOPBACK) -> DnsAnswer | None:
    """Answer one DNS message, or give ``None`` where a server must stay silent (a response, a runt).

    A is ``here`` and AAAA is ::1 (with ``with_ipv6``), for any name; every other type or class is an
    empty NOERROR. What cannot be parsed is FORMERR, other opcodes are NOTIMP.
    """
    if len(query) < _HEADER.size:
        return None
    ident, flags, questions, *_counts, additional = _HEADER.unpack_from(query)
    if flags & 0x8000:
        return None
    if flags & 0x7800:
        return DnsAnswer(wire=_header(ident, flags, _NOTIMP))
    parsed = _question(query) if questions == 1 else None
    if parsed is None:
        return DnsAnswer(wire=_header(ident, flags, _FORMERR))
    name, kind, klass, end = parsed
    records = b""
    count = 0
    if klass == _IN:
        for record_type, data in ((_A, IPv4Address(here).packed), (_AAAA, _SELF_V6)):
            if kind == record_type and (record_type == _A or with_ipv6):
                records += struct.pack("!HHHIH", 0xC00C, record_type, _IN, _TTL_SECONDS, len(data)) + data
                count += 1
    # RFC 6891, 6.1.1: a responder answers an OPT with an OPT.
    opt = struct.pack("!BHHIH", 0, _OPT, _UDP_PAYLOAD, 0, 0) if additional and _has_opt(query, end) else b""
    head = _header(ident, flags, 0, questions=1, answers=count, additional=1 if opt else 0)
    return DnsAnswer(wire=head + query[_HEADER.size : end] + records + opt, name=name)


class DnsDatagrams(asyncio.DatagramProtocol):
    """DNS over UDP. ``on_name`` hears every name that was asked for."""

    def __init__(self, on_name: Callable[[str], None], *, with_ipv6: bool) -> None:
        self._on_name = on_name
        self._with_ipv6 = with_ipv6
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio subclasses

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer one query."""
        reply = answer(data, with_ipv6=self._with_ipv6)
        if reply and self._transport:
            if reply.name:
                self._on_name(reply.name)
            self._transport.sendto(reply.wire, addr)


class DnsStream(asyncio.Protocol):
    """DNS over TCP: messages behind a two-byte length (RFC 7766), a bounded number of clients at a time."""

    clients = 0

    def __init__(self, on_name: Callable[[str], None], *, with_ipv6: bool, here: str = LOOPBACK) -> None:
        self._on_name = on_name
        self._with_ipv6 = with_ipv6
        self._here = here
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the idle clock, or hang up where too many clients are connected."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are not asyncio subclasses
        DnsStream.clients += 1
        if DnsStream.clients > _TCP_MAX_CLIENTS:
            transport.close()
        self._timer = asyncio.get_running_loop().call_later(_TCP_IDLE_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        """Answer each whole message that has arrived."""
        self._buffer += data
        while self._transport and len(self._buffer) >= 2:
            length = int.from_bytes(self._buffer[:2], "big")
            if len(self._buffer) < 2 + length:
                return
            message, self._buffer = self._buffer[2 : 2 + length], self._buffer[2 + length :]
            reply = answer(message, with_ipv6=self._with_ipv6, here=self._here)
            if reply is None:
                self._transport.close()
                return
            if reply.name:
                self._on_name(reply.name)
            self._transport.write(len(reply.wire).to_bytes(2, "big") + reply.wire)

    def pause_writing(self) -> None:
        """Hang up on a client that asks and does not read the answers."""
        if self._transport:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Stop the idle clock."""
        DnsStream.clients -= 1
        self._transport = None
        if self._timer:
            self._timer.cancel()


def _header(
    ident: int, flags: int, rcode: int, *, questions: int = 0, answers: int = 0, additional: int = 0
) -> bytes:
    # QR and RA set, RD copied; AA, TC, AD, CD clear.
    return _HEADER.pack(ident, 0x8080 | (flags & 0x0100) | rcode, questions, answers, 0, additional)


def _question(query: bytes) -> tuple[str, int, int, int] | None:
    """Read the one question: name, type, class and the offset behind it; ``None`` if it is malformed."""
    labels: list[str] = []
    offset = _HEADER.size
    while True:
        if offset >= len(query):
            return None
        length = query[offset]
        offset += 1
        if length == 0:
            break
        if length > 63 or offset + length > len(query) or offset - _HEADER.size + length > _MAX_NAME:
            return None  # a compression pointer has no place in a question either
        labels.append(_present(query[offset : offset + length]))
        offset += length
    if offset + 4 > len(query):
        return None
    kind, klass = struct.unpack_from("!HH", query, offset)
    return ".".join(labels) or ".", kind, klass, offset + 4


def _has_opt(query: bytes, offset: int) -> bool:
    # The OPT record of a query has the root name and stands first behind the question in practice.
    return len(query) >= offset + 11 and query[offset] == 0 and query[offset + 1 : offset + 3] == b"\x00\x29"


def _present(label: bytes) -> str:
    r"""Write a label so that it cannot break a line or a terminal: ``\DDD`` for what is not LDH or ``_``."""
    return "".join(
        chr(byte) if byte < 0x80 and (chr(byte).isalnum() or byte in b"-_") else f"\\{byte:03d}"
        for byte in label
    )
