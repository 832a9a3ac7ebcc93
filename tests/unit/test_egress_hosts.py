"""One spelling a host: truth tables, properties, and the WHATWG corpora where they are at hand."""

from __future__ import annotations

import json
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot_bottle.egress.hosts import (
    Authority,
    HostError,
    format_authority,
    host_matches,
    is_ip_literal,
    normalise_host,
    parse_authority,
)

CORPORA = Path(os.environ.get("BOT_BOTTLE_CORPORA", Path(__file__).parents[3] / "shared" / "corpora"))


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("a_b.example", "a_b.example"),
        ("_egress.local", "_egress.local"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("EXAMPLE。com", "example.com"),
        ("localhost", "localhost"),
        ("1.2.3.4", "1.2.3.4"),
        ("1.2.3.4.", "1.2.3.4"),
        ("0x7f.1", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("1.2.0xffff", "1.2.255.255"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("[2001:DB8:0:0::0:1]", "2001:db8::1"),
        ("::ffff:127.0.0.1", "::ffff:7f00:1"),
    ],
)
def test_one_spelling(text: str, host: str) -> None:
    assert normalise_host(text) == host
    assert normalise_host(host) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a..",
        "a b",
        "a\tb",
        "a\x00b",
        "a\nb",
        "a%2eb",
        "%61",
        "u@h",
        "a:80",
        "a/b",
        "a\\b",
        "a?b",
        "a#b",
        "-a.b",
        "a-.b",
        "a.b-",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "[::1",
        "::1]",
        "[[::1]]",
        "[::1%lo]",
        "fe80::1%eth0",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.256",
        "4294967296",
        "0x1ffffffff",
        "08.1.1.1",
        "1.2.3.x4.9",
        "a.1",
        "a.0x1",
        "1..2",
        "straße.de",
        "faß.de",
        "a\u200db",
        "*.a",
        "a,b",
        "a;b",
        "a'b",
        "(a)",
        "[1.2.3.4]",
    ],
)
def test_no_host(text: str) -> None:
    with pytest.raises(HostError):
        normalise_host(text)


@given(st.text(max_size=40))
@example("0x.0")
def test_normal_form_is_stable_and_plain(text: str) -> None:
    try:
        host = normalise_host(text)
    except HostError:
        return
    assert normalise_host(host) == host
    assert host.isascii()
    assert host == host.lower()
    assert not any(char in host for char in " /\\@?#%[]\x00\r\n\t*,")
    if is_ip_literal(host):
        assert str(ip_address(host)) == host
    else:
        assert ":" not in host
        with pytest.raises(ValueError):
            ip_address(host)


@given(st.integers(min_value=0, max_value=2**32 - 1), st.sampled_from(["dec", "hex", "oct", "two", "three"]))
def test_every_number_is_its_address(value: int, form: str) -> None:
    text = {
        "dec": str(value),
        "hex": hex(value),
        "oct": f"0{value:o}",
        "two": f"{value >> 24}.{value & 0xFFFFFF}",
        "three": f"{value >> 24}.{value >> 16 & 255}.0x{value & 0xFFFF:x}",
    }[form]
    assert normalise_host(text) == str(ip_address(value))
    assert is_ip_literal(normalise_host(text))


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("a.b", Authority("a.b", None)),
        ("A.b.:80", Authority("a.b", 80)),
        ("[::1]", Authority("::1", None)),
        ("[::1]:65535", Authority("::1", 65535)),
        ("0x7f.1:1", Authority("127.0.0.1", 1)),
    ],
)
def test_authorities(text: str, authority: Authority) -> None:
    assert parse_authority(text) == authority
    assert parse_authority(format_authority(authority.host, authority.port)) == authority


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:080",
        "a:+80",
        "a: 80",
        "a:8 0",
        "a:80:80",
        "::1",
        "::1:80",
        "[::1]80",
        "[::1]:",
        "u@a:80",
        "a:u@b:80",
        "[::1",
        "a:٣",
    ],
)
def test_no_authority(text: str) -> None:
    with pytest.raises(HostError):
        parse_authority(text)


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("a.test", "a.test", True),
        ("a.test", "b.a.test", False),
        ("*.a.test", "b.a.test", True),
        ("*.a.test", "c.b.a.test", True),
        ("*.a.test", "a.test", False),
        ("*.a.test", "xa.test", False),
        ("*.1.2.3", "4.1.2.3", False),
        ("1.2.3.4", "1.2.3.4", True),
    ],
)
def test_patterns(pattern: str, host: str, matches: bool) -> None:
    assert host_matches(pattern, host) is matches


def corpus(name: str) -> list[dict[str, Any]]:
    path = CORPORA / "urls" / name
    if not path.is_file():
        pytest.skip(f"the corpus {name} is not at BOT_BOTTLE_CORPORA ({CORPORA})")
    return [case for case in json.loads(path.read_text()) if isinstance(case, dict)]


def test_whatwg_hosts_are_read_alike_or_refused() -> None:
    """Where we accept a URL's host, a browser must see the same host; more than it accepts we never do."""
    agreed = 0
    for case in corpus("urltestdata.json"):
        scheme, separator, rest = case["input"].partition("://")
        if not separator or scheme not in {"http", "https"}:
            continue
        text = rest.partition("/")[0].partition("?")[0].partition("#")[0]
        try:
            authority = parse_authority(text)
        except HostError:
            continue
        if case.get("failure"):
            assert not authority.host.isascii(), f"{text!r} is a failure for WHATWG but {authority} for us"
        elif case.get("hostname"):
            assert format_authority(authority.host) == case["hostname"].rstrip("."), text
            agreed += 1
    assert agreed > 60


def test_whatwg_to_ascii_is_read_alike_or_refused() -> None:
    agreed = 0
    for case in corpus("toascii.json"):
        try:
            host = normalise_host(case["input"])
        except HostError:
            continue
        if case["output"] is None or not case["input"].isascii():
            continue  # stricter or looser Unicode tables cannot matter: on the wire only ASCII is taken
        assert host == case["output"].rstrip(".").lower(), case
        agreed += 1
    assert agreed > 10
