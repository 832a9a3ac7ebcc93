"""C3: a server that echoes the request never brings the credential in; judged by what came back."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import zlib
from ipaddress import ip_network
from typing import TYPE_CHECKING

import brotli
import pytest
import zstandard

from bot_bottle.egress.routes import RouteAuth
from bot_bottle.egress.table import RouteTable
from bot_bottle.secret import Secret
from tests.integration.egress_lab import (
    SECONDS,
    InProcess,
    Sidecar,
    Stream,
    Upstream,
    config,
    ok,
    route,
    serve,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

TOKEN = "sk-echo-3f9aQm7Zx1Lr8Tn5Vb2Kc6Wd0Ys4Hg-reflected"
PASSWORD = "p4ss w0rd/with+odd=chars"
AUTH = {
    "bearer.test": RouteAuth(scheme="Bearer", token_ref="TOKEN"),
    "basic.test": RouteAuth(scheme="Basic", token_ref="PASSWORD", name="me"),
    "header.test": RouteAuth(scheme="header", token_ref="TOKEN", name="X-Api-Key"),
    "query.test": RouteAuth(scheme="query", token_ref="TOKEN", name="api_key"),
    "open.test": None,
}
SECRETS = {"TOKEN": Secret(TOKEN), "PASSWORD": Secret(PASSWORD)}
PAIR = base64.b64encode(f"me:{PASSWORD}".encode())
FORBIDDEN = (
    TOKEN.encode(),
    PASSWORD.encode(),
    PAIR,
    base64.b64encode(TOKEN.encode())[:-4],
    TOKEN.encode().hex().encode(),
)

CODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


def echo(head: bytes, body: bytes) -> bytes:
    """Answer as the path says, with all of the request in the answer."""
    target = head.split(b" ")[1]
    path = target.partition(b"?")[0]
    text = head + body
    if path == b"/headers":
        return ok(b"see headers", b"X-Echo: " + text.replace(b"\r\n", b"|") + b'\r\nETag: "v1"\r\n')
    if path == b"/moved":
        return b"HTTP/1.1 302 Found\r\nLocation: https://other.test%b\r\nContent-Length: 0\r\n\r\n" % target
    if path == b"/phrase":
        return b"HTTP/1.1 401 no %b\r\nContent-Length: 0\r\n\r\n" % text.replace(b"\r\n", b" ")
    if path == b"/early":
        return b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n%b" % (text.replace(b"\r\n", b"|"), ok())
    if path == b"/json":
        return ok(
            json.dumps(
                {"args": text.decode(), "b64": base64.b64encode(text).decode(), "hex": text.hex()}
            ).encode()
        )
    if path == b"/chunked":
        pieces = b"".join(b"%x\r\n%b\r\n" % (1, text[at : at + 1]) for at in range(len(text)))
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\nX-Trailer: %b\r\n\r\n" % (
            pieces,
            text.replace(b"\r\n", b"|"),
        )
    if path.startswith(b"/coded/"):
        coding = path.removeprefix(b"/coded/").replace(b"%2C%20", b", ").decode()
        data = CODINGS[coding](text * 50)
        if b"HEAD" in head[:5]:
            return b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (
                coding.encode(),
                len(data),
            )
        return ok(data, b"Content-Encoding: %b\r\n" % coding.encode())
    if path.startswith(b"/charset/"):
        charset = path.removeprefix(b"/charset/").decode()
        wanted = text.decode("latin-1").encode(charset if charset != "none" else "utf-32-be", "replace")
        kind = f"text/plain; charset={charset}" if charset != "none" else "text/plain"
        return ok(wanted, f"Content-Type: {kind}\r\n".encode())
    if path == b"/connect":
        packed = gzip.compress(text)
        envelope = b"\1" + len(packed).to_bytes(4, "big") + packed
        return ok(envelope, b"Content-Type: application/connect+proto\r\nConnect-Content-Encoding: gzip\r\n")
    if path == b"/connect/unsaid":
        packed = gzip.compress(text)
        envelope = b"\1" + len(packed).to_bytes(4, "big") + packed
        return ok(envelope, b"Content-Type: application/connect+proto\r\n")
    if path == b"/difference":
        return b"HTTP/1.1 226 IM Used\r\nIM: diffe\r\nContent-Length: 4\r\n\r\nsk-e"
    if path == b"/unknown":
        return ok(text, b"Content-Encoding: rot47\r\n")
    if path == b"/broken":
        return ok(b"no gzip at all", b"Content-Encoding: gzip\r\n")
    if path == b"/cut":
        return ok(gzip.compress(text * 50)[:-20], b"Content-Encoding: gzip\r\n")
    if path == b"/bomb":
        return ok(gzip.compress(b"\0" * 64 * 1024 * 1024), b"Content-Encoding: gzip\r\n")
    if path == b"/partial":
        return b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-3/99\r\nContent-Length: 4\r\n\r\nsk-e"
    if path == b"/not-modified":
        return b'HTTP/1.1 304 Not Modified\r\nETag: "v1"\r\nContent-Encoding: gzip\r\n\r\n'
    return ok(text)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sidecar, list[bytes]]]:
    tmp_path = tmp_path_factory.mktemp("reflection")
    handler, heads = serve(echo)
    with Upstream(handler) as upstream:
        settings = config(
            tmp_path,
            [route(host, auth=auth) for host, auth in AUTH.items()],
            pins=dict.fromkeys(AUTH, upstream.pin),
            secrets=SECRETS,
        )
        with Sidecar(tmp_path, settings) as sidecar:
            yield sidecar, heads
            log = sidecar.audit_file.read_bytes()
            assert not any(text in log for text in FORBIDDEN)


def everything(
    stream: Stream, host: str, path: str, method: str = "GET", extra: str = ""
) -> tuple[int, bytes]:
    """Ask and give the status and every byte of the answer."""
    answer = stream.get(host, path, method, extra)
    lines = "\r\n".join(f"{name}: {value}" for name, value in answer.all_headers)
    return answer.status, f"{answer.line}\r\n{lines}\r\n\r\n".encode("latin-1") + answer.body


HIDDEN = [host for host, auth in AUTH.items() if auth]
PATHS = [
    "/",
    "/headers",
    "/moved",
    "/phrase",
    "/json",
    "/chunked",
    *(f"/coded/{coding.replace(', ', '%2C%20')}" for coding in CODINGS),
]


@pytest.mark.parametrize("host", HIDDEN)
def test_c3_no_echo_shows_the_credential(world: tuple[Sidecar, list[bytes]], host: str) -> None:
    sidecar, heads = world
    with sidecar.tunnel(host) as stream:
        for path in PATHS:
            status, answer = everything(stream, host, f"{path}?mark=1")
            assert status < 500, answer
            assert PAIR in heads[-1] if host == "basic.test" else TOKEN.encode() in heads[-1]
            assert not any(text in answer for text in FORBIDDEN), (path, answer)
            if path != "/moved" or host == "query.test":  # that one echoes the target alone
                assert b"*" * 16 in answer, (path, answer)
            assert b"mark=1" in answer  # and nothing else is gone


def test_an_interim_answer_is_searched_too(world: tuple[Sidecar, list[bytes]]) -> None:
    sidecar, _heads = world
    with sidecar.tunnel("bearer.test") as stream:
        status, answer = everything(stream, "bearer.test", "/early")
        assert status == 103
        assert TOKEN.encode() not in answer
        assert b"Bearer ***" in answer
        assert stream.response().body == b"ok"


def test_lengths_and_validators_stay_and_nothing_is_asked_for_encoded(
    world: tuple[Sidecar, list[bytes]],
) -> None:
    sidecar, heads = world
    with sidecar.tunnel("bearer.test") as stream:
        answer = stream.get("bearer.test", "/headers", extra="Accept-Encoding: gzip\r\nRange: bytes=0-4\r\n")
        assert b"accept-encoding: identity\r\n" in heads[-1].lower()
        assert b"gzip" not in heads[-1]
        assert b"range" not in heads[-1].lower()
        assert answer.headers["etag"] == '"v1"'
        plain = stream.get("bearer.test", "/")
        assert int(plain.headers["content-length"]) == len(heads[-1])
        assert plain.body.replace(b"*" * len(TOKEN), TOKEN.encode()) == heads[-1]
        assert stream.get("bearer.test", "/not-modified").headers["etag"] == '"v1"'
        head = stream.get("bearer.test", "/coded/gzip", "HEAD")
        assert "content-encoding" not in head.headers
        assert "content-length" not in head.headers
        assert stream.get("bearer.test", "/").status == 200


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/unknown", "response_unreadable"),
        ("/broken", "response_unreadable"),
        ("/partial", "response_partial"),
        ("/bomb", "response_too_large"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    world: tuple[Sidecar, list[bytes]], path: str, reason: str
) -> None:
    sidecar, _heads = world
    with sidecar.tunnel("bearer.test") as stream:
        answer = stream.get("bearer.test", path)
        assert (answer.status, answer.reason) == (502, reason)
        assert answer.json["rule"] == "egress.reflection"
    line = sidecar.records()[-1]
    assert (line["decision"], line["reason"], line["path"]) == ("deny", reason, path)


def test_an_encoded_answer_that_is_cut_short_does_not_look_whole(world: tuple[Sidecar, list[bytes]]) -> None:
    sidecar, _heads = world
    with sidecar.tunnel("bearer.test") as stream, pytest.raises(ConnectionError):
        stream.get("bearer.test", "/cut")
    assert any("cut off" in line["message"] for line in sidecar.records("answer"))


def test_a_route_without_a_credential_is_passed_on_as_it_is(world: tuple[Sidecar, list[bytes]]) -> None:
    sidecar, heads = world
    with sidecar.tunnel("open.test") as stream:
        answer = stream.get("open.test", "/unknown", extra="Range: bytes=0-4\r\nAccept-Encoding: br\r\n")
        assert answer.headers["content-encoding"] == "rot47"
        assert b"Range: bytes=0-4" in heads[-1]
        assert stream.get("open.test", "/partial").status == 206


def test_trace_is_refused(world: tuple[Sidecar, list[bytes]]) -> None:
    sidecar, heads = world
    count = len(heads)
    with sidecar.tunnel("bearer.test") as stream:
        assert stream.get("bearer.test", "/", "TRACE").reason == "method_denied"
    assert len(heads) == count


@pytest.mark.parametrize("charset", ["utf-32", "utf-7", "cp037", "cp500", "none"])
def test_no_charset_hides_a_credential(world: tuple[Sidecar, list[bytes]], charset: str) -> None:
    sidecar, _heads = world
    with sidecar.tunnel("bearer.test") as stream:
        answer = stream.get("bearer.test", f"/charset/{charset}")
    if charset == "none":  # said by nobody: known by its bytes
        assert answer.status == 200
        assert TOKEN not in answer.body.decode("utf-32-be", "replace")
    else:
        assert (answer.status, answer.reason) == (502, "response_unreadable")


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "iso-8859-1", "windows-1252", "utf-16"])
def test_usual_charsets_are_read(world: tuple[Sidecar, list[bytes]], charset: str) -> None:
    sidecar, _heads = world
    with sidecar.tunnel("bearer.test") as stream:
        answer = stream.get("bearer.test", f"/charset/{charset}")
    assert answer.status == 200
    assert "authorization: Bearer ***" in answer.body.replace(b"\0", b"").decode("latin-1").replace(
        "A", "a", 1
    )
    assert TOKEN not in answer.body.decode(charset, "replace")


@pytest.mark.parametrize("path", ["/connect", "/difference"])
def test_what_only_a_client_could_put_together_is_refused(
    world: tuple[Sidecar, list[bytes]], path: str
) -> None:
    sidecar, _heads = world
    with sidecar.tunnel("bearer.test") as stream:
        answer = stream.get("bearer.test", path)
    assert answer.status == 502
    assert answer.reason in {"response_unreadable", "response_partial"}


def test_a_packed_message_that_nobody_announced_ends_the_answer(world: tuple[Sidecar, list[bytes]]) -> None:
    sidecar, _heads = world
    with sidecar.tunnel("bearer.test") as stream, pytest.raises(ConnectionError):
        stream.get("bearer.test", "/connect/unsaid")


def test_nothing_that_asks_for_another_form_of_the_answer_goes_on(
    world: tuple[Sidecar, list[bytes]],
) -> None:
    sidecar, heads = world
    asked = (
        "Accept-Charset: utf-32\r\nConnect-Accept-Encoding: gzip\r\nA-IM: diffe\r\n"
        "X_Accept_Charset: cp037\r\n"
        "Accept: text/html;charset=utf-32;q=0.9, text/plain ; charset=cp500, */*;q=0.1\r\nX-Other: kept\r\n"
    )
    with sidecar.tunnel("bearer.test") as stream:
        stream.get("bearer.test", "/plain", extra=asked)
    head = heads[-1].lower()
    for gone in (b"charset", b"a-im", b"gzip", b"utf-32", b"cp500"):
        assert gone not in head
    assert b"accept: text/html;q=0.9, text/plain, */*;q=0.1\r\n" in head
    assert b"x-other: kept" in head


def test_what_was_taken_out_is_on_record_once_an_answer(world: tuple[Sidecar, list[bytes]]) -> None:
    sidecar, _heads = world
    before = len(sidecar.records("answer"))
    with sidecar.tunnel("bearer.test") as stream:
        stream.get("bearer.test", "/json")
    told = sidecar.records("answer")[before:]
    assert [(line["host"], line["message"]) for line in told] == [
        ("bearer.test", "a credential was taken out of the answer")
    ]


def test_events_come_as_they_are_sent_and_of_what_has_no_end_the_last_word_waits(tmp_path: Path) -> None:
    go_on = threading.Semaphore(0)
    token = TOKEN.encode()
    sent = [b"data: 1\n\n", b"data: " + token[:20], token[20:] + b"\n\n", b"data: 2\n\n"]

    def handler(sock: socket.socket) -> None:
        Stream(sock).until(b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for event in sent:
            sock.sendall(b"%x\r\n%b\r\n" % (len(event), event))
            assert go_on.acquire(timeout=SECONDS)  # the next one only after the client has this one
        sock.sendall(b"0\r\n\r\n")

    got = b""
    with Upstream(handler) as upstream:
        settings = config(
            tmp_path,
            [route("bearer.test", auth=AUTH["bearer.test"])],
            pins={"bearer.test": upstream.pin},
            secrets=SECRETS,
        )
        with Sidecar(tmp_path, settings) as sidecar, sidecar.tunnel("bearer.test") as stream:
            stream.send(b"GET / HTTP/1.1\r\nHost: bearer.test\r\n\r\n")
            stream.until(b"\r\n\r\n")
            for end in (b"data: 1\n\n", b"data: ", b"*\n\n", b"data: 2\n\n"):
                while not got.endswith(end):
                    size = int(stream.until(b"\r\n"), 16)
                    got += stream.exactly(size)
                    stream.exactly(2)
                go_on.release()
    assert got == b"data: 1\n\ndata: " + b"*" * len(token) + b"\n\ndata: 2\n\n"


def test_a_credential_that_is_replaced_under_way_is_not_shown_either(tmp_path: Path) -> None:
    """What was written into the head is what is searched for, not what holds by the time of the answer."""
    handler, heads = serve(echo)
    labs: list[InProcess] = []

    async def resolve(_host: str, _port: int) -> list[str]:
        labs[0].proxy.decide_by(RouteTable(routes, {"TOKEN": Secret("another-token-0a1b2c3d4e5f")}))
        return ["127.0.0.1"]

    with Upstream(handler) as upstream:
        inside = (ip_network("127.0.0.1/32"),)
        routes = [
            route("bearer.test", auth=AUTH["bearer.test"], ports=(upstream.port,), ssrf_ip_allowlist=inside)
        ]
        with InProcess(tmp_path, config(tmp_path, routes, secrets=SECRETS), resolver=resolve) as lab:
            labs.append(lab)
            with lab.tunnel("bearer.test", upstream.port) as stream:
                status, answer = everything(stream, f"bearer.test:{upstream.port}", "/json")
    assert TOKEN.encode() in heads[0]
    assert status == 200
    assert not any(text in answer for text in FORBIDDEN), answer
