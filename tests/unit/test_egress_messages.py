"""Headers and request targets: what is kept, what is dropped, what cannot be read in one way only."""

from __future__ import annotations

import json

import pytest

from bot_bottle.decision import Deny
from bot_bottle.egress.denial import denial_body, denial_headers, own_head
from bot_bottle.egress.grammar import BadMessageError
from bot_bottle.egress.headers import head_tail, read_request_headers, read_response_headers
from bot_bottle.egress.injection import injection
from bot_bottle.egress.routes import RouteAuth
from bot_bottle.egress.target import Arrival, origin_target, read_request, upstream_authority, with_sni
from bot_bottle.secret import Secret

PROXY = Arrival(via="absolute", scheme="http")
PLAIN = Arrival(via="transparent", scheme="http", port=80)
TUNNEL = Arrival(via="connect", scheme="https", port=443, claims=(("CONNECT authority", "a.test"),))

BEARER = RouteAuth(scheme="Bearer", token_ref="TOKEN")


def headers(*pairs: str) -> bytes:
    return "\r\n".join(pairs).encode()


def head(*pairs: str, auth: RouteAuth | None = None, **options: bool) -> list[bytes]:
    raw = b"POST /t " + head_tail(
        authority=b"a.test",
        facts=read_request_headers(headers(*pairs)),
        injection=injection(auth, {"TOKEN": Secret("real")}),
        **options,
    )
    assert raw.endswith(b"\r\n\r\n")
    return raw[:-4].split(b"\r\n")


@pytest.mark.parametrize(
    "dropped",
    [
        "Authorization: x",
        "authorization: x",
        "AUTHORIZATION: x",
        "Proxy-Authorization: x",
        "Proxy-Connection: x",
        "Proxy-Anything: x",
        "Keep-Alive: x",
        "TE: trailers",
        "Trailer: x",
        "Upgrade: h2c",
        "HTTP2-Settings: x",
        "Forwarded: x",
        "X-Forwarded-For: x",
        "X-Forwarded-Host: x",
        "X_Forwarded_Host: x",
        "X-Real-IP: x",
        "Via: x",
        "X-Original-URL: /x",
        "X-Rewrite-URL: /x",
        "X_Original_URI: /x",
        "X-Envoy-Original-Path: /x",
        "X-Bot-Bottle-Decision: allow",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Host: other.test",
        "X-HTTP_Method-Override: PUT",
    ],
)
def test_dropped_always(dropped: str) -> None:
    assert head(dropped, "X-Kept: 1") == [b"POST /t HTTP/1.1", b"Host: a.test", b"X-Kept: 1"]


@pytest.mark.parametrize(
    "name",
    [
        "X-Api-Key", "api-key", "X-Goog-Api-Key", "Private-Token",
        "x_api_key", "DD-API-KEY", "DD_APPLICATION_KEY", "X-Auth-Key",
        "X-Auth-User-Service-Key", "X-Shopify-Access-Token", "Shopify-Storefront-Private-Token",
        "Circle-Token", "X-Vault-Token", "X-Figma-Token", "Job-Token", "X-Amz-Security-Token",
        "X-NuGet-ApiKey", "X-JFrog-Art-Api", "xi_api_key", "X-RapidAPI-Key",
        "X-Some-Auth-Token", "X-API-Token",
    ],
)  # fmt: skip
def test_other_credentials_are_dropped_with_an_injected_one_and_without(name: str) -> None:
    assert head(f"{name}: mine", auth=BEARER) == [
        b"POST /t HTTP/1.1",
        b"Host: a.test",
        b"Authorization: Bearer real",
        b"Accept-Encoding: identity",
    ]
    assert head(f"{name}: mine") == [b"POST /t HTTP/1.1", b"Host: a.test"]


@pytest.mark.parametrize("own", ["X-Key: mine", "x-key: mine", "X_Key: mine"])
def test_a_named_header_is_the_routes_own_alone(own: str) -> None:
    auth = RouteAuth(scheme="header", token_ref="TOKEN", name="X-Key")
    assert head(own, "X-Kept: 1", auth=auth) == [
        b"POST /t HTTP/1.1",
        b"Host: a.test",
        b"X-Key: real",
        b"X-Kept: 1",
        b"Accept-Encoding: identity",
    ]


@pytest.mark.parametrize(
    "line", ["Range: bytes=0-1", "If-Range: x", "Accept-Encoding: gzip", "accept_encoding: br"]
)
def test_where_a_credential_goes_the_answer_is_asked_for_whole_and_unencoded(line: str) -> None:
    assert head(line, auth=BEARER)[3:] == [b"Accept-Encoding: identity"]
    assert head(line)[2:] == [line.encode()]


def test_cookies_are_dropped_where_the_route_says_so() -> None:
    lines = ("Cookie: a=b", "cookie2: c", "X-Kept: 1")
    assert head(*lines, cookies=False)[2:] == [b"X-Kept: 1"]
    assert len(head(*lines)) == 5


def test_headers_named_by_connection_are_dropped() -> None:
    lines = head("Connection: close, X-Hop , cookie", "X-Hop: 1", "Cookie: 1", "X-Kept: 1")
    assert lines[2:] == [b"X-Kept: 1"]


def test_framing_is_written_from_what_was_parsed() -> None:
    assert head("Content-Length: 5")[-1] == b"Content-Length: 5"
    assert head("Content-Length: 005")[-1] == b"Content-Length: 5"
    assert head("Transfer-Encoding: CHUNKED")[-1] == b"Transfer-Encoding: chunked"
    assert head("Content-Length: 5", "Expect: 100-Continue")[-1] == b"Expect: 100-continue"
    assert len(head("Expect: 100-continue")) == 2


@pytest.mark.parametrize("websocket", [True, False])
@pytest.mark.parametrize(
    "mine",
    [
        "openai-insecure-api-key.sk-mine", "base64url.bearer.authorization.k8s.io.bWluZQ", "header-bWluZQ",
        "Authorization.Mine", "access_token_mine",
    ],
)  # fmt: skip
def test_no_credential_goes_as_a_websockets_subprotocol(mine: str, websocket: bool) -> None:
    lines = head(f"Sec-WebSocket-Protocol: realtime, {mine} ,graphql-transport-ws", websocket=websocket)
    assert lines[2] == b"sec-websocket-protocol: realtime, graphql-transport-ws"
    assert not any(
        b"protocol" in line for line in head(f"sec-websocket-protocol: {mine}", websocket=websocket)
    )


def test_a_header_that_only_ends_in_key_or_token_goes_on() -> None:
    lines = ("Idempotency-Key: 1", "X-CSRF-Token: 2", "Sec-WebSocket-Key: 3", "X-Api-Keys: 4")
    assert head(*lines)[2:] == [line.encode() for line in lines]


def test_websocket_extensions_are_not_offered() -> None:
    lines = head("Upgrade: websocket", "Sec-WebSocket-Extensions: x", "Sec-WebSocket-Key: k", websocket=True)
    assert lines[2:] == [b"Sec-WebSocket-Key: k", b"Connection: Upgrade", b"Upgrade: websocket"]


@pytest.mark.parametrize(
    "pairs",
    [
        ("Host: a", "Host: a"),
        ("Content-Length: 1", "Content-Length: 1"),
        ("Content-Length: 1", "Transfer-Encoding: chunked"),
        ("Content-Length: -1",),
        ("Content-Length: +1",),
        ("Content-Length: 1,1",),
        ("Content-Length: 0x1",),
        ("Content-Length: ",),
        ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: identity",),
        ("Transfer-Encoding: chunked, gzip",),
        ("Transfer-Encoding: gzip, chunked",),
        ("Transfer-Encoding: xchunked",),
    ],
)
def test_framing_that_can_be_read_in_two_ways(pairs: tuple[str, ...]) -> None:
    with pytest.raises(BadMessageError):
        read_request_headers(headers(*pairs))


def test_responses_lose_what_is_between_two_hops_and_what_is_ours() -> None:
    facts = read_response_headers(
        headers(
            "Connection: keep-alive, X-Hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=7, max=3",
            "Content-Length: 4",
            "X-Bot-Bottle-Reason: forged",
            "Set-Cookie: a=b",
            "Set-Cookie: c=d",
        ),
        http_1_0=True,
    )
    assert facts.kept == [b"Set-Cookie: a=b", b"Set-Cookie: c=d"]
    assert (facts.content_length, facts.keep_alive, facts.idle_seconds) == (4, True, 7.0)
    assert not read_response_headers(b"", http_1_0=True).keep_alive
    assert not read_response_headers(headers("Connection: Close"), http_1_0=False).keep_alive


@pytest.mark.parametrize(
    ("arrival", "target", "host", "wanted"),
    [
        (PROXY, "http://a.test/x?y", "a.test", ("a.test", 80, "/x", "y")),
        (PROXY, "http://A.test.:8080", "a.test:8080", ("a.test", 8080, "/", "")),
        (PROXY, "http://[::1]:81/", "[::1]:81", ("::1", 81, "/", "")),
        (PROXY, "http://0x7f.1/", "127.0.0.1", ("127.0.0.1", 80, "/", "")),
        (PROXY, "http://a.test?q", "a.test", ("a.test", 80, "/", "q")),
        (PLAIN, "/x", "a.test", ("a.test", 80, "/x", "")),
        (PLAIN, "/x", "a.test:80", ("a.test", 80, "/x", "")),
        (PLAIN, "http://a.test/x", "a.test", ("a.test", 80, "/x", "")),
        (TUNNEL, "/x??y", "a.test:443", ("a.test", 443, "/x", "?y")),
        (TUNNEL, "https://a.test/x", "a.test", ("a.test", 443, "/x", "")),
    ],
)
def test_targets(arrival: Arrival, target: str, host: str, wanted: tuple[str, int, str, str]) -> None:
    facts = read_request_headers(headers(f"Host: {host}"))
    request = read_request(arrival, method="GET", target=target, headers=facts)
    assert (request.host, request.port, request.path, request.query) == wanted
    assert origin_target(target).startswith("/")
    assert upstream_authority(request.scheme, request.host, request.port) in {
        b"a.test",
        b"a.test:8080",
        b"[::1]:81",
        b"127.0.0.1",
    }


@pytest.mark.parametrize(
    ("arrival", "target", "host"),
    [
        (PROXY, "/x", "a.test"),
        (PROXY, "https://a.test/", "a.test"),
        (PROXY, "ftp://a.test/", "a.test"),
        (PROXY, "http://", "a.test"),
        (PROXY, "http:///x", "a.test"),
        (PROXY, "http://u:p@a.test/", "a.test"),
        (PROXY, "http://a.test/#f", "a.test"),
        (PROXY, "http://a.test:0/", "a.test"),
        (PROXY, "http://a.test\\b.test/", "a.test"),
        (PROXY, "http://a.test/", "a.test:81"),
        (PROXY, "*", "a.test"),
        (PROXY, "a.test:443", "a.test"),
        (PLAIN, "/x", "a.test:8080"),
        (PLAIN, "/x", "a test"),
        (PLAIN, "/x", ""),
        (PLAIN, "http://a.test:81/", "a.test:81"),
        (PLAIN, "https://a.test/", "a.test"),
        (TUNNEL, "http://a.test/", "a.test"),
        (TUNNEL, "/x", "a.test:8443"),
        (TUNNEL, "/x", "a.test, b.test"),
        (TUNNEL, "*", "a.test"),
    ],
)
def test_targets_that_are_no_one_clear_thing(arrival: Arrival, target: str, host: str) -> None:
    with pytest.raises(BadMessageError):
        read_request(
            arrival, method="GET", target=target, headers=read_request_headers(headers(f"Host: {host}"))
        )


def test_claims_are_gathered_from_every_layer() -> None:
    arrival = with_sni(TUNNEL, "B.test")
    facts = read_request_headers(headers("Host: d.test"))
    request = read_request(arrival, method="GET", target="https://c.test/", headers=facts)
    assert request.host == "d.test"
    assert request.claims == (("CONNECT authority", "a.test"), ("SNI", "b.test"), ("request URI", "c.test"))
    assert with_sni(TUNNEL, None).sni_missing
    assert with_sni(TUNNEL, "not a host").claims[-1] == ("SNI", "(not a host name)")


def test_a_refusal_cannot_be_broken_out_of() -> None:
    deny = Deny(reason="r\r\nX: y", rule="rüle", message='m"\n', next_step="n")
    lines = denial_headers(deny)
    assert ("X-Bot-Bottle-Reason", "r??X: y") in lines
    assert ("X-Bot-Bottle-Rule", "r?le") in lines
    body = json.loads(denial_body(deny, host="h", identity="i"))
    assert body["message"] == 'm"\n'
    head_ = own_head(403, 2, lines, close=True)
    assert head_.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert head_.endswith(b"Connection: close\r\n\r\n")
    assert head_.count(b"\r\n") == 9
