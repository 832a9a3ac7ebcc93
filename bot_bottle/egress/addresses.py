"""Which resolved addresses egress may dial.

An allowed name must not lead to this machine, its networks or a cloud's metadata service, whatever its DNS
says (server-side request forgery, DNS rebinding). The table is ours, since ``ipaddress.is_global`` changes
between Python versions. Only ``2000::/3`` is public in IPv6, so what no line names is refused.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.egress.routes import Network

Address: TypeAlias = IPv4Address | IPv6Address

#: Never dialled, even where a route's ``ssrf_ip_allowlist`` or a pin names them.
_NEVER_V4: tuple[tuple[IPv4Network, str], ...] = (
    (IPv4Network("169.254.169.254/32"), "metadata"),  # AWS, Azure, GCP, OpenStack, DigitalOcean
    (IPv4Network("169.254.170.0/23"), "metadata"),  # AWS ECS and EKS task credentials
    (IPv4Network("100.100.100.200/32"), "metadata"),  # Alibaba Cloud
    (IPv4Network("168.63.129.16/32"), "metadata"),  # Azure wire server
    (IPv4Network("192.0.0.192/32"), "metadata"),  # Oracle Cloud
    (IPv4Network("0.0.0.0/8"), "unspecified"),  # RFC 1122; Linux takes 0.0.0.0 for this machine
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("255.255.255.255/32"), "broadcast"),
)
_NEVER_V6: tuple[tuple[IPv6Network, str], ...] = (
    (IPv6Network("fd00:ec2::254/128"), "metadata"),  # AWS
    (IPv6Network("fd00:ec2::23/128"), "metadata"),  # AWS EKS pod identity
    (IPv6Network("fd20:ce::254/128"), "metadata"),  # GCP
    (IPv6Network("::/128"), "unspecified"),
    (IPv6Network("ff00::/8"), "multicast"),
)

#: Dialled only where the route's ``ssrf_ip_allowlist`` names them.
_REFUSED_V4: tuple[tuple[IPv4Network, str], ...] = (
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("10.0.0.0/8"), "private"),  # RFC 1918
    (IPv4Network("172.16.0.0/12"), "private"),
    (IPv4Network("192.168.0.0/16"), "private"),
    (IPv4Network("169.254.0.0/16"), "link_local"),  # RFC 3927
    (IPv4Network("100.64.0.0/10"), "shared"),  # RFC 6598, carrier-grade NAT
    (IPv4Network("192.0.0.0/24"), "reserved"),  # RFC 6890
    # RFC 5737, TEST-NET-1: hypervisors use it for the link to their host. TEST-NET-2 and -3 are not listed:
    # nothing is routed there, and closed labs need some address to stand for the public network.
    (IPv4Network("192.0.2.0/24"), "documentation"),
    (IPv4Network("192.88.99.0/24"), "reserved"),  # RFC 7526, former 6to4 relays
    (IPv4Network("198.18.0.0/15"), "benchmark"),  # RFC 2544
    (IPv4Network("240.0.0.0/4"), "reserved"),  # RFC 1112
)
_REFUSED_V6: tuple[tuple[IPv6Network, str], ...] = (
    (IPv6Network("::1/128"), "loopback"),
    (IPv6Network("fc00::/7"), "private"),  # RFC 4193
    (IPv6Network("fe80::/10"), "link_local"),
    (IPv6Network("fec0::/10"), "private"),  # RFC 3879, former site-local
    (IPv6Network("64:ff9b:1::/48"), "private"),  # RFC 8215, local-use NAT64
    (IPv6Network("2001:db8::/32"), "documentation"),
    (IPv6Network("3fff::/20"), "documentation"),  # RFC 9637
    (IPv6Network("2001:2::/48"), "benchmark"),  # RFC 5180
    (IPv6Network("2001:10::/28"), "reserved"),  # ORCHID
    (IPv6Network("2001:20::/28"), "reserved"),  # ORCHIDv2
)
_PUBLIC_V6 = IPv6Network("2000::/3")

_MAPPED = IPv6Network("::ffff:0:0/96")
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")

#: Names of metadata services; refused before any look-up, whatever the routes say.
METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.azure.internal",
        "metadata.azure.com",
        "metadata.tencentyun.com",
        "instance-data",
        "instance-data.ec2.internal",
    }
)


@lru_cache(maxsize=1024)
def address_refusal(text: str, exempt: tuple[Network, ...] = (), *, pinned: bool = False) -> str | None:
    """Say why ``text``, an IP address, must not be dialled (``"loopback"``, …), or give ``None``.

    ``exempt`` is the route's ``ssrf_ip_allowlist``; ``pinned`` says the operator wrote this very address.
    Both lift every refusal but the metadata, unspecified, multicast and broadcast ones. An IPv6 address
    that carries an IPv4 one is judged by both. Text that is no address is refused as ``"malformed"``.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return "malformed"
    if isinstance(address, IPv6Address) and address.scope_id:
        return "link_local"
    faces = (address, *_embedded(address))
    for face in faces:
        if reason := _lookup(face, _NEVER_V4, _NEVER_V6):
            return reason
    if pinned or _exempt(address, exempt):
        return None
    for face in faces:
        if reason := _lookup(face, _REFUSED_V4, _REFUSED_V6):
            return reason
    if isinstance(address, IPv6Address) and address not in _PUBLIC_V6 and len(faces) == 1:
        return "reserved"
    return None


def _exempt(address: Address, networks: Sequence[Network]) -> bool:
    # The kernel dials ::ffff:a.b.c.d as a.b.c.d, so naming the IPv4 network covers that spelling too.
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any(address in network or (mapped is not None and mapped in network) for network in networks)


def _lookup(
    address: Address,
    v4: Sequence[tuple[IPv4Network, str]],
    v6: Sequence[tuple[IPv6Network, str]],
) -> str | None:
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in v4 if address in network), None)
    return next((reason for network, reason in v6 if address in network), None)


def _embedded(address: Address) -> tuple[IPv4Address, ...]:
    """List the IPv4 addresses that an IPv6 address stands for."""
    if isinstance(address, IPv4Address):
        return ()
    value = int(address)
    low = value & 0xFFFFFFFF
    if address in _MAPPED or address in _NAT64 or (address in _COMPATIBLE and low > 1):
        return (IPv4Address(low),)
    if address in _NAT64_LOCAL:
        # RFC 6052, 2.2: with a /48 prefix the IPv4 bits stand around the reserved octet.
        split = ((value >> 64) & 0xFFFF) << 16 | (value >> 40) & 0xFFFF
        return tuple(IPv4Address(part) for part in (low, split) if part)
    if address in _SIX_TO_FOUR:
        return (IPv4Address((value >> 80) & 0xFFFFFFFF),)
    if address in _TEREDO:
        return (IPv4Address((value >> 64) & 0xFFFFFFFF), IPv4Address(low ^ 0xFFFFFFFF))
    return ()
