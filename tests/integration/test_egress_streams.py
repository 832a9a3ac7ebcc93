"""Streaming, framing and failure: what moves while it moves, and what happens when a side misbehaves."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.pipelock.stream import BLOCK, HOLD
from tests.integration.egress_lab import (
    SECONDS,
    Sidecar,
    Stream,
    Upstream,
    config,
    ok,
    route,
    serve,
)
from tests.support import ws

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.integration

HOST = "site.test"


def one(tmp_path: Path, upstream: Upstream, **fields: object) -> Sidecar:
    return Sidecar(tmp_path, config(tmp_path, [route(HOST, **fields)], pins={HOST: upstream.pin}))


def memory_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_server_sent_events_arrive_one_by_one(tmp_path: Path) -> None:
    go_on = threading.Semaphore(0)

    def handler(sock: socket.socket) -> None:
        Stream(sock).until(b"\r\n\r\n")
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(3):
            event = b"data: %d\n\n" % number
            sock.sendall(b"%x\r\n%b\r\n" % (len(event), event))
            assert go_on.acquire(timeout=SECONDS)  # the next one only after the client has this one
        sock.sendall(b"0\r\n\r\n")

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        stream.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert b"200 OK" in stream.until(b"\r\n\r\n")
        for number in range(3):
            size = int(stream.until(b"\r\n"), 16)
            assert stream.exactly(size + 2) == b"data: %d\n\n\r\n" % number
            go_on.release()
        assert stream.until(b"\r\n\r\n") == b"0\r\n\r\n"
        assert upstream.errors == []


def test_request_body_streams_up_while_the_answer_streams_down(tmp_path: Path) -> None:
    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        stream.until(b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while size := int(stream.until(b"\r\n"), 16):
            piece = stream.exactly(size)
            stream.exactly(2)
            sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        stream.exactly(2)
        sock.sendall(b"0\r\n\r\n")

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        stream.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        begun = False
        piece, sent, heard = b"0123456789abcdef\n" * (BLOCK // 16), b"", b""
        for _ in range(3):
            stream.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
            sent += piece
            begun = begun or bool(stream.until(b"\r\n\r\n"))
            while len(heard) < len(sent) - BLOCK - HOLD:  # what is held back is judged with what follows
                heard += stream.exactly(int(stream.until(b"\r\n"), 16))
                stream.exactly(2)
        stream.send(b"0\r\nX-Trailer: dropped\r\n\r\n")
        while size := int(stream.until(b"\r\n"), 16):
            heard += stream.exactly(size)
            stream.exactly(2)
        assert heard == sent
        assert upstream.errors == []


@pytest.mark.parametrize("direction", ["up", "down", "down, searched for a credential"])
def test_large_bodies_pass_whole_in_flat_memory(tmp_path: Path, direction: str) -> None:
    block = random.Random(1600).randbytes(64 * 1024)
    count = 512  # 32 MiB, of which no quarter may be held
    seen = hashlib.sha256()

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        stream.until(b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        stream.until(b"\r\n\r\n")
        if direction == "up":
            for _ in range(count):
                seen.update(stream.exactly(len(block)))
            sock.sendall(ok())
        else:
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(block) * count))
            for _ in range(count):
                sock.sendall(block)

    want = hashlib.sha256()
    for _ in range(count):
        want.update(block)
    auth = True if direction.endswith("credential") else None
    with (
        Upstream(handler) as upstream,
        one(tmp_path, upstream, auth=auth) as sidecar,
        sidecar.tunnel(HOST) as stream,
    ):
        stream.send(f"HEAD / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()).response(head=True)
        before = memory_kib(sidecar.process.pid)  # with all that judges loaded
        length = len(block) * count if direction == "up" else 0
        stream.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n".encode())
        if direction == "up":
            for _ in range(count):
                stream.send(block)
            assert stream.response().body == b"ok"
        else:
            stream.until(b"\r\n\r\n")
            for _ in range(count):
                seen.update(stream.exactly(len(block)))
        assert seen.digest() == want.digest()
        assert memory_kib(sidecar.process.pid) - before < 8 * 1024
        assert upstream.errors == []


def test_a_slow_client_gets_all_of_an_answer_whose_server_has_gone(tmp_path: Path) -> None:
    """What is on its way when the server closes must not be lost while the client catches up.

    How much the kernel and the sidecar hold between them is nobody's business, so many sizes are tried.
    """
    block = bytes(range(256)) * 256
    blocks = 0
    gone = threading.Event()

    def handler(sock: socket.socket) -> None:
        Stream(sock).until(b"\r\n\r\n")
        length = blocks * len(block)
        sock.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length)
        for _ in range(blocks):
            sock.sendall(block)
        gone.set()

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar:
        for blocks in (4, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120):
            gone.clear()
            with sidecar.tunnel(HOST) as stream:
                stream.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                stream.until(b"\r\n\r\n")
                gone.wait(0.3)  # where more is on its way than fits anywhere, the server cannot go yet
                for _ in range(blocks):
                    assert stream.exactly(len(block)) == block
        assert upstream.errors == []


def test_a_client_that_does_not_read_stops_the_upstream(tmp_path: Path) -> None:
    sent = 0
    stalled = threading.Event()

    def handler(sock: socket.socket) -> None:
        nonlocal sent
        Stream(sock).until(b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        sock.settimeout(1.0)
        try:
            while True:
                sent += sock.send(b"x" * 65536)
        except TimeoutError:
            stalled.set()

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        stream.send(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert stalled.wait(SECONDS)
        assert sent < 64 << 20
        assert memory_kib(sidecar.process.pid) < 100 * 1024


def test_expect_100_continue_is_asked_of_the_server(tmp_path: Path) -> None:
    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        head = stream.until(b"\r\n\r\n")
        assert b"Expect: 100-continue" in head
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        sock.sendall(ok(stream.exactly(4)))

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        stream.send(head.encode())
        assert stream.response().status == 100
        stream.send(b"body")
        assert stream.response().body == b"body"
        assert upstream.errors == []


def test_a_denied_expectation_is_answered_without_the_body(tmp_path: Path) -> None:
    with Sidecar(tmp_path, config(tmp_path, [])) as sidecar, sidecar.plain("http") as stream:
        stream.send(b"POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        answer = stream.response()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert stream.rest() == b""


def test_a_denied_upload_gets_to_read_the_refusal_and_may_go_on(tmp_path: Path) -> None:
    with Sidecar(tmp_path, config(tmp_path, [])) as sidecar, sidecar.plain("http") as stream:
        stream.send(b"POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 4000000\r\n\r\n")
        stream.send(b"x" * 4_000_000)
        assert stream.response().reason == "host_not_allowed"
        assert stream.get("x.test").reason == "host_not_allowed"


def test_bodyless_answers_keep_the_connection(tmp_path: Path) -> None:
    def answer(head: bytes, _body: bytes) -> bytes:
        if head.startswith(b"HEAD"):
            return b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"
        if b" /204 " in head:
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        if b" /304 " in head:
            return b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"
        if b" /103 " in head:
            return b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok(b"late")
        return ok()

    handler, _ = serve(answer)
    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        assert stream.get(HOST, method="HEAD").headers["content-length"] == "1234"
        assert stream.get(HOST, "/204").status == 204
        assert stream.get(HOST, "/304").headers["etag"] == "x"
        assert stream.get(HOST, "/103").status == 103
        assert stream.response().body == b"late"
        assert stream.get(HOST, method="HEAD").status == 200
        assert stream.get(HOST).body == b"ok"
        assert upstream.connections == 1


@pytest.mark.parametrize("tls", [True, False])
def test_a_body_that_ends_with_the_connection(tmp_path: Path, tls: bool) -> None:
    def handler(sock: socket.socket) -> None:
        Stream(sock).until(b"\r\n\r\n")
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nsome words")
        if tls:
            sock.unwrap()  # type: ignore[attr-defined]  # a TLS end is an end only with close_notify

    with Upstream(handler, tls=tls) as upstream, one(tmp_path, upstream) as sidecar:
        for _ in range(2):
            stream = sidecar.tunnel(HOST) if tls else sidecar.plain("http")
            with stream:
                answer = stream.get(HOST)
                assert (answer.status, answer.body) == (200, b"some words")
                assert answer.headers["transfer-encoding"] == "chunked"
        assert upstream.connections == 2


def test_a_truncated_body_never_looks_whole(tmp_path: Path) -> None:
    def handler(sock: socket.socket) -> None:
        head = Stream(sock).until(b"\r\n\r\n")
        framing = b"Content-Length: 100" if b"/length" in head else b"Transfer-Encoding: chunked"
        sock.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n3\r\nabc\r\n" % framing)

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar:
        for path in ("/length", "/chunked"):
            with sidecar.tunnel(HOST) as stream, pytest.raises(ConnectionError):
                stream.get(HOST, path)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_stale_pooled_connection(tmp_path: Path, method: str) -> None:
    """The server reads the second request on a kept connection and hangs up; only a GET is sent again."""
    number = 0

    def handler(sock: socket.socket) -> None:
        nonlocal number
        number += 1
        stream = Stream(sock)
        stream.until(b"\r\n\r\n")
        sock.sendall(ok(b"%d" % number))
        if number == 1:
            stream.until(b"\r\n\r\n")
        else:
            stream.rest()

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        assert stream.get(HOST).body == b"1"
        answer = stream.get(HOST, method=method, extra="Content-Length: 0\r\n" if method == "POST" else "")
        if method == "GET":
            assert answer.body == b"2"
        else:
            assert (answer.status, answer.reason) == (502, "upstream_closed")
            assert answer.headers["x-bot-bottle-decision"] == "error"
            assert sidecar.records()[-1]["decision"] == "error"


def test_a_server_that_answers_nonsense_on_a_kept_connection_is_not_asked_again(tmp_path: Path) -> None:
    answers = iter([ok(), b"HTTP/1.1 099 Early\r\n\r\n"])
    handler, heads = serve(lambda _head, _body: next(answers))
    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        assert stream.get(HOST).status == 200
        answer = stream.get(HOST, "/again")
        assert (answer.status, answer.reason) == (502, "upstream_protocol")
    assert len(heads) == 2


def test_websocket_is_a_tunnel_after_the_decision(tmp_path: Path) -> None:
    heads: list[bytes] = []

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        heads.append(stream.until(b"\r\n\r\n"))
        sock.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: x\r\n\r\n" + ws.said(b"hello", key=b"")
        )
        for first, data in ws.frames(stream):
            sock.sendall(ws.said(data, first & 0x0F, final=bool(first & 0x80), key=b""))

    ask = (
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
        "Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    with Upstream(handler) as upstream, one(tmp_path, upstream, auth=True) as sidecar:
        with sidecar.tunnel(HOST) as stream:
            stream.send(ask.format(host=HOST).encode())
            assert b"101 Switching" in stream.until(b"\r\n\r\n")
            assert ws.message(stream) == b"hello"
            for message in (b"abc", b"", b"x" * 500_000):
                stream.send(ws.said(message))
                assert ws.message(stream) == message
        assert b"Sec-WebSocket-Extensions" not in heads[0]
        assert b"Upgrade: websocket" in heads[0]
        assert b"Authorization: Bearer" in heads[0]
        with sidecar.tunnel("denied.test") as stream:
            stream.send(ask.format(host="denied.test").encode())
            assert stream.response().reason == "host_not_allowed"
        assert upstream.errors == []


@pytest.mark.parametrize("who", ["server", "client"])
def test_the_last_words_of_a_websocket_arrive(tmp_path: Path, who: str) -> None:
    last = b"z" * 30_000
    heard: list[bytes] = []
    done = threading.Event()

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        stream.until(b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        if who == "server":
            sock.sendall(ws.said(last, key=b""))
        else:
            heard.append(ws.message(stream))
            done.set()

    with Upstream(handler, tls=False) as upstream, one(tmp_path, upstream) as sidecar:
        with sidecar.plain("http") as stream:
            stream.send(
                b"GET / HTTP/1.1\r\nHost: site.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
            stream.until(b"\r\n\r\n")
            if who == "server":
                assert ws.message(stream) == last
            else:
                stream.send(ws.said(last))
        if who == "client":
            assert done.wait(SECONDS)
            assert heard == [last]


def test_websocket_refused_by_the_server_is_an_ordinary_answer(tmp_path: Path) -> None:
    handler, _ = serve(lambda _head, _body: ok(b"no"))
    extra = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\n"
    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        assert stream.get(HOST, extra=extra).body == b"no"
        assert stream.get(HOST).body == b"no"


@pytest.mark.parametrize("body", [b"", b"abcd"])
def test_other_upgrades_are_never_passed_on(tmp_path: Path, body: bytes) -> None:
    handler, heads = serve(lambda _head, body: ok(b"got " + body))
    upgrade = "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAA\r\n"
    extra = f"{upgrade}Content-Length: {len(body)}"
    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        stream.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\n{extra}\r\n\r\n".encode() + body)
        assert stream.response().body == b"got " + body
        assert stream.get(HOST).body == b"got "
    assert b"pgrade" not in heads[0]
    assert b"HTTP2" not in heads[0]


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    handler, heads = serve(lambda head, body: ok(head.split(b" ")[1] + body))
    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        requests = b""
        for number in range(20):
            requests += b"POST /%d HTTP/1.1\r\nHost: site.test\r\nContent-Length: 2\r\n\r\n:%d" % (
                number,
                number % 10,
            )
            if number == 9:
                requests += b"GET /denied HTTP/1.1\r\nHost: denied.test\r\n\r\n"
        stream.send(requests)
        answers = [stream.response() for _ in range(21)]
        assert answers.pop(10).reason == "names_disagree"
        assert [answer.body for answer in answers] == [b"/%d:%d" % (n, n % 10) for n in range(20)]
    assert len(heads) == 20


def test_http_1_0_clients(tmp_path: Path) -> None:
    def answer(head: bytes, _body: bytes) -> bytes:
        assert b"HTTP/1.1\r\n" in head
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    handler, _ = serve(answer)
    with Upstream(handler, tls=False) as upstream, one(tmp_path, upstream) as sidecar:
        with sidecar.plain("proxy") as stream:
            stream.send(b"GET http://site.test/ HTTP/1.0\r\n\r\n")
            answer_bytes = stream.rest()
        assert answer_bytes.endswith(b"\r\n\r\nabc")
        assert b"chunked" not in answer_bytes
        with sidecar.plain("http") as stream:
            stream.send(b"GET / HTTP/1.0\r\n\r\n")
            assert stream.response().reason == "host_missing"


def test_half_closed_clients_still_get_their_answer(tmp_path: Path) -> None:
    handler, _ = serve(lambda _head, _body: ok(b"late"))
    with (
        Upstream(handler, tls=False) as upstream,
        one(tmp_path, upstream) as sidecar,
        sidecar.plain("http") as stream,
    ):
        stream.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        stream.sock.shutdown(socket.SHUT_WR)
        assert stream.rest().endswith(b"late")


def test_an_early_answer_to_an_upload_keeps_the_client_in_step(tmp_path: Path) -> None:
    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        head = stream.until(b"\r\n\r\n")
        sock.sendall(ok(b"too much" if b"POST" in head else b"next"))
        stream.rest()

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar, sidecar.tunnel(HOST) as stream:
        stream.send(f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {4 * BLOCK}\r\n\r\n".encode())
        stream.send(b"x" * 2 * BLOCK)
        assert stream.response().body == b"too much"
        stream.send(b"x" * 2 * BLOCK)
        assert stream.get(HOST).body == b"next"


@pytest.mark.parametrize("rude", [False, True], ids=["close_notify", "cut"])
def test_the_last_words_of_a_websocket_client_arrive_through_tls(tmp_path: Path, rude: bool) -> None:
    """A server that reads slowly makes egress pause; what its client said before it left is not lost."""
    last = b"0123456789abcdef" * 65536
    heard: list[bytes] = []
    go_on, done = threading.Event(), threading.Event()

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        stream.until(b"\r\n\r\n")
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        go_on.wait(SECONDS)
        heard.append(ws.message(stream))
        done.set()

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar:
        with sidecar.tunnel(HOST) as stream:
            stream.send(
                b"GET / HTTP/1.1\r\nHost: site.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
            stream.until(b"\r\n\r\n")
            timer = threading.Timer(0.3, go_on.set)  # by then egress holds what it will hold
            timer.start()
            stream.send(ws.said(last))
            if not rude:
                stream.sock.unwrap()  # type: ignore[attr-defined]
        timer.join()
        assert done.wait(SECONDS)
        assert heard == [last]


def test_a_tls_client_that_has_said_all_still_gets_its_answer(tmp_path: Path) -> None:
    """A close_notify ends one direction (RFC 8446, 6.1); the answer comes in the other."""
    closed = threading.Event()

    def handler(sock: socket.socket) -> None:
        Stream(sock).until(b"\r\n\r\n")
        assert closed.wait(SECONDS)
        sock.sendall(ok(b"late"))

    with Upstream(handler) as upstream, one(tmp_path, upstream) as sidecar:
        stream, _ = sidecar.connect(f"{HOST}:443")
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(sidecar.ca_file))
        session = context.wrap_bio(incoming, outgoing, server_hostname=HOST)

        def step(action: Callable[[], object]) -> object:
            while True:
                try:
                    return action()
                except ssl.SSLWantReadError:
                    stream.sock.sendall(outgoing.read())
                    if action == session.unwrap:
                        return None
                    data = stream.sock.recv(65536)
                    incoming.write(data) if data else incoming.write_eof()

        step(session.do_handshake)
        session.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        step(session.unwrap)
        closed.set()
        answer = b""
        while not answer.endswith(b"late"):
            incoming.write(stream.sock.recv(65536))
            while incoming.pending:
                try:
                    answer += session.read(65536)
                except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                    break
        assert answer.startswith(b"HTTP/1.1 200 OK")
        stream.close()
