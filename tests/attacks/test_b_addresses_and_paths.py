"""B8-B10: an allowed name at a forbidden address, credentials in the clear, and paths read in two ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot_bottle.verify.sinkhole import PUBLIC_V4
from tests.attacks import inside
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

FORBIDDEN = (
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "172.16.5.4",
    "172.31.255.254",
    "192.168.1.1",
    "169.254.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.8",
    "192.0.2.7",
    "198.18.0.1",
    "224.0.0.251",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::1",
    "2002:c0a8:101::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "2001:db8::1",
)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_b8_an_allowed_name_at_a_forbidden_address(bottle: RunningBottle, world: World, address: str) -> None:
    marker = new_marker("b8")
    world.call("dns", name=f"{marker}.wild.test", answers=[[address]])
    for scheme in ("https", "http"):
        answer = bottle.sh(f"curl -sS -m 5 {scheme}://{marker}.wild.test/{marker}").json()
        assert answer["error"] == "bot_bottle_denied"
    assert not any(marker in seen.target for seen in world.records().requests)
    assert len(bottle.denied(marker)) == 2


@pytest.mark.parametrize("answers", [[PUBLIC_V4, "127.0.0.1"], ["127.0.0.1", PUBLIC_V4], ["::1", PUBLIC_V4]])
def test_b8_one_bad_address_among_good_ones_is_never_dialled(
    bottle: RunningBottle, world: World, answers: list[str]
) -> None:
    marker = new_marker("b8")
    world.call("dns", name=f"{marker}.wild.test", answers=[answers])
    bottle.sh(f"curl -sS -m 5 https://{marker}.wild.test/{marker}")
    dialled = {seen.local[0] for seen in world.records().requests if marker in seen.target}
    assert dialled <= {PUBLIC_V4}


def test_b8_rebinding_between_requests(bottle: RunningBottle, world: World) -> None:
    """Each answer is checked before its own connection; a good first answer buys nothing for the second."""
    marker = new_marker("b8")
    name = f"{marker}.wild.test"
    world.call("dns", name=name, answers=[[PUBLIC_V4], ["127.0.0.1"]])
    first = bottle.sh(f"curl -sS -m 5 -H 'Connection: close' https://{name}/{marker}-1").json()
    assert first["target"] == f"/{marker}-1"
    bottle.sh(f"curl -sS -m 5 -H 'Connection: close' http://{name}/{marker}-2")
    bottle.sh(f"curl -sS -m 5 -H 'Connection: close' http://{name}/{marker}-3")
    dialled = {seen.local[0] for seen in world.records().requests if marker in seen.target}
    assert dialled == {PUBLIC_V4}


def test_b8_the_address_checked_is_the_address_dialled(bottle: RunningBottle, world: World) -> None:
    """One look-up per connection: a second answer between check and connect is never asked for."""
    marker = new_marker("b8")
    name = f"{marker}.wild.test"
    world.call("dns", name=name, answers=[["93.184.215.77"], ["10.0.0.1"]])
    bottle.sh(f"curl -sS -m 5 https://{name}/{marker}")
    (seen,) = [seen for seen in world.records().requests if marker in seen.target]
    assert seen.local == ("93.184.215.77", 443)
    questions = [question for question in world.records().questions if question.name == name]
    assert sum(question.kind == 1 for question in questions) == 1


LITERALS = (
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0x7f000001",
    "0177.0.0.1",
    "017700000001",
    "0",
    "0.0.0.0",
    "169.254.169.254",
    "2852039166",
    "10.0.0.1",
    "[::1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "45.33.250.250",
)


@pytest.mark.parametrize("literal", LITERALS)
def test_b8_addresses_in_every_spelling(bottle: RunningBottle, world: World, literal: str) -> None:
    marker = new_marker("b8")
    code = """
answer = ask(proxy(), f"GET http://{literal}/{marker} HTTP/1.1\\r\\nHost: {literal}\\r\\n\\r\\n")
tell(answer=answer)
"""
    answer = inside.run(bottle, code, literal=literal, marker=marker)["answer"]
    assert inside.refusal(answer), answer
    assert world.reached(marker) == []


def test_b9_no_credential_over_plain_http(bottle: RunningBottle, world: World, token: str) -> None:
    marker = new_marker("b9")
    for option in ("", "--noproxy '*'"):
        answer = bottle.sh(f"curl -sS -m 5 {option} http://api.test/{marker}").json()
        assert answer["reason"] == "plaintext_credential"
    assert world.reached(marker) == []
    assert not any(token.encode() in seen.raw for seen in world.records().requests if not seen.tls)
    assert {line["reason"] for line in bottle.denied(marker)} == {"plaintext_credential"}


def test_b9_plain_http_is_decided_like_any_request(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("b9")
    bottle.sh(f"curl -sS -m 5 http://{marker}.evil.test/; curl -sS -m 5 http://paths.test/private/{marker}")
    assert world.reached(marker) == []
    assert [line["reason"] for line in bottle.denied(marker)] == ["host_not_allowed", "path_not_allowed"]


@pytest.mark.parametrize("option", ["", "--noproxy '*'"])
def test_b10_below_the_prefix_is_open(bottle: RunningBottle, world: World, option: str) -> None:
    marker = new_marker("b10")
    for path in (f"/public/{marker}", f"/public/a/b/{marker}?x=/../y", f"/public/%E2%82%AC/{marker}"):
        assert bottle.sh(f"curl -sS -m 5 -g {option} 'https://paths.test{path}'").json()["target"] == path


OUTSIDE_THE_PREFIX = (
    "/private/{m}",
    "/{m}",
    "/publicity/{m}",
    "/PUBLIC/{m}",
    "/Public/{m}",
    "/public/../private/{m}",
    "/public/./../private/{m}",
    "/public/..;/private/{m}",
    "/public;x=/../private/{m}",
    "/public/%2e%2e/private/{m}",
    "/public/%2E%2e/private/{m}",
    "/public/.%2e/private/{m}",
    "/public/%252e%252e/private/{m}",
    "/public/%25252e%25252e/private/{m}",
    "/public/..%2fprivate/{m}",
    "/public/..%2Fprivate/{m}",
    "/public/..%252fprivate/{m}",
    "/public/..%5cprivate/{m}",
    "/public/..\\private/{m}",
    "/public/a/../../private/{m}",
    "/public/%2e%2e%2fprivate/{m}",
    "//private/{m}",
    "/public//../private/{m}",
    "//public/../private/{m}",
    "/./private/{m}",
    "/public%2f..%2fprivate/{m}",
    "/%70ublic/../private/{m}",
    "/public/%00/../private/{m}",
    "/public/%c0%ae%c0%ae/private/{m}",
    "/public/..%c0%afprivate/{m}",
    "/public/%u002e%u002e/private/{m}",
    "/private/{m}?/public/",
    "/private/{m}#/public/",
    "/private/{m};/public/",
)


@pytest.mark.parametrize("path", OUTSIDE_THE_PREFIX)
def test_b10_no_reading_of_a_path_leaves_its_prefix(bottle: RunningBottle, world: World, path: str) -> None:
    marker = new_marker("b10")
    code = """
sock, _ = connect("paths.test:443")
tunnel = tls(sock, "paths.test")
answer = ask(tunnel, f"GET {path} HTTP/1.1\\r\\nHost: paths.test\\r\\n\\r\\n")
tell(answer=answer)
"""
    answer = inside.run(bottle, code, path=path.format(m=marker))["answer"]
    assert world.reached(marker) == []
    assert inside.refusal(answer)["reason"] in {"path_not_allowed", "path_ambiguous", "bad_request"}


@pytest.mark.parametrize(
    ("method", "headers", "reason"),
    [
        ("POST", "", "method_not_allowed"),
        ("DELETE", "", "method_not_allowed"),
        ("get", "", "bad_request"),
        ("GET", "-H 'X-HTTP-Method-Override: DELETE'", "method_override"),
        ("GET", "-H 'X-HTTP-Method: DELETE'", "method_override"),
        ("GET", "-H 'X-Method-Override: DELETE'", "method_override"),
        ("GET", "-H 'x-http-method-override: GET'", "method_override"),
    ],
)
def test_b10_methods_cannot_be_overridden(
    bottle: RunningBottle, world: World, method: str, headers: str, reason: str
) -> None:
    marker = new_marker("b10")
    answer = bottle.sh(f"curl -sS -m 5 -X {method} {headers} https://read.test/{marker}").json()
    assert answer["reason"] == reason
    assert world.reached(marker) == []
    if reason != "bad_request":  # what cannot be read has no path to record
        assert [line["reason"] for line in bottle.denied(marker)] == [reason]


def test_b10_an_open_method_is_open(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("b10")
    assert bottle.sh(f"curl -sS -m 5 https://read.test/{marker}").json()["method"] == "GET"
    assert world.reached(marker)


def test_b10_trace_is_refused(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("b10")
    assert bottle.sh(f"curl -sS -m 5 -X TRACE https://api.test/{marker}").json()["reason"] == "method_denied"
    assert world.reached(marker) == []
