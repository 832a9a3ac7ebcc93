"""What HTTP/2 is abused for, against the real proxy: the connection ends, its neighbours do not notice."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from h2.errors import ErrorCodes
from h2.exceptions import H2Error

from bot_bottle.egress import clients
from bot_bottle.egress.http2 import client as http2_client
from tests.integration.egress_lab import InProcess, Sidecar, Upstream, config, route
from tests.integration.test_egress_limits import memory
from tests.support import http2
from tests.unit.test_egress_http2 import CONTINUATION, FLOODS, HEADERS, PING, SETTINGS, frame

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

HOST = "site.test"


@pytest.fixture
def egress(tmp_path: Path) -> Iterator[InProcess]:
    def answer(server: http2.Server, request: http2.Request) -> None:
        if request[":path"] != "/never":
            server.answer(request.stream, body=b"fine")

    handler, _seen = http2.serve(answer)
    with Upstream(handler, http2_for=HOST) as upstream:
        settings = config(tmp_path, [route(HOST, http2=True)], pins={HOST: upstream.pin})
        with InProcess(tmp_path, settings) as running:
            yield running


def push(client: http2.Client, data: bytes) -> None:
    """Send as much as is taken, reading as a real flooder would not have to."""
    with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
        for at in range(0, len(data), 8192):
            client.raw(data[at : at + 8192])


def last_denial(egress: InProcess) -> tuple[str, str]:
    record = [record for record in egress.records() if record["decision"] == "deny"][-1]
    return record["rule"], record["reason"]


@pytest.mark.parametrize("name", ["settings", "ping", "rapid-reset", "continuation-bytes", "empty-data"])
def test_a_flood_ends_its_connection_and_no_other(egress: InProcess, name: str) -> None:
    with egress.http2(HOST) as neighbour, egress.http2(HOST) as client:
        assert client.get(HOST, "/").status == 200
        if name == "rapid-reset":
            # Real requests, each given up at once (CVE-2023-44487).
            with contextlib.suppress(ConnectionError, ssl.SSLError, H2Error):
                for _ in range(2000):
                    client.h2.reset_stream(client.request(HOST, "/never"), ErrorCodes.CANCEL)
                    client.flush()
        else:
            push(client, FLOODS[name] * 3000)
        client.until_closed()
        assert neighbour.get(HOST, "/").status == 200
    rule, reason = last_denial(egress)
    # The library counts CONTINUATION frames too, and may be first.
    assert (rule, reason) in {("egress.http2", "flood"), ("egress.http2", "bad_request")}
    assert reason == "flood" or name == "continuation-bytes"
    assert egress.call(lambda: egress.proxy.clients.streams) == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(HEADERS, bytes(16_000)) + frame(CONTINUATION, bytes(16_000)) * 5, "too_large"),
        (b"\xff\xff\xff\0\0\0\0\0\1", "too_large"),
        (frame(SETTINGS, b"abc", stream=0), "bad_request"),
        (frame(HEADERS, b"\x80", flags=5), "bad_request"),
        (frame(HEADERS, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", flags=5), "bad_request"),
        (frame(0, b"data on no stream"), "bad_request"),
        (frame(8, bytes(4), stream=0), "bad_request"),
        (frame(5, bytes(8), flags=4), "bad_request"),
        (frame(HEADERS, b"x") + frame(PING, bytes(8), stream=0), "bad_request"),
    ],
)
def test_what_is_no_http2_ends_the_connection(egress: InProcess, data: bytes, reason: str) -> None:
    with egress.http2(HOST) as client:
        client.raw(data)
        client.until_closed()
    assert last_denial(egress) == ("egress.http2", reason)


def test_a_compression_bomb_is_not_unpacked(egress: InProcess) -> None:
    """A few bytes that name a long entry of the table again and again (CVE-2016-6581)."""
    with egress.http2(HOST) as client:
        entry = b"\x40\x01a" + b"\x7f\x81\x1e" + b"v" * 4000  # one field of 4,000 bytes, into the table
        client.raw(frame(HEADERS, entry + b"\xbe" * 12_000, flags=5))
        client.until_closed()
    assert last_denial(egress)[0] == "egress.http2"


def test_no_preface_is_no_http2(egress: InProcess) -> None:
    with egress.secure(egress.connect(f"{HOST}:443")[0].sock, HOST, "h2") as stream:
        stream.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert b"HTTP/1.1" not in stream.rest()
    assert last_denial(egress) == ("egress.http2", "bad_request")


def test_more_streams_than_were_offered_end_the_connection(egress: InProcess) -> None:
    with egress.http2(HOST) as client:
        client.get(HOST, "/")
        assert client.h2.remote_settings.max_concurrent_streams == 100
        assert client.h2.remote_settings.enable_connect_protocol == 0, "RFC 8441 is not offered"
        client.h2.remote_settings.max_concurrent_streams = 1000
        client.h2.remote_settings.acknowledge()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(101):
                client.request(HOST, "/never")
        client.until_closed()
    assert last_denial(egress) == ("egress.http2", "bad_request")


def test_a_bottle_has_so_many_streams_and_no_more(egress: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clients.MAX_STREAMS_ALL >= 1000
    monkeypatch.setattr(http2_client, "MAX_STREAMS_ALL", 5)
    with egress.http2(HOST) as one, egress.http2(HOST) as two:
        waiting = [client.request(HOST, "/never") for client in (one, two, one, two, one)]
        while egress.call(lambda: egress.proxy.clients.streams) < 5:
            pass
        answer = two.get(HOST, "/")
        assert (answer.status, answer.reason) == (503, "too_many_connections")
        one.h2.reset_stream(waiting[0], ErrorCodes.CANCEL)
        one.flush()
        while egress.call(lambda: egress.proxy.clients.streams) >= 5:
            pass
        assert two.get(HOST, "/").status == 200


def _connection(egress: InProcess) -> Any:
    (connection,) = egress.call(lambda: tuple(egress.proxy.clients))
    return connection


@pytest.mark.parametrize("begun", [frame(HEADERS, b"x" * 100)[:20], frame(HEADERS, b"x")])
def test_a_header_that_drips_is_ended(egress: InProcess, begun: bytes) -> None:
    with egress.http2(HOST) as client:
        client.get(HOST, "/")
        client.raw(begun)
        connection = _connection(egress)
        while not egress.call(lambda: connection._intake.block_since):
            pass
        now = egress.call(egress.loop.time)
        egress.call(lambda: connection.sweep(now + 20))
        egress.call(lambda: connection.sweep(now + 31))
        client.until_closed()
    assert last_denial(egress) == ("egress.http2", "timeout")


def test_a_client_that_makes_no_room_is_ended_stream_by_stream(egress: InProcess) -> None:
    """A window stall: the connection is kept alive by pings, the answer waits for a window."""
    with egress.http2(HOST, initial_window_size=0) as client:
        client.step()
        stalled = client.request(HOST, "/")
        assert client.wait(stalled, lambda answer: answer.fields).status == 200
        connection = _connection(egress)
        while not egress.call(lambda: any(one.pending for one in connection._streams.values())):
            pass
        now = egress.call(egress.loop.time)

        def later() -> None:
            connection.touched = now + 1000  # a ping has just come
            connection.sweep(now + 1001)

        egress.call(later)
        assert client.wait(stalled).reset == ErrorCodes.CANCEL
        assert egress.call(lambda: egress.proxy.clients.streams) == 0
        head = client.request(HOST, "/", method="HEAD")
        assert client.wait(head).status == 200, "the connection goes on"


def test_idle_connections_are_told_goodbye(egress: InProcess) -> None:
    with egress.http2(HOST) as client:
        client.get(HOST, "/")
        connection = _connection(egress)
        egress.call(lambda: connection.sweep(egress.loop.time() + 121))
        client.until_closed()
        assert client.going is not None
        assert client.going.error_code == ErrorCodes.NO_ERROR


def test_a_server_cannot_have_us_keep_a_large_table(egress: InProcess) -> None:
    with egress.http2(HOST, header_table_size=1 << 30) as client:
        assert client.get(HOST, "/").status == 200
        connection = _connection(egress)
        assert egress.call(lambda: connection._h2.encoder.header_table_size) == 4096


def test_floods_leave_no_memory_behind(tmp_path: Path) -> None:
    """Pings whose answers nobody reads, on many connections."""
    handler, _seen = http2.serve(lambda server, request: server.answer(request.stream, body=b"fine"))
    with Upstream(handler, http2_for=HOST) as upstream:
        settings = config(tmp_path, [route(HOST, http2=True)], pins={HOST: upstream.pin})
        with Sidecar(tmp_path, settings) as sidecar:
            with sidecar.http2(HOST) as first:
                assert first.get(HOST, "/").status == 200
            before = memory(sidecar, "VmRSS")
            for _ in range(20):
                with sidecar.http2(HOST) as client:
                    push(client, frame(PING, bytes(8), stream=0) * 3000)
            with sidecar.http2(HOST) as last:
                assert last.get(HOST, "/").status == 200
            assert memory(sidecar, "VmHWM") - before < 12 * 1024
