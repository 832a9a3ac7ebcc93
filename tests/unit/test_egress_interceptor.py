"""The preamble of a microVM's engine: one exact form is taken, and only with the token of this launch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.dns import answer
from bot_bottle.egress.interceptor import (
    MAGIC,
    TOKEN_BYTES,
    Flow,
    StrangerError,
    check_opening,
    read_flow,
    role_of,
)
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import Interception, SidecarConfig
from bot_bottle.sidecar.listeners import LISTENER_PORTS

TOKEN = bytes(range(TOKEN_BYTES))
HERE = "198.51.100.1"


def opening(token: bytes = TOKEN, *, magic: bytes = MAGIC, version: int = 1, family: int = 4) -> bytes:
    return magic + bytes([version]) + token + bytes([family])


def test_the_opening_tells_how_much_follows() -> None:
    assert check_opening(opening(), TOKEN) == 6
    assert check_opening(opening(family=6), TOKEN) == 18


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (opening(magic=b"SMOLMEG2"), "not_an_engine"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:40001\r\n\r\n", "not_an_engine"),
        (opening(TOKEN[:-1] + b"\xff"), "wrong_token"),
        (opening(bytes(TOKEN_BYTES)), "wrong_token"),
        (opening(version=2), "unknown_protocol"),
        (opening(family=0), "unknown_protocol"),
        (opening(family=5), "unknown_protocol"),
    ],
)
def test_anything_else_is_a_strangers(data: bytes, reason: str) -> None:
    with pytest.raises(StrangerError, match=f"^{reason}$"):
        check_opening(data[:42], TOKEN)


@given(st.binary(min_size=42, max_size=42))
def test_no_bytes_without_the_token_are_taken(data: bytes) -> None:
    with pytest.raises(StrangerError):
        check_opening(data, b"\xa5" * TOKEN_BYTES if TOKEN in data else TOKEN)


@pytest.mark.parametrize(
    ("role", "port"), [(role, port) for role, port in LISTENER_PORTS.items() if role != "dns-udp"]
)
def test_the_ports_of_every_bottle_are_there(role: str, port: int) -> None:
    flow = read_flow(port.to_bytes(2, "big") + bytes([198, 51, 100, 1]))
    assert role_of(flow, HERE) == role


@pytest.mark.parametrize(
    ("address", "port"),
    [
        (bytes([198, 51, 100, 1]), 22),
        (bytes([198, 51, 100, 1]), 0),
        (bytes([198, 51, 100, 1]), 8443),
        (bytes([198, 51, 100, 2]), 443),
        (bytes([127, 0, 0, 1]), 9099),
        (bytes([169, 254, 169, 254]), 80),
        (bytes([100, 96, 0, 1]), 9099),
        (bytes(10) + b"\xff\xff" + bytes([198, 51, 100, 1]), 443),
        (bytes(15) + b"\x01", 443),
    ],
)
def test_no_other_place_is_there(address: bytes, port: int) -> None:
    assert role_of(read_flow(port.to_bytes(2, "big") + address), HERE) is None


@given(st.integers(0, 65535), st.ip_addresses())
def test_a_role_needs_the_one_address(port: int, address: object) -> None:
    flow = Flow(address=address, port=port)  # type: ignore[arg-type]  # the strategy's own annotation is loose
    assert (role_of(flow, HERE) is not None) == (
        str(address) == HERE and port in {53, 80, 443, LISTENER_PORTS["proxy"], LISTENER_PORTS["git"]}
    )


def test_dns_there_names_the_one_address() -> None:
    reply = answer(
        b"\xbe\xef\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01",
        here=HERE,
        with_ipv6=False,
    )
    assert reply is not None
    assert reply.wire.endswith(bytes([198, 51, 100, 1]))


def test_the_token_crosses_the_pipe_and_is_never_shown() -> None:
    settings = Interception(token=Secret(TOKEN.hex()), address=HERE)
    config = SidecarConfig(identity="a-00001", routes=(), audit_path="/x", interception=settings)
    again = SidecarConfig.from_wire(config.to_wire())
    assert again.interception is not None
    assert (again.interception.token.reveal(), again.interception.address) == (TOKEN.hex(), HERE)
    assert TOKEN.hex() not in repr(config)
