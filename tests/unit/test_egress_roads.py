"""Where a name leads when somebody else resolves it too."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from bot_bottle.egress.roads import Roads
from bot_bottle.egress.upstream import UpstreamError
from bot_bottle.sidecar.config import UpstreamProxy

if TYPE_CHECKING:
    from bot_bottle.egress.routes import Network

NAMES = {
    "git.corp.test": ["10.1.2.3"],
    "blog.test": ["10.1.2.3"],
    "both.test": ["192.0.2.7", "10.1.2.3"],
    "fine.test": ["93.184.216.34"],
}


def addresses(host: str, proxy: UpstreamProxy, *exempt: Network) -> list[str]:
    async def resolve(name: str, _port: int) -> list[str]:
        if name not in NAMES:
            raise OSError("no such name")
        return NAMES[name]

    async def ask() -> tuple[list[str], int]:
        roads = Roads(loop=asyncio.get_running_loop(), pins={}, proxy=proxy, resolver=resolve)
        return await roads.addresses(host, 443, exempt=exempt)

    return asyncio.run(ask())[0]


def test_the_second_hop_gets_names_whose_addresses_their_own_route_opens() -> None:
    hop = UpstreamProxy(host="127.0.0.1", port=1, resolves=True, vouch=lambda: True)
    corp = ip_network("10.0.0.0/8")
    assert addresses("git.corp.test", hop, corp) == ["git.corp.test"]
    assert addresses("fine.test", hop) == ["fine.test"]
    assert addresses("unknown.test", hop) == ["unknown.test"]
    for host in ("blog.test", "both.test"):  # one address in ten would do for who may choose
        with pytest.raises(UpstreamError, match="never dialled"):
            addresses(host, hop)


def test_a_proxy_of_the_operators_that_resolves_is_left_to_it() -> None:
    assert addresses("blog.test", UpstreamProxy(host="127.0.0.1", port=1, resolves=True)) == ["blog.test"]
