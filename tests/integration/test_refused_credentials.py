"""An answer that refuses the credential its request was given is put on record, in each way it can come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.integration.egress_lab import TOKEN, InProcess, Upstream, config, ok, route, serve
from tests.support import http2

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


def answer(head: bytes, _body: bytes) -> bytes:
    status = head.split(b" ")[1].decode().strip("/")
    if status == "pieces":  # not whole in one read: framed by chunks
        return b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n"
    return ok(b"no").replace(b"200 OK", f"{status} No".encode(), 1)


def told(egress: InProcess) -> list[tuple[object, ...]]:
    found = egress.records("credential_refused")
    return [(one["host"], one["credential"], one["status"], one["count"]) for one in found]


def test_each_refusal_behind_a_credential_is_recorded_and_no_other(tmp_path: Path) -> None:
    handler, _heads = serve(answer)
    routes = [
        route("api.test", auth=True),
        route("usage.test", auth=True, usage="messages"),
        route("open.test"),
    ]
    with Upstream(handler) as upstream:
        settings = config(tmp_path, routes, pins={one.host: upstream.pin for one in routes})
        with InProcess(tmp_path, settings) as egress:
            with egress.tunnel("api.test") as stream:
                for status in (401, 200, 403, 404, 429, 500):
                    assert stream.get("api.test", f"/{status}").status == status
                assert stream.get("api.test", "/pieces").body == b"bad"
            with egress.tunnel("usage.test") as stream:
                assert stream.get("usage.test", "/401").status == 401
            with egress.tunnel("open.test") as stream:
                assert stream.get("open.test", "/401").status == 401
            assert told(egress) == [
                ("api.test", "LAB_TOKEN", 401, 1),
                ("api.test", "LAB_TOKEN", 403, 2),
                ("api.test", "LAB_TOKEN", 401, 3),
                ("usage.test", "LAB_TOKEN", 401, 1),
            ]
            counted = egress.call(egress.proxy.counters.of("api.test").to_wire)
            assert counted["credential_refused"] == 3
            assert TOKEN.encode() not in egress.audit_file.read_bytes()


def test_over_http2_too(tmp_path: Path) -> None:
    def reply(server: http2.Server, request: http2.Request) -> None:
        server.answer(request.stream, status=401, body=b"no")

    handler, _seen = http2.serve(reply)
    with Upstream(handler, http2_for="h2.test") as upstream:
        settings = config(tmp_path, [route("h2.test", http2=True, auth=True)], pins={"h2.test": upstream.pin})
        with InProcess(tmp_path, settings) as egress, egress.http2("h2.test") as client:
            assert client.wait(client.request("h2.test", "/")).status == 401
            assert told(egress) == [("h2.test", "LAB_TOKEN", 401, 1)]
