"""C3 across routes: what a host got on one route is not shown on another, now or after a change of routes.

The server answers with the credential that came with the last request which had one, as request logs do.
"""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.egress.table import RouteTable
from bot_bottle.git_gate.remote import GateConfig, GateRemote
from bot_bottle.secret import Secret
from tests.integration.egress_lab import (
    TOKEN,
    InProcess,
    Stream,
    Upstream,
    config,
    heads_on,
    ok,
    route,
)
from tests.support import http2, ws

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from bot_bottle.egress.routes import EgressRoute

pytestmark = pytest.mark.integration

HOST = "api.test"
GIT = "forge.test"
GIT_TOKEN = "git-4711-Qm7Zx1Lr8Tn5Vb2Kc6-of-the-gate"
NEXT = "renewed-credential-3f9aQm7Zx1Lr"
WITH = route(HOST, auth=True, path_allowlist=("/v1/",), origin="with")
WITHOUT = route(HOST, path_allowlist=("/docs/",), ports=(443,), origin="grant 00000001")
LOST = route(HOST, path_allowlist=("/v1/",), origin="with")
SECRETS = {"LAB_TOKEN": Secret(TOKEN)}
ASK_WEBSOCKET = (
    f"GET /docs/ws HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Memory:
    """What a server remembers of those who asked."""

    def __init__(self) -> None:
        self.last = b"nobody"
        self.heads: list[bytes] = []

    def answer(self, head: bytes, _body: bytes) -> bytes:
        self.heads.append(head)
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"authorization:"):
                self.last = line.partition(b":")[2].strip()
        return ok(b"the last said " + self.last, b"X-Last: " + self.last + b"\r\n")

    def handler(self, sock: socket.socket) -> None:
        """Speak WebSocket where that is asked for, HTTP/1.1 otherwise."""
        stream = Stream(sock)
        for head in heads_on(stream):
            if b"upgrade: websocket" not in head.lower():
                sock.sendall(self.answer(head, b""))
                continue
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
            )
            for _first, _data in ws.frames(stream):
                sock.sendall(ws.said(b"the last said " + self.last, key=b""))


class World:
    def __init__(self, lab: InProcess, memory: Memory) -> None:
        self.lab, self.memory = lab, memory

    def decide_by(self, *routes: EgressRoute, **fields: Any) -> None:
        """Let other routes hold, as an order of the operator's does."""
        table = RouteTable(routes, **{"secrets": SECRETS, **fields})
        self.lab.call(lambda: self.lab.proxy.replace_table(table))

    def said(self, path: str, host: str = HOST, extra: str = "") -> bytes:
        """Give all of an answer."""
        with self.lab.tunnel(host) as stream:
            answer = stream.get(host, path, extra=extra)
            assert answer.status == 200, answer.body
            return f"{answer.all_headers}".encode() + answer.body


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    memory = Memory()
    with Upstream(memory.handler) as upstream:
        remote = GateRemote(
            host=GIT,
            name="it",
            scheme="https",
            user="",
            upstream_host="Forge.test",
            port=None,
            path="/it.git",
            token=Secret(GIT_TOKEN),
        )
        settings = config(tmp_path, [WITH], pins=dict.fromkeys((HOST, GIT, "other.test"), upstream.pin))
        git = GateConfig(remotes=(remote,), folder=str(tmp_path / "git"))
        with InProcess(tmp_path, replace(settings, git=git)) as lab:
            yield World(lab, memory)


def test_a_route_beside_the_one_with_the_credential_shows_nothing_of_it(world: World) -> None:
    world.decide_by(WITH, WITHOUT)
    assert b"*" * len(TOKEN) in world.said("/v1/")
    assert world.memory.last == f"Bearer {TOKEN}".encode()
    for asked in ("", "Accept-Encoding: gzip, br\r\nRange: bytes=0-3\r\nTE: trailers\r\nA-IM: diffe\r\n"):
        shown = world.said("/docs/last", extra=asked)
        assert TOKEN.encode() not in shown
        assert shown.count(b"*" * len(TOKEN)) == 2, "in the head and in the body"
        head = world.memory.heads[-1].lower()
        assert b"authorization" not in head
        assert b"accept-encoding: identity\r\n" in head
        assert not any(word in head for word in (b"gzip", b"range", b"a-im", b"\r\nte:"))


def test_what_a_host_got_is_looked_for_on_once_no_route_brings_it_any_more(world: World) -> None:
    world.said("/v1/")
    world.decide_by(LOST, WITHOUT)
    for path in ("/v1/", "/docs/"):
        assert TOKEN.encode() not in world.said(path)
    world.decide_by(halt=None)  # nothing is open, and then something is again
    world.decide_by(route("*.test", origin="wide"))
    assert TOKEN.encode() not in world.said("/anywhere")
    assert TOKEN.encode() in world.said("/anywhere", "other.test"), "what never got it is passed on as it is"
    assert b"identity" not in world.memory.heads[-1]


def test_a_renewed_credential_and_the_one_before_are_both_looked_for(world: World) -> None:
    world.decide_by(WITH, WITHOUT)
    world.said("/v1/")
    renewed = {"secrets": {"LAB_TOKEN": Secret(NEXT)}, "former": {"LAB_TOKEN": (Secret(TOKEN),)}}
    world.decide_by(WITH, WITHOUT, **renewed)
    assert TOKEN.encode() not in world.said("/docs/")
    world.said("/v1/")
    assert world.memory.last == f"Bearer {NEXT}".encode()
    world.decide_by(LOST, **renewed)
    assert NEXT.encode() not in world.said("/v1/")


def test_what_the_git_gate_sends_a_host_is_looked_for_on_its_routes(world: World) -> None:
    pair = base64.b64encode(f"x-access-token:{GIT_TOKEN}".encode())
    world.decide_by(route(GIT))
    world.memory.last = b"Basic " + pair
    assert pair not in world.said("/anywhere", GIT)
    world.memory.last = GIT_TOKEN.encode()
    assert GIT_TOKEN.encode() not in world.said("/anywhere", GIT)


def test_a_websocket_on_a_route_without_the_credential_shows_nothing_of_it(world: World) -> None:
    """And one that began before its host had a credential ends once it gets one, unsearched as it is."""
    world.decide_by(WITH, WITHOUT)
    world.said("/v1/")
    with world.lab.tunnel(HOST) as stream:
        stream.send(ASK_WEBSOCKET.encode())
        assert b"101 Switching" in stream.until(b"\r\n\r\n")
        stream.send(ws.said(b"who was it"))
        shown = ws.message(stream)
        assert shown == b"the last said Bearer " + b"*" * len(TOKEN)
        world.decide_by(WITH, WITHOUT, secrets={"LAB_TOKEN": Secret(NEXT)})
        assert stream.rest() == b"", "what is looked for in it would not be what is sent now"


def test_it_holds_over_http_2(tmp_path: Path) -> None:
    memory = Memory()

    def answer(server: http2.Server, request: http2.Request) -> None:
        sent = request.get("authorization")
        memory.last = sent.encode() if sent else memory.last
        memory.heads.append(repr(request.fields).encode())
        server.answer(request.stream, body=b"the last said " + memory.last)

    handler, _seen = http2.serve(answer)
    routes = [replace(one, http2=True) for one in (WITH, WITHOUT)]
    with Upstream(handler, http2_for=HOST) as upstream:
        settings = config(tmp_path, routes, pins={HOST: upstream.pin})
        with InProcess(tmp_path, settings) as lab, lab.http2(HOST) as client:
            assert client.get(HOST, "/v1/").status == 200
            assert memory.last == f"Bearer {TOKEN}".encode()
            shown = client.get(HOST, "/docs/", extra=[("accept-encoding", "gzip"), ("range", "bytes=0-3")])
    assert shown.body == b"the last said Bearer " + b"*" * len(TOKEN)
    assert b"gzip" not in memory.heads[-1]
    assert b"range" not in memory.heads[-1]
