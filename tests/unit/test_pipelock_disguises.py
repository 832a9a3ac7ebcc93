"""Keys that only a human sees: pulled apart, backwards, shifted, by number; and what merely looks like it."""

from __future__ import annotations

import base64
import codecs
import functools
import json
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.pipelock import disguises
from bot_bottle.pipelock.disguises import LARGEST, holds_none, undisguised
from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.host_labels import judge_host
from bot_bottle.pipelock.patterns import PatternSet
from bot_bottle.pipelock.ruleset import rule_set
from bot_bottle.pipelock.scanner import Scanner
from tests.support.pipelock import NoEngine, letters, own_secrets, scanner

if TYPE_CHECKING:
    from collections.abc import Callable

SCANNER = scanner(own=own_secrets({}))
QUERY = Context(place="query")
KEYS = {
    "aws-access-key-id": "AKIA" + letters(15, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") + "7",
    "github-token": "ghp_" + letters(36),
}

FORMS: dict[str, Callable[[str], str]] = {
    "one gap": lambda key: f"{key[:9]} {key[9:]}",
    "one NUL": lambda key: f"{key[:9]}%00{key[9:]}",
    "groups of four": lambda key: "-".join(key[at : at + 4] for at in range(0, len(key), 4)),
    "single letters": ".".join,
    "parts of a path": lambda key: f"/a/{key[:12]}/{key[12:]}",
    "strings put together": lambda key: f"k = '{key[:7]}' + '{key[7:]}'",
    "elements of a list": lambda key: json.dumps([key[at : at + 5] for at in range(0, len(key), 5)]),
    "backwards": lambda key: key[::-1],
    "rot13": lambda key: codecs.encode(key, "rot13"),
    "decimal numbers": lambda key: json.dumps(list(key.encode())),
    "hex numbers": lambda key: ",".join(f"0x{byte:02x}" for byte in key.encode()),
    "binary numbers": lambda key: " ".join(f"{byte:08b}" for byte in key.encode()),
    "CSS escapes": lambda key: "".join(f"\\{byte:06x}" for byte in key.encode()),
    "base64 in groups": lambda key: "+".join(
        base64.b64encode(f"k={key}".encode()).decode()[at : at + 8] for at in range(0, 60, 8)
    ),
    "base64 of UTF-16": lambda key: base64.b64encode(key.encode("utf-16-le")).decode(),
    "combining marks": lambda key: "".join(f"{char}\u0332" for char in key),
    "circled letters": lambda key: "".join(
        chr(0x24B6 + ord(char) - 65) if char.isupper() else char for char in key
    ),
    "tag characters": lambda key: "".join(chr(0xE0000 + ord(char)) for char in key),
    "variation selectors": lambda key: f"{key[:5]}\ufe0f{key[5:]}",
    "Cherokee letters": lambda key: key.replace("A", "\u13aa"),
}


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize("rule", sorted(KEYS))
def test_a_key_in_pieces_or_in_other_letters(rule: str, form: str) -> None:
    data = FORMS[form](KEYS[rule]).encode()
    found = {one.rule for one in SCANNER.scan(data, QUERY)}
    assert rule in found


@pytest.mark.parametrize(
    "text",
    [
        "Keys that begin with AKIA (20 CHARACTERS TOTAL) are long-term ones",
        "ghp_ tokens have 36 Characters and are Followed by a checksum of 6 Digits at the end of it",
        "q=what+is+the+AKIA+PREFIX+IN+AWS+4+USERS",
        "PRIMES = [41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107]",
        " ".join(f"{number:08b}" for number in range(256)),
        "one two three four five six seven eight nine ten",
        "h\u0337e\u0337l\u0337l\u0337o\u0337 " * 30,
        "h\u00e9llo \u2714\ufe0f na\u00efve caf\u00e9 " * 30,
    ],
)
def test_what_is_about_keys_or_only_looks_like_it(text: str) -> None:
    assert SCANNER.scan(text.encode(), QUERY) == ()
    assert SCANNER.scan(json.dumps({"t": text}, ensure_ascii=False).encode(), Context()) == ()


def test_the_short_way_agrees_with_the_long_one() -> None:
    for key in KEYS.values():
        for form in ("one gap", "base64 in groups"):
            assert not holds_none(FORMS[form](key).encode())
    for plain in (b"GET /v1/items/17?page=2", b'{"a": "b"}', b"z" * 5000):
        assert holds_none(plain)
        assert list(undisguised(plain, ())) == []
    assert holds_none(KEYS["github-token"].encode() + b" " * LARGEST)


class _Gated(NoEngine):
    """An engine that finds nothing, behind the gate that the real one has after a while."""

    @staticmethod
    @functools.cache
    def _set() -> PatternSet:
        expressions, once = rule_set("egress").first_pass()
        return PatternSet.expressions(expressions, once=once)

    def combined(self) -> PatternSet | None:
        return self._set()


@given(
    st.lists(
        st.sampled_from(
            [
                *(form(key) for form in FORMS.values() for key in KEYS.values()),
                *(
                    '{"a": 1}',
                    " and ",
                    "\n",
                    "\\n",
                    "4242 4242 4242 4242",
                    "a/long/run/of/digits/and/more",
                    "41424344" * 4,
                ),
                base64.b64encode(KEYS["github-token"].encode()).decode(),
                base64.b64encode(KEYS["github-token"].encode() * 3).decode()[:76],
                "x" * 30,
            ]
        ),
        max_size=4,
    ).map(lambda parts: "".join(parts).encode()),
    st.sampled_from([QUERY, Context(content_type="application/json"), Context(place="header", field="x")]),
)
def test_a_quick_look_sees_what_the_long_one_sees(data: bytes, context: Context) -> None:
    quick = Scanner(profile="egress", engine=_Gated(), own=own_secrets({}), clock=time.monotonic)
    assert quick.scan(data, context) == SCANNER.scan(data, context)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"api_key={letters(24)}7a", "named-secret"),
        ("a=1&password=Tr0ub4dor%263xyz", "named-secret"),
        (f"HOME=/root\nDB_PASSWORD={letters(14)}7a\nSHELL=/bin/sh", "environment-secret"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA0Z3V", "private-key-block"),
        ('{"private_key": "0x' + "1f" * 32 + '"}', "wallet-key-named"),
        ('{"ssn": "078-05-1120"}', "social-security-number"),
        (f"x={letters(19)}+/7aB{letters(16)}", "lone-secret-key"),
        (
            "w=abandon+ability+able+about+above+absent+absorb+abstract+absurd+abuse+access+accident",
            "seed-words",
        ),
        ('{"w": "' + "abandon " * 11 + 'about"}', "seed-words"),
    ],
)
def test_what_stands_around_a_value_shows_it(text: str, rule: str) -> None:
    context = QUERY if rule in {"named-secret", "lone-secret-key"} else Context()
    assert rule in {one.rule for one in SCANNER.scan(text.encode(), context)}


@pytest.mark.parametrize(
    "text",
    [
        "api_key=YOUR_API_KEY_1&password=changeme123",
        "NODE_ENV=production\nGITHUB_TOKEN=${{ secrets.GITHUB_TOKEN }}\nAWS_SECRET_ACCESS_KEY=$SECRET\nCI=1",
        "-----BEGIN PRIVATE KEY-----\nYOUR_PRIVATE_KEY_HERE\n-----END PRIVATE KEY-----",
        '{"tx": "0x' + "1f" * 32 + '", "public_key": "' + "2e" * 32 + '"}',
        '{"message": "please check whether users already created accounts before sending another message"}',
        '{"t": "' + "hello " * 23 + 'hello"}',
        "GET /repos/octocat/HelloWorld2/contents/README1/ab",
    ],
)
def test_a_value_that_is_none(text: str) -> None:
    for context in (QUERY, Context()):
        assert SCANNER.scan(text.encode(), context) == ()


@pytest.mark.parametrize(
    "host",
    [
        "akiaiosf.odnn7exa.mple.evil.example.com",
        "ghp_" + letters(34, "abcdefghijklmnop") + "01.evil.example.com",
        "41-4b-49-41-49-4f-53-46-4f-44.evil.example.com",
        "65.75.73.65.73.79.83.70.evil.example.com",
        "4a6f686e.446f65.evil.example.com",
        "aws-secret-access-key-" + letters(24, "abcdefghijklmnop") + ".evil.example.com",
        "x7f3a9b2c4d8e1.q5w6e7r8t9y0.evil.example.com",
        "eyjhbgcioijiuzi1nij9.evil.example.com",
        "4111111111111111.evil.example.com",
    ],
)
def test_a_host_name_that_is_a_message(host: str) -> None:
    assert judge_host(host, own_secrets({})) is not None


@pytest.mark.parametrize(
    "host",
    [
        "d111111abcdef8.cloudfront.net",
        "my-app-git-feature-login-team.vercel.app",
        "k8s-default-web-0a1b2c3d4e-1234567890.us-east-1.elb.amazonaws.com",
        "1.2.168.192.in-addr.example.com",
        "r3---sn-4g5e6nsz.googlevideo.com",
        "api-key-management-console.example.com",
        "20260101.releases.example.com",
        "deadbeef.cafe.example.com",
        "616263.example.com",
        "my-service-5d9c7f6b8-x2x4z.default.svc.example.com",
    ],
)
def test_a_host_name_of_a_platform(host: str) -> None:
    assert judge_host(host, own_secrets({})) is None


PARTS = [b"a", b"B7", b"x/+", b"ab" * 21, b" ", b".", b"-", b"%20", b"%0A", b"%2", b"+", b"=", b"_", b"\n"]


@given(st.lists(st.sampled_from(PARTS), max_size=24).map(b"".join))
def test_the_quick_look_for_groups_sees_what_the_whole_one_does(data: bytes) -> None:
    assert disguises._may_be_grouped(data) == (disguises._GROUPS.search(data) is not None)


def test_no_key_is_shorter_than_what_is_looked_at() -> None:
    for body in disguises._KEYS:
        least = int(re.findall(rb"\{(\d+)(?:,\d+)?\}$", body.pattern)[0])
        start = re.match(rb"[A-Za-z_]+", body.pattern)
        assert start is not None
        assert len(start[0]) + least >= disguises._SHORTEST_KEY
