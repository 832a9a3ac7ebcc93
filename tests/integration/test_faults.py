"""What goes wrong around a sidecar: after each, nothing leaked and nothing fell open; it goes on or ends."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import ssl
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.audit_reading import verify
from tests.integration.egress_lab import SECONDS, Sidecar, Stream, Upstream, config, ok, route, serve
from tests.support.family import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

OPEN, SHUT = "open.test", "shut.test"


@pytest.fixture
def heads() -> list[bytes]:
    """Collect the heads of requests that reached the upstream."""
    return []


@pytest.fixture
def sidecar(tmp_path: Path, heads: list[bytes]) -> Iterator[Sidecar]:
    """Bring up a real sidecar; the host that no route names is led to the same upstream, to be seen."""

    def answer(head: bytes, _body: bytes) -> bytes:
        heads.append(head)
        return ok()

    handler, _ = serve(answer)
    with Upstream(handler) as upstream:
        settings = config(tmp_path, (route(OPEN),), pins=dict.fromkeys((OPEN, SHUT), upstream.pin))
        with Sidecar(tmp_path, settings) as running:
            yield running


def status(sidecar: Sidecar, host: str, path: str = "/") -> int:
    """Ask once, in a connection of its own; 0 where no answer came."""
    try:
        tunnel, first = sidecar.connect(f"{host}:443")
        with tunnel:
            if first.status != 200:
                return first.status
        with sidecar.tunnel(host) as stream:
            return stream.get(host, path).status
    except OSError:
        return 0


def test_a_frozen_sidecar_lets_nothing_through_and_goes_on_where_it_was(
    sidecar: Sidecar, heads: list[bytes]
) -> None:
    assert status(sidecar, OPEN, "/before") == 200
    os.kill(sidecar.process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: _state(sidecar.process.pid) == "T", "it is stopped")
        # The kernel takes connections for it; nobody reads from them.
        with socket.create_connection(("127.0.0.1", sidecar.ports["proxy"]), timeout=SECONDS) as waiting:
            request = f"GET http://{OPEN}/frozen HTTP/1.1\r\nHost: {OPEN}\r\n\r\n"
            waiting.sendall(request.encode())
            waiting.settimeout(0.5)
            with pytest.raises(TimeoutError):
                waiting.recv(1)
            assert not [head for head in heads if b"/frozen" in head]
            os.kill(sidecar.process.pid, signal.SIGCONT)
            waiting.settimeout(SECONDS)
            assert waiting.recv(4096).startswith(b"HTTP/1.1 ")
    finally:
        os.kill(sidecar.process.pid, signal.SIGCONT)
    assert status(sidecar, OPEN, "/after") == 200
    assert status(sidecar, SHUT) == 403
    assert not [head for head in heads if SHUT.encode() in head]


def test_a_sidecar_that_gets_no_more_memory_never_opens(tmp_path: Path, heads: list[bytes]) -> None:
    """Half-read heads and large bodies ask for more than there is; what was decided stays decided."""

    def answer(head: bytes, _body: bytes) -> bytes:
        heads.append(head)
        return ok()

    handler, _ = serve(answer)
    with Upstream(handler) as upstream, contextlib.ExitStack() as ends:
        settings = config(tmp_path, (route(OPEN),), pins=dict.fromkeys((OPEN, SHUT), upstream.pin))
        sidecar = Sidecar(tmp_path, settings)
        ends.callback(sidecar.process.close)
        assert status(sidecar, OPEN, "/before") == 200
        pid = sidecar.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        # Less than it has already: from now on the kernel gives it nothing more (setrlimit(2)).
        resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, before[1]))
        for _ in range(400):
            ends.enter_context(_half_a_head(sidecar))
        # As many at a time as there are: one that is never answered is given up after a while.
        with ThreadPoolExecutor(32) as pool:
            shut = list(pool.map(lambda number: status(sidecar, SHUT, f"/{number}"), range(32)))
            opened = list(pool.map(lambda number: _upload(sidecar, number), range(32)))
        assert set(shut) <= {0, 403, 500, 503}
        assert 200 not in set(shut)
        assert not [head for head in heads if SHUT.encode() in head]
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, before)
            # What it let through it had put on record before; with room again it works as before, or is gone.
            assert status(sidecar, OPEN, "/after") in {0, 200}
            assert status(sidecar, SHUT) in {0, 403}
        sidecar.process.close()
        recorded = [line for line in sidecar.records() if line.get("decision") == "allow"]
        arrived = [head for head in heads if b"/upload-" in head or b"/before" in head or b"/after" in head]
        assert len(recorded) >= len(arrived)
        assert verify(sidecar.audit_file).ok
        assert set(opened) <= {0, 200, 500, 503}


def test_a_sidecar_without_room_for_its_record_lets_nothing_out(sidecar: Sidecar, heads: list[bytes]) -> None:
    """A file may grow no more, as on a full disk: what cannot be put on record is refused, and said to be."""
    assert (status(sidecar, OPEN, "/before"), status(sidecar, SHUT)) == (200, 403)
    pid = sidecar.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (sidecar.audit_file.stat().st_size, before[1]))
    try:
        with sidecar.tunnel(OPEN) as stream:
            refused = stream.get(OPEN, "/unrecorded")
        assert (refused.status, refused.reason) == (403, "audit_failed")
        assert status(sidecar, SHUT) == 403
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert status(sidecar, OPEN, "/after") == 200
    assert not [head for head in heads if b"/unrecorded" in head or SHUT.encode() in head]
    assert verify(sidecar.audit_file).ok


def test_upstreams_that_reset_or_hang_are_told_and_harm_no_other_request(tmp_path: Path) -> None:
    over = threading.Event()

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        while True:
            head = stream.until(b"\r\n\r\n")
            if b"/hang" in head:
                over.wait(SECONDS)
                return
            if b"/half" in head:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            if b"/half" in head or b"/reset" in head:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            sock.sendall(ok())

    with Upstream(handler) as upstream:
        settings = config(tmp_path, (route(OPEN),), pins=dict.fromkeys((OPEN, SHUT), upstream.pin))
        with Sidecar(tmp_path, settings) as sidecar:
            with sidecar.tunnel(OPEN) as hanging:
                hanging.send(f"GET /hang HTTP/1.1\r\nHost: {OPEN}\r\n\r\n".encode())
                assert status(sidecar, OPEN, "/meanwhile") == 200
                assert status(sidecar, OPEN, "/reset") == 502
                # Its head is lost with the reset, or not: half an answer is never taken for a whole one.
                with contextlib.suppress(ConnectionError, ssl.SSLError), sidecar.tunnel(OPEN) as stream:
                    assert stream.get(OPEN, "/half").status == 502
                assert status(sidecar, SHUT) == 403
                assert status(sidecar, OPEN, "/after") == 200
            over.set()
            ended = [line["reason"] for line in sidecar.records() if line["decision"] == "error"]
    assert "upstream_closed" in ended


@contextlib.contextmanager
def _half_a_head(sidecar: Sidecar) -> Iterator[None]:
    """Take some of its memory for as long as this lasts: a request whose header does not end."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", sidecar.ports["proxy"])) as sock,
    ):
        sock.sendall(b"GET http://open.test/ HTTP/1.1\r\nHost: open.test\r\nX: " + b"a" * 30_000)
        yield
        return
    yield


def _upload(sidecar: Sidecar, number: int) -> int:
    try:
        with sidecar.tunnel(OPEN) as stream:
            body = os.urandom(300_000).hex().encode()
            head = f"POST /upload-{number} HTTP/1.1\r\nHost: {OPEN}\r\nContent-Length: {len(body)}\r\n\r\n"
            return stream.send(head.encode() + body).response().status
    except OSError:
        return 0


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
