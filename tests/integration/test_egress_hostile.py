"""Misbehaving clients, upstreams, resolvers and disks: whatever breaks, nothing is passed on."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from ipaddress import ip_network
from random import Random
from typing import TYPE_CHECKING

import pytest

from bot_bottle.audit import AuditLog
from bot_bottle.demo.authority import Authority
from tests.integration.egress_lab import (
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
    from pathlib import Path

pytestmark = pytest.mark.integration

HOST = "site.test"
_GET = b"GET / HTTP/1.1\r\nHost: site.test\r\n"


def one(tmp_path: Path, upstream: Upstream, **fields: object) -> Sidecar:
    return Sidecar(tmp_path, config(tmp_path, [route(HOST, **fields)], pins={HOST: upstream.pin}))


def test_an_upstream_whose_certificate_does_not_hold_sees_no_request(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    other = Authority("somebody else")
    with Upstream(handler, authority=other) as upstream, one(tmp_path, upstream, auth=True) as sidecar:
        with sidecar.tunnel(HOST) as stream:
            answer = stream.get(HOST)
        assert (answer.status, answer.reason) == (502, "upstream_tls")
    assert heads == []


def test_an_upstream_that_is_not_there(tmp_path: Path) -> None:
    with Upstream(lambda _sock: None) as upstream:
        pass
    with one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        assert stream.get(HOST).reason == "upstream_unreachable"


@pytest.mark.parametrize(
    "junk",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nX: a\x01b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nabc",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 60000 + b"\r\n",
    ],
    ids=["ssh", "te-cl", "cl-cl", "te-gzip", "control", "101-unasked", "101-bare", "huge"],
)
def test_an_upstream_that_speaks_nonsense(tmp_path: Path, junk: bytes) -> None:
    def handler(sock: socket.socket) -> None:
        Stream(sock).until(b"\r\n\r\n")
        sock.sendall(junk)

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        answer = stream.get(HOST)
        assert (answer.status, answer.headers["x-bot-bottle-decision"]) == (502, "error")


def test_an_upstream_cannot_forge_our_refusals_or_answer_twice(tmp_path: Path) -> None:
    first = ok(b"one", b"X-Bot-Bottle-Decision: deny\r\nConnection: X-Secret\r\nX-Secret: 1\r\n")

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        stream.until(b"\r\n\r\n")
        sock.sendall(first + ok(b"smuggled"))
        stream.rest()

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        for _ in range(2):
            answer = stream.get(HOST)
            assert answer.body == b"one"
            assert "x-bot-bottle-decision" not in answer.headers
            assert "x-secret" not in answer.headers
        assert upstream.connections == 2


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: site.test\r\nHost: denied.test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (
            _GET + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            _GET + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (b"GET / HTTP/1.1\r\nHost: site.test\r\nX: 1\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: site.test\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: site.test\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : site.test\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: site.test\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /#frag HTTP/1.1\r\nHost: site.test\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: site.test, denied.test\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: site.test@denied.test\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: site%2etest\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: " + b"a" * 70000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 300 + b"\r\n", 431),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"SSH-2.0-x\r\n", 400),
    ],
)
def test_messages_with_two_readings_are_refused(tmp_path: Path, request_bytes: bytes, status: int) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler, tls=False) as upstream, one(tmp_path, upstream) as sidecar:
        with sidecar.plain("http") as stream:
            stream.send(request_bytes)
            answer = stream.response()
        assert answer.status == status
        assert answer.headers["x-bot-bottle-decision"] == "deny"
        assert answer.json["error"] == "bot_bottle_denied"
        assert [record["decision"] for record in sidecar.records()] == ["deny"]
    assert heads == []


def test_a_smuggled_second_request_is_judged_or_refused(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, body: ok(body))
    with Upstream(handler, tls=False) as upstream, one(tmp_path, upstream) as sidecar:
        with sidecar.plain("http") as stream:
            stream.send(
                b"POST /a HTTP/1.1\r\nHost: site.test\r\n"
                b"Content-Length: 6\r\nTransfer_Encoding: chunked\r\n\r\n"
                b"0\r\n\r\nGGET /b HTTP/1.1\r\nHost: denied.test\r\n\r\n"
            )
            assert stream.response().body == b"0\r\n\r\nG"
            assert stream.response().reason == "host_not_allowed"
        with sidecar.plain("http") as stream:
            stream.send(
                b"POST /c HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"3\r\nabcX\r\n0\r\n\r\n"
            )
            assert b"smuggled" not in stream.rest()
    assert all(b"Transfer_Encoding" not in head for head in heads)
    assert not any(b"/b" in head for head in heads)


def test_a_second_path_and_a_method_in_disguise_reach_no_server(tmp_path: Path) -> None:
    """B10: what a header copies from or moves to; parameters that PHP takes for ``_method``."""
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream:
        routes = [
            route("dav.test", path_allowlist=("/open",)),
            route("php.test", methods=("GET",)),
        ]
        pins = {"dav.test": upstream.pin, "php.test": upstream.pin}
        with InProcess(tmp_path, config(tmp_path, routes, pins=pins)) as egress:
            with egress.tunnel("dav.test") as stream:
                for method, header in (
                    ("MOVE", "Destination: https://dav.test/closed/a"),
                    ("COPY", "destination: /open/../closed"),
                    ("COPY", "Destination: https://evil.test/open/a"),
                    ("PUT", "X-Amz-Copy-Source: closed/a"),
                    ("PUT", "x_goog_copy_source: closed/a"),
                    ("PUT", "x-ms-rename-source: /closed/a"),
                ):
                    answer = stream.get("dav.test", "/open/a", method, f"{header}\r\nContent-Length: 0\r\n")
                    assert answer.reason == "path_not_allowed", header
                assert stream.get("dav.test", "/open/a", "MOVE", "Destination: /open/b\r\n").status == 200
                stream.get(
                    "dav.test", "/open/a", extra="X-Original-URI: /closed\r\nX-Override-URL: /closed\r\n"
                )
            with egress.tunnel("php.test") as stream:
                for query in ("_method=DELETE", ".method=DELETE", "+_method=DELETE", "%20.method=DELETE"):
                    assert stream.get("php.test", f"/?{query}").reason == "method_override", query
                assert stream.get("php.test", "/?method=a").status == 200
    assert [head.partition(b" HTTP/")[0] for head in heads] == [
        b"MOVE /open/a", b"GET /open/a", b"GET /?method=a",
    ]  # fmt: skip
    assert not any(b"closed" in head or b"x-o" in head.lower() for head in heads)


def test_a_session_that_a_credential_opened_is_not_handed_in_where_cookies_are_stripped(
    tmp_path: Path,
) -> None:
    """C3: such a cookie opens what the credential opens, anywhere; in answers at once and in pieces."""
    cookie = b"Set-Cookie: session=operators\r\nX-Kept: 1\r\nset-cookie: b=c\r\n"

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        with contextlib.suppress(ConnectionError):
            while head := stream.until(b"\r\n\r\n"):
                if b"/pieces" in head:
                    sock.sendall(b"HTTP/1.1 103 Early Hints\r\n" + cookie + b"\r\n")
                    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + cookie + b"\r\n")
                    sock.sendall(b"2\r\nok\r\n0\r\n\r\n")
                else:
                    sock.sendall(ok(extra=cookie))

    with Upstream(handler) as upstream:
        pins = {"strict.test": upstream.pin, "plain.test": upstream.pin}
        routes = [route("strict.test", auth=True, strip_cookies=True), route("plain.test")]
        with InProcess(tmp_path, config(tmp_path, routes, pins=pins)) as egress:
            for path in ("/whole", "/pieces"):
                with egress.tunnel("strict.test") as stream:
                    stream.send(
                        f"GET {path} HTTP/1.1\r\nHost: strict.test\r\nConnection: close\r\n\r\n".encode()
                    )
                    said = stream.rest()
                    assert b"X-Kept: 1" in said
                    assert b"set-cookie" not in said.lower()
            with egress.tunnel("plain.test") as stream:
                assert "set-cookie" in stream.get("plain.test", "/whole").headers


def test_a_long_path_is_on_record_with_its_end(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream:
        settings = config(tmp_path, [route("site.test")], pins={"site.test": upstream.pin})
        with InProcess(tmp_path, settings) as egress, egress.tunnel("site.test") as stream:
            for number in range(2):  # the second is judged by the first
                path = "/harmless" + "/." * 1000 + f"/../../admin/delete/{number}"
                assert stream.get("site.test", path).status == 200
            recorded = [record["path"] for record in egress.records()]
    assert len(heads) == 2
    for number, path in enumerate(recorded):
        assert path.startswith("/harmless/./")
        assert path.endswith(f"/../../admin/delete/{number}")
        assert "characters)..." in path
        assert len(path) < 1100


def test_rebinding_is_caught_at_every_dial_and_the_checked_address_is_dialled(tmp_path: Path) -> None:
    handler, heads = serve(
        lambda _head, _body: b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )
    answers = [["127.0.0.1"], ["10.0.0.1"], ["::ffff:127.0.0.2"], ["169.254.169.254"], ["64:ff9b::a00:1"]]
    asked: list[str] = []

    async def resolver(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers[len(asked) - 1]

    with Upstream(handler) as upstream:
        routes = [
            route(HOST, ports=(upstream.port,), ssrf_ip_allowlist=(ip_network("127.0.0.1/32"),)),
            route("named.test", ports=(upstream.port,)),
        ]
        with InProcess(tmp_path, config(tmp_path, routes), resolver=resolver) as egress:
            with egress.tunnel(HOST, upstream.port) as stream:
                authority = f"{HOST}:{upstream.port}"
                assert stream.get(authority).status == 200
                for _ in range(4):
                    answer = stream.get(authority)
                    assert (answer.status, answer.reason) == (403, "address_denied")
            with egress.tunnel("denied.test") as stream:
                assert stream.get("denied.test").status == 403
    assert asked == [HOST] * 5
    assert len(heads) == 1
    assert upstream.connections == 1


def test_one_good_address_among_bad_ones_is_used(tmp_path: Path) -> None:
    handler, _ = serve(lambda _head, _body: ok())

    async def resolver(_host: str, _port: int) -> list[str]:
        return ["10.0.0.1", "not-an-address", "127.0.0.9", "127.0.0.1"]

    with Upstream(handler) as upstream:
        routes = [route(HOST, ports=(upstream.port,), ssrf_ip_allowlist=(ip_network("127.0.0.0/8"),))]
        with (
            InProcess(tmp_path, config(tmp_path, routes), resolver=resolver) as egress,
            egress.tunnel(HOST, upstream.port) as stream,
        ):
            assert stream.get(f"{HOST}:{upstream.port}").status == 200


def test_a_resolver_that_fails_or_breaks_refuses(tmp_path: Path) -> None:
    failures: list[Exception] = [OSError("no such name"), RuntimeError("boom")]

    async def resolver(_host: str, _port: int) -> list[str]:
        raise failures.pop(0)

    with (
        InProcess(tmp_path, config(tmp_path, [route(HOST)]), resolver=resolver) as egress,
        egress.tunnel(HOST) as stream,
    ):
        assert stream.get(HOST).reason == "upstream_dns"
        answer = stream.get(HOST)
        assert (answer.status, answer.reason) == (500, "internal_error")
        assert b"boom" not in answer.body


def test_nothing_leaves_when_the_decision_cannot_be_recorded(tmp_path: Path) -> None:
    class Full(AuditLog):
        __slots__ = ()

        def append(self, event: str, **fields: object) -> None:
            raise OSError("disk full")

    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream:
        settings = config(tmp_path, [route(HOST)], pins={HOST: upstream.pin})
        audit = Full.open(tmp_path / "audit" / "full.jsonl")
        with InProcess(tmp_path, settings, audit=audit) as egress, egress.tunnel(HOST) as stream:
            assert stream.get(HOST).reason == "audit_failed"
            assert stream.get("other.test").status == 403
    assert heads == []
    assert upstream.connections == 0


def test_slow_and_silent_clients_are_let_go(tmp_path: Path) -> None:
    with InProcess(tmp_path, config(tmp_path, [])) as egress:
        slow, silent = egress.plain("http"), egress.plain("http")
        slow.send(b"GET / HTTP/1.1\r\nHost: a")
        with egress.plain("http") as third:  # once this is answered, the loop has seen the bytes before it
            assert third.get("x.test").status == 403

        def later(seconds: float) -> None:
            for client in tuple(egress.proxy.clients):
                client.sweep(egress.loop.time() + seconds)

        slow.send(b".test")  # one more piece does not buy more time
        with egress.plain("http") as third:
            assert third.get("x.test").status == 403
        egress.call(lambda: later(31))
        assert slow.response().reason == "timeout"
        slow.close()
        egress.call(lambda: later(121))
        assert silent.rest() == b""
        silent.close()


def test_names_that_are_no_text_end_the_handshake_and_fill_no_memory(tmp_path: Path) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="site.test").do_handshake()
    hello = outgoing.read().replace(b"site.test", b"s\xffte.test")
    with Sidecar(tmp_path, config(tmp_path, [])) as sidecar:
        for _ in range(300):
            with sidecar.plain("https") as stream:
                assert stream.send(hello).rest()[:1] == b"\x15", "an alert"
        assert os.fstat(sidecar.process._words_fd).st_size < 20_000
        with sidecar.transparent("site.test") as stream:
            assert stream.get("site.test").reason == "host_not_allowed"
        assert len(sidecar.records("tls_failed")) == 300


_LINES = [
    b"Host: site.test\r\n",
    b"Host: denied.test\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 99\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
    b"Connection: close\r\n",
    b"Expect: 100-continue\r\n",
    b"X: \xc3\xa9\r\n",
]
_BODIES = [
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhel",
    b"\x00",
    b"\x16\x03\x01",
    b"0\r\nT: x\r\n\r\n",
]
_STARTS = [
    b"GET / HTTP/1.1\r\n",
    b"POST /x?y HTTP/1.1\r\n",
    b"HEAD http://site.test/ HTTP/1.1\r\n",
    b"GET http://denied.test/ HTTP/1.1\r\n",
    b"CONNECT site.test:80 HTTP/1.1\r\n",
    b"CONNECT denied.test:443 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"PRI * HTTP/2.0\r\n\r\n",
]


@pytest.mark.parametrize("seed", range(8))
def test_random_conversations_never_break_it_nor_reach_another_host(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    handler, heads = serve(lambda _head, _body: ok())

    def message() -> bytes:
        lines = b"".join(random.choice(_LINES) for _ in range(random.randint(0, 4)))
        data = random.choice(_STARTS) + b"Host: site.test\r\n" * random.randint(0, 1) + lines + b"\r\n"
        data += random.choice(_BODIES)
        if random.random() < 0.2:
            cut = random.randrange(len(data))
            data = data[:cut] + random.choice(_BODIES) + data[cut:]
        return data

    with (
        Upstream(handler, tls=False) as upstream,
        InProcess(tmp_path, config(tmp_path, [route(HOST)], pins={HOST: upstream.pin})) as egress,
    ):
        for _ in range(60):
            with egress.plain(random.choice(["http", "proxy"])) as stream:
                data = b"".join(message() for _ in range(random.randint(1, 5)))
                with contextlib.suppress(OSError):
                    for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                        stream.send(part)
                    stream.sock.shutdown(socket.SHUT_WR)
                answers = stream.rest()
                assert b"internal_error" not in answers
                assert b"policy_error" not in answers
        with egress.plain("http") as stream:
            assert stream.get("denied.test").reason == "host_not_allowed"
        records = egress.records()
    assert all(b"\r\nHost: site.test\r\n" in head and head.count(b"Host:") == 1 for head in heads)
    assert not any(b"denied" in head for head in heads)
    assert len([record for record in records if record["decision"] == "allow"]) >= len(heads)
