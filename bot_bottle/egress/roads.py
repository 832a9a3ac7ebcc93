"""Where a name leads, and the road there: the operator's pins, resolver and proxy, the check of addresses.

A host's addresses are resolved once a connection and every one is checked; what is dialled is an address
that passed, as a literal, so nothing can change between check and connect (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.egress.addresses import address_refusal
from bot_bottle.egress.hosts import is_ip_literal
from bot_bottle.egress.upstream import UpstreamError
from bot_bottle.egress.way import bound_unsent, proxy_for, through_proxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from bot_bottle.egress.routes import Network
    from bot_bottle.sidecar.config import Pin, UpstreamProxy

#: Resolves a host to address literals; raises ``OSError``.
Resolver: TypeAlias = "Callable[[str, int], Awaitable[list[str]]]"

_DNS_SECONDS = 10.0


async def system_resolver(host: str, port: int) -> list[str]:
    """Resolve with the operator's own resolver."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class Roads:
    """The operator's network as one sidecar uses it."""

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        pins: Mapping[str, Pin],
        proxy: UpstreamProxy | None = None,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._loop = loop
        self._pins = dict(pins)
        self._proxy = proxy
        self._resolver = resolver

    def around(self, host: str) -> bool:
        """Tell whether the operator's proxy may be on the way to ``host``, as far as its name says."""
        return host not in self._pins and proxy_for(self._proxy, host) is not None

    async def addresses(
        self, host: str, port: int, *, exempt: Sequence[Network] = (), declared: bool = False
    ) -> tuple[list[str], int]:
        """Give what may be dialled for ``host``, one address or more, and the port.

        ``exempt`` are networks that the operator opened for it; ``declared`` says that the operator wrote the
        host itself as a place of their own, internal or not, so that only what is never dialled is refused.
        Where a proxy that resolves is asked, the host stands for its addresses; where that is the second hop,
        all of them are checked first, since it knows what is opened for any route and not for which. Raises
        :class:`UpstreamError`.
        """
        hop = False
        pin = self._pins.get(host)
        if pin:
            candidates, port = [pin.address], pin.port or port
        elif is_ip_literal(host):
            candidates = [host]
        elif self._proxy and self._proxy.resolves and proxy_for(self._proxy, host):
            if self._proxy.vouch is None:
                return [host], port  # the operator leaves it to the proxy where a name leads
            hop = True
            try:
                candidates = await self._resolve(host, port)
            except UpstreamError:
                return [host], port  # it may know more names than this machine does
        else:
            candidates = await self._resolve(host, port)
        written = pin is not None or declared
        refusals = {
            address: address_refusal(address, tuple(exempt), pinned=written) for address in candidates
        }
        passed = [address for address, refusal in refusals.items() if refusal is None]
        if passed and not hop:
            return passed, port
        if passed and len(passed) == len(refusals):
            return [host], port
        if not refusals:
            raise UpstreamError("upstream_unreachable", f"{host} has no address")
        kinds = ", ".join(sorted({refusal for refusal in refusals.values() if refusal}))
        raise UpstreamError(
            "address_denied", f"{host} resolves to an address that is never dialled ({kinds})", denied=True
        )

    async def open(
        self,
        protocol: asyncio.Protocol,
        host: str,
        address: str,
        port: int,
        *,
        server_first: bool = False,
    ) -> None:
        """Connect ``protocol`` to an address of ``host``'s; a pin says how, so that no proxy is asked for it.

        ``server_first`` says that the server may speak before it is spoken to. Raises ``OSError`` and
        :class:`UpstreamError`.
        """
        shown = "" if address == host else address
        proxy = None if host in self._pins else proxy_for(self._proxy, host, shown)
        if proxy is None:
            transport, _ = await self._loop.create_connection(lambda: protocol, address, port)
            bound_unsent(transport.get_extra_info("socket"))
        else:
            await through_proxy(self._loop, proxy, protocol, address, port, server_first=server_first)

    async def _resolve(self, host: str, port: int) -> list[str]:
        try:
            async with asyncio.timeout(_DNS_SECONDS):
                return await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            raise UpstreamError("upstream_dns", f"{host} could not be resolved") from error
