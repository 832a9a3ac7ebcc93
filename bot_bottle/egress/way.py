"""The way to an upstream: a staggered race of checked addresses, and the operator's proxy if there is one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, TypeVar, cast

from bot_bottle.egress.hosts import format_authority, host_matches, is_ip_literal
from bot_bottle.egress.upstream import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from bot_bottle.sidecar.config import UpstreamProxy

Won = TypeVar("Won")

#: RFC 8305, 8: the recommended Connection Attempt Delay, in seconds.
STAGGER_SECONDS = 0.25
_MAX_ANSWER = 16 * 1024
_MAX_ADDRESSES = 6
_MAX_UNSENT_BYTES = 256 * 1024


def interleaved(addresses: Sequence[str]) -> list[str]:
    """Order addresses as RFC 8305, 4 does: alternating families, from the resolver's first one on."""
    families: dict[bool, list[str]] = {}
    for address in addresses:
        families.setdefault(":" in address, []).append(address)
    first, second = (*families.values(), [], [])[:2]
    paired = [address for pair in zip(first, second, strict=False) for address in pair]
    rest = first[len(second) :] or second[len(first) :]
    return [*paired, *rest]


def in_order(addresses: Sequence[str]) -> list[str]:
    """Give the addresses that are tried, in the order of their attempts."""
    return interleaved(addresses)[:_MAX_ADDRESSES]


async def first_of(
    attempts: Sequence[Callable[[], Awaitable[Won]]],
    *,
    discard: Callable[[Won], None],
    stagger: float = STAGGER_SECONDS,
) -> Won:
    """Begin the attempts in order, each ``stagger`` seconds after the last or once that one has failed.

    Gives what the first to succeed gives; the others are cancelled, and what one of them gave all the same
    goes to ``discard``. Raises the last failure where all fail.
    """
    running: set[asyncio.Future[Won]] = set()
    waiting = list(reversed(attempts))
    failure: BaseException = UpstreamError("upstream_unreachable", "there is no address to connect to")
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(waiting.pop()()))
            done, running = await asyncio.wait(
                running, timeout=stagger if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            won = [one for one in done if one.exception() is None]
            failure = next((error for one in done if (error := one.exception())), failure)
            for late in won[1:]:
                discard(late.result())
            if won:
                return won[0].result()
        raise failure
    finally:
        for one in running:
            one.cancel()
            one.add_done_callback(lambda late: _forget(late, discard))


def _forget(late: asyncio.Future[Won], discard: Callable[[Won], None]) -> None:
    if not late.cancelled() and late.exception() is None:
        discard(late.result())


def bound_unsent(sock: socket.socket | None) -> None:
    """Have the kernel take no more of a connection's bytes than it can soon send (tcp(7)).

    Otherwise it takes megabytes for a peer that does not read, for each of a thousand connections. What a
    listener accepts has this from it.
    """
    if sock is not None:
        with contextlib.suppress(OSError):  # a kernel that does not know it, such as gVisor's
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _MAX_UNSENT_BYTES)


def proxy_for(proxy: UpstreamProxy | None, host: str, address: str = "") -> UpstreamProxy | None:
    """Give ``proxy`` unless the operator said that ``host``, or ``address``, is reached without it."""
    if proxy is None or any(_bypasses(entry, host, address) for entry in proxy.bypass):
        return None
    return proxy


def _bypasses(entry: str, host: str, address: str) -> bool:
    if "/" not in entry:
        return host_matches(entry, host)
    shown = address or (host if is_ip_literal(host) else "")
    if not shown:
        return False
    network, one = ip_network(entry), ip_address(shown)
    return one.version == network.version and one in network


async def through_proxy(
    loop: asyncio.AbstractEventLoop,
    proxy: UpstreamProxy,
    protocol: asyncio.Protocol,
    host: str,
    port: int,
    *,
    server_first: bool = False,
) -> None:
    """Connect ``protocol`` to ``host:port`` by the proxy's CONNECT (RFC 9110, 9.3.6).

    ``server_first`` says that what is there may speak before it is spoken to (ssh), so that its first words
    may stand behind the proxy's answer.

    Raises :class:`UpstreamError`, whose words hold nothing the proxy said but its status.
    """
    asked: asyncio.Future[None] = loop.create_future()
    question = _Question(proxy, protocol, format_authority(host, port), asked, server_first=server_first)
    try:
        transport, _ = await loop.create_connection(lambda: question, proxy.host, proxy.port)
        bound_unsent(transport.get_extra_info("socket"))
        await asked
    except OSError as error:
        raise UpstreamError(
            "upstream_proxy", f"the operator's proxy cannot be reached ({error.strerror or 'no connection'})"
        ) from error
    except BaseException:
        asked.cancel()
        question.abort()
        raise


class _Question(asyncio.Protocol):
    """Asks a proxy for a tunnel and hands the connection over once it stands."""

    def __init__(
        self,
        proxy: UpstreamProxy,
        protocol: asyncio.Protocol,
        target: str,
        asked: asyncio.Future[None],
        *,
        server_first: bool,
    ) -> None:
        self._server_first = server_first
        self._protocol = protocol
        self._asked = asked
        self._transport: asyncio.Transport | None = None
        self._answer = b""
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if proxy.user or proxy.password:
            pair = f"{proxy.user}:{proxy.password.reveal() if proxy.password else ''}"
            lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode('ascii')}")
        self._question = "\r\n".join((*lines, "", "")).encode("ascii")
        self._vouch = proxy.vouch

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        if self._vouch is not None and not self._vouch():
            self._fail("is not what listens at its port")
            return
        self._transport.write(self._question)
        self._question = b""

    def data_received(self, data: bytes) -> None:
        """Read the answer's head; nothing may stand behind it where the upstream speaks second."""
        self._answer += data
        head, end, more = self._answer.partition(b"\r\n\r\n")
        if not end and len(head) <= _MAX_ANSWER:
            return
        status = head[9:12] if head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")) else b""
        unasked = more and status.startswith(b"2") and not self._server_first
        if not end or not status.isdigit() or unasked:
            self._fail("answered with something else than HTTP")
        elif status == b"407":
            self._fail("wants another user or password (407)")
        elif not status.startswith(b"2"):
            self._fail(f"did not open the way (status {status.decode('ascii')})")
        elif self._transport is not None and not self._asked.done():
            transport, self._transport = self._transport, None
            transport.set_protocol(self._protocol)
            self._asked.set_result(None)
            self._protocol.connection_made(transport)
            if more:
                self._protocol.data_received(more)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Say that no answer came."""
        self._transport = None
        self._fail("closed the connection without an answer")

    def abort(self) -> None:
        """Give up."""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, what: str) -> None:
        if not self._asked.done():
            self._asked.set_exception(UpstreamError("upstream_proxy", f"the operator's proxy {what}"))
        self.abort()
