"""What a client that does not read, or says very much at once, costs the sidecar, and what it still gets."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bot_bottle.audit import AuditLog
from bot_bottle.audit_reading import verify
from bot_bottle.egress import proxy
from bot_bottle.egress.stalled import Stalled
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
from tests.support.pipelock import letters

pytestmark = pytest.mark.integration

HOST = "site.test"
_ASK = b"GET http://_egress.local/allowlist HTTP/1.1\r\nHost: _egress.local\r\n\r\n"
_ASK_DENIED = b"GET http://denied.test/allowlist HTTP/1.1\r\nHost: denied.test\r\n\r\n"
_MANY = [route(f"a-rather-long-name-{number:03}.test") for number in range(80)]


def memory(sidecar: Sidecar, field: str) -> int:
    """Give the sidecar's memory (``VmRSS``, or its peak ``VmHWM``) in KiB."""
    text = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0])


def load_scanner(sidecar: Sidecar) -> None:
    """Have the sidecar load what it judges content with; its memory is measured without that."""
    host, key = _MANY[0].host, "ghp_" + letters(36)
    with sidecar.plain("proxy") as stream:
        answer = stream.send(f"GET http://{host}/{key} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).response()
    assert answer.status == 403
    assert b"credential" in answer.body


def push(stream: Stream, data: bytes) -> int:
    """Send until nothing more is taken; gives how much was."""
    sent = 0
    stream.sock.setblocking(False)
    while sent < len(data) and select.select([], [stream.sock], [], 0.5)[1]:
        sent += stream.sock.send(data[sent : sent + 65536])
    stream.sock.settimeout(20)
    return sent


def settle(sidecar: Sidecar) -> int:
    """Wait until the sidecar has done all it will do unread; gives its count of records so far."""
    counts = [-1, -1]
    with sidecar.plain("http") as barrier:
        while counts[-1] != counts[-2] or counts[-1] <= 0:
            for _ in range(20):
                barrier.get("_egress.local", "/nothing")  # each answer is a turn of the sidecar's loop
            counts.append(sidecar.audit_file.read_bytes().count(b'"path":"/allowlist"'))
    return counts[-1]


@pytest.mark.parametrize("ask", [_ASK, _ASK_DENIED], ids=["local", "denied"])
def test_answers_nobody_reads_do_not_pile_up(tmp_path: Path, ask: bytes) -> None:
    count = {_ASK: 4_000, _ASK_DENIED: 12_000}[ask]
    with Sidecar(tmp_path, config(tmp_path, _MANY)) as sidecar, sidecar.plain("proxy") as stream:
        with sidecar.plain("proxy") as other:
            other.send(ask).response()
        load_scanner(sidecar)
        before = memory(sidecar, "VmRSS")
        requests = ask * count
        sent = push(stream, requests)
        answered = settle(sidecar)
        assert memory(sidecar, "VmHWM") - before < 12 * 1024
        assert answered < count
        for number in range(count):
            if sent < len(requests) and number % 100 == 0:
                sent += push(stream, requests[sent : sent + 100 * len(ask)])
            assert stream.response().status == (200 if ask is _ASK else 403)
        assert memory(sidecar, "VmHWM") - before < 12 * 1024


def test_answers_nobody_reads_do_not_pile_up_inside_tls(tmp_path: Path) -> None:
    count = 3_000
    ask = b"GET /allowlist HTTP/1.1\r\nHost: _egress.local\r\n\r\n"
    with Sidecar(tmp_path, config(tmp_path, _MANY)) as sidecar, sidecar.tunnel("_egress.local") as stream:
        stream.send(ask).response()
        load_scanner(sidecar)
        before = memory(sidecar, "VmRSS")
        stream.send(ask * count)
        assert settle(sidecar) < count
        assert memory(sidecar, "VmHWM") - before < 12 * 1024
        assert {stream.response().status for _ in range(count)} == {200}


def clients(egress: InProcess) -> tuple[Any, ...]:
    return tuple(egress.proxy.clients)


def test_a_client_that_never_reads_is_dropped_in_the_end(tmp_path: Path) -> None:
    with InProcess(tmp_path, config(tmp_path, _MANY)) as egress, egress.plain("proxy") as stream:
        half = _ASK[:-2]  # nothing is queued, and a header has begun
        push(stream, _ASK * 5_000 + half)
        while not egress.call(lambda: any(client.write_paused for client in clients(egress))):
            pass

        def sweep(seconds: float) -> None:
            for client in clients(egress):
                client.sweep(egress.loop.time() + seconds)

        egress.call(lambda: sweep(800))
        assert len(egress.call(lambda: clients(egress))) == 1
        egress.call(lambda: sweep(1000))
        egress.call(lambda: None)
        assert egress.call(lambda: clients(egress)) == ()
        assert stream.rest().count(b"HTTP/1.1 200") < 5_000


def test_a_refused_client_that_never_reads_is_dropped_too(tmp_path: Path) -> None:
    with InProcess(tmp_path, config(tmp_path, _MANY)) as egress, egress.plain("proxy") as stream:
        push(stream, _ASK * 5_000)
        while not egress.call(lambda: any(client.write_paused for client in clients(egress))):
            pass
        for client in egress.call(lambda: clients(egress)):
            egress.call(client.finish)
        assert len(egress.call(lambda: clients(egress))) == 1, "the close waits for what is unsent"
        for client in egress.call(lambda: clients(egress)):
            egress.call(partial(client.sweep, egress.loop.time() + 1000))
        egress.call(lambda: None)
        assert egress.call(lambda: clients(egress)) == ()


@pytest.mark.parametrize(("count", "padding"), [(200, 300), (40, 2000)])
def test_a_long_pipeline_is_answered_whole(tmp_path: Path, count: int, padding: int) -> None:
    """Complete requests are no oversized header, and none is one too many, also where one read brings all."""
    handler, heads = serve(lambda head, body: ok(head.split(b" ")[1] + body))
    with (
        Upstream(handler, tls=False) as upstream,
        InProcess(tmp_path, config(tmp_path, [route(HOST)], pins={HOST: upstream.pin})) as egress,
        egress.plain("http") as stream,
    ):
        requests = b""
        for number in range(count):
            requests += b"POST /%d HTTP/1.1\r\nHost: site.test\r\nX: %b\r\n" % (number, b"x" * padding)
            requests += (
                b"Content-Length: 6\r\n\r\n\r\n\r\n:)"
                if number % 2
                else b"Transfer-Encoding: chunked\r\n\r\n6\r\n\r\n\r\n:)\r\n0\r\n\r\n"
            )
        assert len(requests) > 64 * 1024
        stream.get(HOST, "/first")
        (client,) = clients(egress)
        egress.call(partial(client.data_received, requests + b"GET /last HTTP/1.1\r\nHost: si"))
        for number in range(count):
            assert stream.response().body == b"/%d\r\n\r\n:)" % number
        stream.send(b"te.test\r\n\r\n")
        assert stream.response().body == b"/last"
    assert len(heads) == count + 2


def test_a_header_without_an_end_is_still_refused(tmp_path: Path) -> None:
    with Sidecar(tmp_path, config(tmp_path, [])) as sidecar, sidecar.plain("http") as stream:
        push(
            stream,
            b"GET /allowlist HTTP/1.1\r\nHost: _egress.local\r\n\r\nGET / HTTP/1.1\r\nX" + b"y" * 200_000,
        )
        assert stream.response().status == 200
        assert stream.response().status == 431


def test_who_fills_the_log_is_refused_everything(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler, tls=False) as upstream:
        settings = config(tmp_path, [route(HOST)], pins={HOST: upstream.pin})
        audit = AuditLog.open(tmp_path / "audit" / "lab.jsonl", limit=8000)
        with InProcess(tmp_path, settings, audit=audit) as egress, egress.plain("http") as stream:
            assert stream.get(HOST).status == 200
            while stream.get("denied.test").reason != "audit_failed":
                pass
            for host in (HOST, "denied.test", "_egress.local"):
                assert stream.get(host, "/allowlist").reason == "audit_failed"
    assert len(heads) == 1
    assert (tmp_path / "audit" / "lab.jsonl").stat().st_size < 8500
    assert verify(tmp_path / "audit" / "lab.jsonl").ended


def test_an_upload_that_stalls_keeps_little_waiting(tmp_path: Path) -> None:
    done = threading.Event()

    def handler(_sock: socket.socket) -> None:
        done.wait(20)

    with Upstream(handler) as upstream:
        settings = config(tmp_path, [route(HOST)], pins={HOST: upstream.pin})
        with InProcess(tmp_path, settings) as egress, egress.plain("proxy") as stream:
            stream.send(b"CONNECT site.test:443 HTTP/1.1\r\nHost: site.test\r\n\r\n").until(b"\r\n\r\n")
            with egress.secure(stream.sock, HOST) as secure:
                secure.send(b"POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 90000000\r\n\r\n")
                secure.sock.setblocking(False)
                with contextlib.suppress(ssl.SSLWantWriteError):
                    while select.select([], [secure.sock], [], 0.5)[1]:
                        secure.sock.send(b"x" * 16384)
                while not egress.call(lambda: clients(egress)[0]._holding):
                    secure.sock.settimeout(20)
                    secure.sock.send(b"x" * 16384)
                (client,) = egress.call(lambda: clients(egress))
                waiting = client._queue[0]._upstream._transport.get_write_buffer_size()
                kernel = client._transport.get_extra_info("socket").getsockopt(
                    socket.SOL_SOCKET, socket.SO_RCVBUF
                )
        done.set()
    assert waiting < 384 * 1024
    assert kernel <= 96 * 1024


def stalled_upload(egress: InProcess, number: int) -> Stream:
    """Begin an upload whose server takes nothing, and send until no more is taken."""
    stream = egress.tunnel(HOST)
    stream.send(b"POST /%d HTTP/1.1\r\nHost: site.test\r\nContent-Length: 90000000\r\n\r\n" % number)

    def stuck() -> int:
        # Not those that are held only until their server is connected.
        held = [client for client in clients(egress) if client._holding and client._queue]
        return len([client for client in held if client._queue[0]._upstream is not None])

    before = egress.call(stuck)
    while egress.call(stuck) == before:
        stream.sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantWriteError):
            while True:
                stream.sock.send(b"x" * 16384)
        stream.sock.settimeout(20)
    return stream


def test_what_waits_for_all_stalled_transfers_together_is_bounded(tmp_path: Path) -> None:
    done = threading.Event()

    def handler(sock: socket.socket) -> None:
        if b"GET /quick" in Stream(sock).until(b"\r\n\r\n"):
            sock.sendall(ok(b"quick"))
        done.wait(20)

    with Upstream(handler) as upstream:
        settings = config(tmp_path, [route(HOST)], pins={HOST: upstream.pin})
        with InProcess(tmp_path, settings) as egress, contextlib.ExitStack() as held:
            egress.proxy.stalled = Stalled(most=1024 * 1024)
            first, *others = (held.enter_context(stalled_upload(egress, number)) for number in range(3))
            for _ in range(2):
                egress.call(lambda: egress.proxy.stalled.note(Weight(425 * 1024), waits=True))
            refused = first.response()
            assert (refused.status, refused.reason) == (503, "too_much_waits")
            assert egress.call(lambda: len(clients(egress))) >= 2
            with egress.tunnel(HOST) as other:  # what does not wait is left alone
                assert other.get(HOST, "/quick").body == b"quick"
            for stream in others:
                stream.close()
        done.set()
    refusals = [record["reason"] for record in egress.records() if record["decision"] != "allow"]
    assert set(refusals) == {"too_much_waits"}


class Weight:
    """Something that waits in memory and stays."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting

    def give_way(self) -> None:
        raise AssertionError("it has waited for the shortest time")


def test_memory_is_given_back_once_after_each_time_of_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []
    monkeypatch.setattr(proxy, "give_back", lambda: given.append(0.0))
    with InProcess(tmp_path, config(tmp_path, _MANY)) as egress, egress.plain("http") as stream:

        def rest(seconds: float) -> None:
            egress.call(lambda: egress.proxy._rest(egress.loop.time() + seconds))

        for expected in (1, 2):
            stream.get("_egress.local", "/allowlist")
            rest(0)
            assert len(given) == expected - 1, "it has only just worked"
            rest(40)
            rest(80)
            assert len(given) == expected
