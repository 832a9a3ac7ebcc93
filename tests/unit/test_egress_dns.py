"""The resolver that knows one answer: well-formed queries get it, nothing makes it fail."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.dns import answer

A, AAAA, ANY, TXT, MX, HTTPS = 1, 28, 255, 16, 15, 65


def query(
    name: bytes = b"\x04name\x04test\x00",
    kind: int = A,
    *,
    klass: int = 1,
    flags: int = 0x0100,
    counts: tuple[int, ...] = (1, 0, 0, 0),
    extra: bytes = b"",
) -> bytes:
    return struct.pack("!6H", 0xBEEF, flags, *counts) + name + struct.pack("!2H", kind, klass) + extra


def rcode(wire: bytes) -> int:
    return wire[3] & 0x0F


def counts(wire: bytes) -> tuple[int, ...]:
    return struct.unpack("!4H", wire[4:12])


@pytest.mark.parametrize(("kind", "data"), [(A, b"\x7f\x00\x00\x01"), (AAAA, b"\x00" * 15 + b"\x01")])
def test_addresses_are_the_sidecars_own(kind: int, data: bytes) -> None:
    reply = answer(query(kind=kind))
    assert reply is not None
    assert reply.name == "name.test"
    assert reply.wire[:2] == b"\xbe\xef"
    assert reply.wire[2] & 0x80
    assert reply.wire[2] & 0x01
    assert (rcode(reply.wire), counts(reply.wire)) == (0, (1, 1, 0, 0))
    assert reply.wire[12:27] == query(kind=kind)[12:27]
    assert reply.wire.endswith(struct.pack("!H", len(data)) + data)
    assert reply.wire[-len(data) - 12 :][:6] == b"\xc0\x0c" + struct.pack("!2H", kind, 1)


@pytest.mark.parametrize("kind", [ANY, TXT, MX, HTTPS, 2, 5, 6, 12, 33, 0, 65535])
def test_other_types_are_empty(kind: int) -> None:
    reply = answer(query(kind=kind))
    assert reply is not None
    assert (rcode(reply.wire), counts(reply.wire)) == (0, (1, 0, 0, 0))


def test_without_ipv6_there_is_no_ipv6_answer() -> None:
    reply = answer(query(kind=AAAA), with_ipv6=False)
    assert reply is not None
    assert counts(reply.wire) == (1, 0, 0, 0)


def test_other_classes_are_empty() -> None:
    reply = answer(query(klass=3))
    assert reply is not None
    assert (rcode(reply.wire), counts(reply.wire)) == (0, (1, 0, 0, 0))


def test_edns_is_answered_with_edns() -> None:
    opt = struct.pack("!BHHIH", 0, 41, 4096, 0, 4) + b"\x00\x0a\x00\x00"
    reply = answer(query(counts=(1, 0, 0, 1), extra=opt))
    assert reply is not None
    assert counts(reply.wire) == (1, 1, 0, 1)
    assert reply.wire.endswith(struct.pack("!BHHIH", 0, 41, 1232, 0, 0))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (query(counts=(0, 0, 0, 0)), 1),
        (query(counts=(2, 0, 0, 0)), 1),
        (query(name=b"\x04na"), 1),
        (query(name=b"\xc0\x0c"), 1),
        (query(name=b"\x40" + b"a" * 64 + b"\x00"), 1),
        (
            query(
                name=b"\x3f"
                + b"a" * 63
                + b"\x3f"
                + b"b" * 63
                + b"\x3f"
                + b"c" * 63
                + b"\x3f"
                + b"d" * 63
                + b"\x00"
            ),
            1,
        ),
        (query()[:-1], 1),
        (query()[:12], 1),
        (query(flags=0x1000), 4),
        (query(flags=0x2800), 4),
    ],
)
def test_malformed_and_unknown(message: bytes, code: int) -> None:
    reply = answer(message)
    assert reply is not None
    assert rcode(reply.wire) == code
    assert len(reply.wire) == 12
    assert reply.name == ""


@pytest.mark.parametrize("message", [b"", b"x", query()[:11], query(flags=0x8180)])
def test_silence(message: bytes) -> None:
    assert answer(message) is None


def test_names_cannot_carry_control_characters() -> None:
    reply = answer(query(name=b"\x06a\n.\x1b\xffb\x00"))
    assert reply is not None
    assert reply.name == r"a\010\046\027\255b"
    root = answer(query(name=b"\x00"))
    assert root is not None
    assert root.name == "."


@given(st.binary(max_size=600))
def test_nothing_makes_it_fail(data: bytes) -> None:
    reply = answer(data)
    if reply is not None:
        assert reply.wire[:2] == data[:2]
        assert len(reply.wire) <= len(data) + 60


@given(st.binary(max_size=300), st.integers(min_value=0, max_value=65535))
def test_nothing_behind_a_valid_header_makes_it_fail(data: bytes, kind: int) -> None:
    assert answer(struct.pack("!6H", 1, 0, 1, 0, 0, 1) + data + struct.pack("!H", kind)) is not None
