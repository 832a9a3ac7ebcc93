"""Which addresses egress may dial."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.addresses import address_refusal

REFUSED = {
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "10.0.0.1": "private",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.168.1.1": "private",
    "169.254.1.1": "link_local",
    "100.64.0.1": "shared",
    "100.127.255.255": "shared",
    "192.0.0.1": "reserved",
    "192.0.2.1": "documentation",
    "198.18.0.1": "benchmark",
    "192.88.99.1": "reserved",
    "240.0.0.1": "reserved",
    "::1": "loopback",
    "fc00::1": "private",
    "fd12::1": "private",
    "fe80::1": "link_local",
    "fec0::1": "private",
    "2001:db8::1": "documentation",
    "3fff::1": "documentation",
    "100::1": "reserved",
    "5f00::1": "reserved",
    "64:ff9b:1::808:808": "private",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:10.1.2.3": "private",
    "::10.1.2.3": "private",
    "64:ff9b::10.0.0.1": "private",
    "64:ff9b::127.0.0.1": "loopback",
    "2002:7f00:1::": "loopback",
    "2002:a00:1::1": "private",
    "2001:0:0a00:1:0:0:f7f7:f7f7": "private",
    "2001:0:808:808:0:0:f5ff:fffe": "private",
}
NEVER = {
    "169.254.169.254": "metadata",
    "169.254.170.2": "metadata",
    "100.100.100.200": "metadata",
    "168.63.129.16": "metadata",
    "fd00:ec2::254": "metadata",
    "::ffff:169.254.169.254": "metadata",
    "64:ff9b::a9fe:a9fe": "metadata",
    "2002:a9fe:a9fe::": "metadata",
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "::": "unspecified",
    "::ffff:0.0.0.0": "unspecified",
    "224.0.0.1": "multicast",
    "ff02::1": "multicast",
    "255.255.255.255": "broadcast",
}
PUBLIC = ["1.1.1.1", "8.8.8.8",
          "198.51.100.1", "203.0.113.1", "93.184.216.34", "172.15.0.1", "172.32.0.1",
          "100.63.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808",
          "2002:808:808::1"]  # fmt: skip
EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@pytest.mark.parametrize(("address", "reason"), REFUSED.items())
def test_refused_unless_named(address: str, reason: str) -> None:
    assert address_refusal(address) == reason
    assert address_refusal(address, EVERYWHERE) is None
    assert address_refusal(address, pinned=True) is None


@pytest.mark.parametrize(("address", "reason"), NEVER.items())
def test_never_even_if_named(address: str, reason: str) -> None:
    assert address_refusal(address) == reason
    assert address_refusal(address, EVERYWHERE) == reason
    assert address_refusal(address, pinned=True) == reason


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert address_refusal(address) is None


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "0x7f.0.0.1", "1.2.3", "::1%lo0", "fe80::1%eth0", "[::1]"]
)
def test_no_address_is_refused(text: str) -> None:
    assert address_refusal(text, EVERYWHERE, pinned=True) in {"malformed", "link_local"}


def test_exemptions_are_exact() -> None:
    ten = (ip_network("10.1.0.0/16"),)
    assert address_refusal("10.1.2.3", ten) is None
    assert address_refusal("::ffff:10.1.2.3", ten) is None
    assert address_refusal("10.2.0.1", ten) == "private"
    assert address_refusal("64:ff9b::10.1.2.3", ten) == "private"
    assert address_refusal("127.0.0.1", ten) == "loopback"


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_every_v4_is_judged_alike_in_v6_clothes(value: int) -> None:
    plain = address_refusal(str(IPv4Address(value)))
    for prefix in (0xFFFF << 32, 0x64_FF9B << 96):
        assert address_refusal(str(IPv6Address(prefix | value))) == plain
    assert address_refusal(str(IPv6Address(0x2002 << 112 | value << 80))) == plain
    if plain is None:
        assert IPv4Address(value).is_global or str(IPv4Address(value)).startswith("192.0.0.")


@given(st.integers(min_value=0, max_value=2**128 - 1))
def test_no_special_v6_passes(value: int) -> None:
    address = IPv6Address(value)
    if address_refusal(str(address)) is None:
        assert not (address.is_loopback)
        assert not (address.is_link_local)
        assert not (address.is_multicast)
        assert not (address.is_unspecified)
        assert address not in ip_network("fc00::/7")
