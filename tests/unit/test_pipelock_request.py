"""Heads of requests, paths, host labels, and the window over several requests."""

from __future__ import annotations

import base64
import string
from typing import TYPE_CHECKING

import pytest

from bot_bottle.pipelock.fields import body_fields, query_fields
from bot_bottle.pipelock.host_labels import judge_host
from bot_bottle.pipelock.path_tokens import opaque_segment
from bot_bottle.pipelock.request import RequestScanner
from bot_bottle.pipelock.selection import Selection
from bot_bottle.pipelock.session import Session
from tests.support.pipelock import ALNUM, SECRETS, letters, own_secrets, scanner

if TYPE_CHECKING:
    from bot_bottle.pipelock.finding import Finding

OWN = own_secrets()
REQUESTS = RequestScanner(scanner(own=OWN))
HEX = "0123456789abcdef"
KEY = ("ghp_" + letters(36)).encode()
USUAL = (
    (b"Host", b"api.example.com"),
    (b"User-Agent", b'pip/24.2 {"ci":null}'),
    (b"Accept-Encoding", b"gzip, br"),
)


def _scan(
    path: bytes = b"/",
    query: bytes = b"",
    headers: tuple[tuple[bytes, bytes], ...] = USUAL,
    *,
    rules: bool = True,
) -> tuple[Finding, ...]:
    return REQUESTS.scan(
        method=b"GET", path=path, query=query, headers=headers, selection=Selection(rules=rules)
    )


@pytest.mark.parametrize(
    ("place", "field", "request_"),
    [
        ("path", "", {"path": b"/a/" + KEY}),
        ("query", "", {"query": b"a=b&t=" + KEY}),
        ("header", "X-Token", {"headers": (*USUAL, (b"X-Token", KEY))}),
        ("cookie", "Cookie", {"headers": (*USUAL, (b"Cookie", b"a=b; c=" + KEY))}),
        ("header", "a name of 42 characters", {"headers": (*USUAL, (b"X-" + KEY, b"1"))}),
    ],
)
def test_it_is_said_where(place: str, field: str, request_: dict[str, bytes]) -> None:
    for _ in range(2):  # the second time the headers may be known
        (found,) = _scan(**request_)  # type: ignore[arg-type]
        assert (found.rule, found.where.place, found.where.field) == ("github-token", place, field)
        assert KEY.decode() not in repr(found)


def test_the_method_is_looked_at_too() -> None:
    assert REQUESTS.scan(method=KEY, path=b"/", query=b"", headers=USUAL)


def test_headers_that_were_clean_are_judged_again_when_they_change() -> None:
    assert _scan() == ()
    assert _scan() == ()
    assert _scan(headers=(*USUAL[:2], (b"Accept-Encoding", KEY)))
    assert _scan(headers=(*USUAL[:2], (b"Accept-Encoding", KEY)), rules=False) == ()
    assert _scan(headers=(*USUAL[:2], (b"Accept-Encoding", KEY)))


def test_many_clients_do_not_make_it_grow() -> None:
    for number in range(2000):
        assert _scan(headers=((b"X-N", b"%d" % number),)) == ()
    assert len(REQUESTS._clean) <= 512


@pytest.mark.parametrize(
    "path",
    [
        "/simple/requests/",
        "/packages/4d/2a/" + letters(60, HEX) + "/requests-2.32.3-py3-none-any.whl",
        "/repos/octocat/Hello-World/git/commits/" + letters(40, HEX),
        "/v2/library/python/blobs/sha256:" + letters(64, HEX),
        "/resources/550e8400-e29b-41d4-a716-446655440000/details",
        "/document/d/" + letters(44),
        "/_next/static/chunks/" + letters(20) + ".js",
        "/pkg/@babel/plugin-proposal-unicode-property-regex/-/plugin-proposal-unicode-property-regex-7.18.6.tgz",
        "/some-very-long-article-title-that-goes-on-and-on-about-Nothing-In-Particular-since-2019-or-so.html",
        "/crates/clap_derive/clap_derive-4.5.18.crate",
        "/img/" + letters(64),
    ],
)
def test_names_in_paths(path: str) -> None:
    assert opaque_segment(path.encode()) == b""
    assert _scan(path.encode()) == ()


@pytest.mark.parametrize(
    "token",
    [letters(80), letters(200, ALNUM + "-_"), base64.urlsafe_b64encode(bytes(range(100, 180))).decode()],
)
def test_opaque_tokens_in_paths(token: str) -> None:
    (found,) = _scan(f"/api/{token}/x".encode())
    assert (found.kind, found.rule) == ("opaque_token", "opaque-path-token")
    assert token not in repr(found)
    assert _scan(f"/api/{token}/x".encode(), rules=False) == ()


@pytest.mark.parametrize(
    ("host", "zone"),
    [
        ("pypi.example", ""),
        ("www.example.com", ""),
        ("d111111abcdef8.cdn.example", ""),
        ("a1b2c3d4.cdn.example", "*.cdn.example"),
        ("r3---sn-4g5e6nsz.video.example", "*.video.example"),
        ("xn--mnchen-3ya.example.de", ""),
        ("my-bucket-2024.s3.us-east-1.example", "*.example"),
        ("k8s-default-web-0123456789.eu-west-1.elb.example", "*.example"),
        ("550e8400-e29b-41d4-a716-446655440000.apps.example", "*.apps.example"),
        ("a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6-1234567890.us-east-1.elb.example", "*.example"),
        ("registry-1.docker.example", ""),
        ("ec2-54-210-13-7.compute-1.example", "*.example"),
        ("internationalization-workshop.example.org", ""),
        ("127.0.0.1", ""),
        ("project-git-feature-branch-team.preview.example", "*.preview.example"),
        ("12345678901234567890.example.net", ""),
    ],
)
def test_names_of_hosts(host: str, zone: str) -> None:
    assert judge_host(host, OWN, zone=zone) is None


@pytest.mark.parametrize(
    "host",
    [
        b"JohnDoe".hex() + ".exfil.evil.example.com",
        b"postgres://user:pass@db".hex() + ".exfil.evil.com",
        base64.b32encode(b"my secret text").decode().lower().rstrip("=") + ".evil.com",
        letters(30, string.ascii_lowercase + string.digits) + ".evil.com",
        ".".join(letters(8, HEX) for _ in range(8)) + ".evil.com",
        ".".join([letters(24, string.ascii_lowercase + string.digits)] * 3) + ".e.com",
        ".".join(letters(60, string.ascii_lowercase) for _ in range(3)) + ".evil.com",
        b"key=abc".hex() + "." + b"value12".hex() + ".evil.com",
    ],
)
def test_messages_in_names_of_hosts(host: str) -> None:
    found = judge_host(host, OWN)
    assert found is not None
    assert (found.kind, found.where.place) == ("opaque_token", "host")
    assert judge_host("a." + host, OWN, zone="*.evil.com" if host.endswith(".evil.com") else "") is not None


def test_the_operators_own_labels_are_not_judged() -> None:
    zone = "a1b2c3d4.e5f6a7b8.c9d0e1f2.a3b4c5d6.example.com"
    assert judge_host(f"www.{zone}", OWN, zone=f"*.{zone}") is None


def test_the_window_is_bounded_and_forgets() -> None:
    session = Session(OWN)
    value = SECRETS["LONG"]
    assert session.request(path=b"/", query=b"d=" + value[:20].encode(), headers=()) == ()
    for number in range(400):
        filler = letters(60).encode()
        assert session.request(path=b"/%d" % number, query=b"k%d=" % number + filler, headers=()) == ()
    assert len(session._fields) <= 128
    assert len(session._tail) <= 8192


def test_honest_traffic_makes_no_message() -> None:
    session = Session(OWN)
    for number in range(300):
        path = f"/packages/{letters(2, HEX)}/{letters(60, HEX)}/pkg-{number}.whl".encode()
        assert (
            session.request(
                path=path, query=f"page={number}&sort=asc".encode(), headers=USUAL, host="files.example"
            )
            == ()
        )
        assert session.body(b'{"id": %d, "query": "list"}' % number, "application/json") == ()


def test_fields() -> None:
    assert query_fields(b"a=1&b=%41+c&d") == [(b"a", b"1"), (b"b", b"A c"), (b"d", b"")]
    assert body_fields(b'{"a": {"b": ["x", 1, null, true, 2.5]}}', "application/json") == [
        (b"b", b"x"),
        (b"b", b"1"),
        (b"b", b"2.5"),
    ]
    assert body_fields(b'{"a": "1"}\n{"a": "2"}\n', "application/x-ndjson") == [(b"a", b"1"), (b"a", b"2")]
    assert body_fields(b"{" * 5000, "application/json") == []
    assert body_fields(b"[" * 100_000, "application/json") == []
    assert body_fields(b"x", "image/png") == []
    assert body_fields(b"x", "multipart/form-data") == []
    part = b'--q\r\nContent-Disposition: form-data; name="f"; filename="x"\r\n\r\nvalue\r\n--q--'
    assert (b"f", b"value") in body_fields(part, 'multipart/form-data; boundary="q"')
