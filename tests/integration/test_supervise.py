"""An agent asks over MCP, a human answers: what is asked, what a yes opens and for how long, what is refused.

The sidecar, its other process, the client of the protocol's own SDK and the upstream are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from bot_bottle import bottle_state
from bot_bottle.control_client import ControlClient, OrderRefusedError, control_listener
from bot_bottle.sidecar.client import SidecarProcess
from bot_bottle.supervise.grant import Grant, grant_route
from bot_bottle.supervise.ledger import MAX_OPEN
from bot_bottle.supervise.record import past_of, read_past
from tests.integration.egress_lab import SECONDS, TOKEN, Clients, Upstream, config, listeners, ok, route
from tests.support.family import wait_until
from tests.support.pipelock import letters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.supervise.record import Past

pytestmark = pytest.mark.integration

IDENTITY = "lab-00001"
KEPT = route("kept.test", auth=True)
ASK = route("ask.test", on_match="ask")


class Bottle(Clients):
    """A sidecar that an agent may ask, with its control socket."""

    def __init__(self, tmp_path: Path, past: Past | None, pins: dict[str, Any], folder: Path) -> None:
        self.audit_file = tmp_path / "audit" / "lab.jsonl"
        settings = replace(config(tmp_path, (KEPT, ASK), pins=pins), supervise=past)
        self.process = SidecarProcess.start(settings)
        sockets = listeners()
        door = socket.create_server(("127.0.0.1", 0))
        with control_listener(folder) as control:
            self.process.give_listeners([*sockets.items(), ("supervise", door), ("control", control)])
            # The socket's name must outlive the listener of this process.
            (folder / "kept").hardlink_to(folder / "control")
        (folder / "kept").rename(folder / "control")
        self.ports = {role: sock.getsockname()[1] for role, sock in sockets.items()}
        self.port = door.getsockname()[1]
        for sock in (*sockets.values(), door):
            sock.close()
        self.ca_file = tmp_path / "ca.pem"
        self.ca_file.write_text(self.process.ca_pem)

    def close(self) -> None:
        self.process.close()

    def order(self, name: str, **fields: object) -> dict[str, Any]:
        with ControlClient.connect(IDENTITY, SECONDS) as client:
            return client.order(name, **fields)

    def open_requests(self) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = self.order("requests")["requests"]
        return requests

    def one_request(self) -> dict[str, Any]:
        wait_until(lambda: bool(self.open_requests()), "a request")
        return self.open_requests()[0]

    def grant(self, host: str, **more: Any) -> None:
        one = self.one_request()["request"]
        given = Grant(request=one, route=grant_route(one, host, ["/docs"], ["GET"]), **more)
        self.order("answer", request=one, verdict="approved", words="go on", grant=given.to_wire())

    def ask(self, *calls: tuple[str, dict[str, object]]) -> list[dict[str, Any]]:
        """Make calls, one after another, on one session of the SDK's client."""

        async def run() -> list[dict[str, Any]]:
            answers = []
            url = f"http://127.0.0.1:{self.port}/mcp"
            async with streamable_http_client(url) as streams, ClientSession(*streams[:2]) as session:
                await session.initialize()
                for tool, arguments in calls:
                    result = await session.call_tool(tool, arguments)
                    (text,) = result.content
                    assert isinstance(text, TextContent)
                    answers.append(json.loads(text.text))
            return answers

        return asyncio.run(run())

    def asking(self, *calls: tuple[str, dict[str, object]]) -> Asking:
        return Asking(self, calls)

    def post(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        with contextlib.closing(connection):
            ready = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
            connection.request("POST", "/mcp", body, {**ready, **headers})
            response = connection.getresponse()
            return response.status, response.read()

    def status_of(self, host: str, path: str = "/docs") -> int:
        with self.tunnel(host) as stream:
            return stream.get(host, path).status


class Asking(threading.Thread):
    """Calls made while the test is the human."""

    def __init__(self, bottle: Bottle, calls: tuple[tuple[str, dict[str, object]], ...]) -> None:
        super().__init__(daemon=True)
        self._bottle, self._calls = bottle, calls
        self.answers: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        # The sidecar may go while it waits; whoever needs the answers misses them then.
        with contextlib.suppress(Exception):
            self.answers = self._bottle.ask(*self._calls)

    def done(self) -> list[dict[str, Any]]:
        self.join(SECONDS)
        assert not self.is_alive()
        return self.answers


class World:
    """One home and one upstream, in which sidecars follow each other."""

    def __init__(self, tmp_path: Path, upstream: Upstream, heads: list[bytes], folder: Path) -> None:
        self.tmp_path, self.upstream, self.heads, self.folder = tmp_path, upstream, heads, folder

    @contextlib.contextmanager
    def bottle(self, past: Past | None = None, upstream: Upstream | None = None) -> Iterator[Bottle]:
        pins = dict.fromkeys(("kept.test", "docs.test", "ask.test"), (upstream or self.upstream).pin)
        bottle = Bottle(self.tmp_path, past if past is not None else past_of(()), pins, self.folder)
        with contextlib.closing(bottle):
            yield bottle


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    folder = bottle_state.create_state(bottle_state.BottleMetadata(identity=IDENTITY))
    heads: list[bytes] = []

    def answer(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                heads.append(data)
                sock.sendall(ok(b"here"))

    with Upstream(answer) as upstream:
        yield World(tmp_path, upstream, heads, folder)


DOCS: tuple[str, dict[str, object]] = (
    "request_egress",
    {"host": "docs.test", "paths": ["/docs"], "methods": ["GET"], "reason": "reading"},
)


def test_a_yes_opens_what_was_granted_and_the_agent_is_told(world: World) -> None:
    with world.bottle() as bottle:
        assert bottle.status_of("docs.test") == 403
        asking = bottle.asking(("list_egress_routes", {}), DOCS, ("request_status", {}))
        request = bottle.one_request()
        assert (request["host"], request["paths"], request["why"]) == ("docs.test", ["/docs"], "reading")
        bottle.grant("docs.test")
        routes, answer, pending = asking.done()
        assert [one["host"] for one in routes["egress"]["routes"]] == ["kept.test", "ask.test"]
        assert (answer["status"], answer["message"]) == ("approved", "go on")
        assert answer["holds"] == "GET docs.test /docs, for as long as this bottle lives"
        assert pending["pending"] == []
        assert bottle.status_of("docs.test") == 200
        assert bottle.status_of("docs.test", "/other") == 403
        (open_now,) = bottle.order("status")["granted"]
        assert (open_now["host"], open_now["counters"]["requests"]) == ("docs.test", 1)
        assert TOKEN.encode() not in world.heads[-1], "a grant brings no credential"
        bottle.order("reload", routes=[])
        assert bottle.status_of("docs.test") == 200, "the manifest's routes change, the grant holds"
        bottle.order("panic")
        assert bottle.status_of("docs.test") == 403
        bottle.order("lift")
        assert bottle.status_of("docs.test") == 403, "a panic ends what was granted"
        assert bottle.status_of("kept.test") == 403
    assert read_past(world.tmp_path / "audit" / "lab.jsonl").grants == (), (
        "nor is it granted to a later session"
    )


def test_a_grant_on_a_host_with_a_credential_shows_nothing_of_it(world: World) -> None:
    """Nor does the host once the operator has taken the credential off its route."""
    seen: list[bytes] = []

    def answer(sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                seen.append(data)
                sock.sendall(ok(b" | ".join(seen)))

    asked: tuple[str, dict[str, object]] = ("request_egress", {**DOCS[1], "host": "kept.test"})
    narrow = replace(KEPT, path_allowlist=("/v1/",))

    def shown(bottle: Bottle, path: str) -> bytes:
        with bottle.tunnel("kept.test") as stream:
            answer = stream.get("kept.test", path)
        assert answer.status == 200, answer.body
        return answer.body

    with Upstream(answer) as upstream, world.bottle(upstream=upstream) as bottle:
        bottle.order("reload", routes=[narrow.to_wire()])
        shown(bottle, "/v1/")
        assert TOKEN.encode() in seen[-1]
        asking = bottle.asking(asked)
        bottle.grant("kept.test")
        asking.done()
        assert TOKEN.encode() not in shown(bottle, "/docs/last")
        assert TOKEN.encode() not in seen[-1]
        bottle.order("renew", secrets={"LAB_TOKEN": "renewed-3f9aQm7Zx1Lr8Tn5"})
        shown(bottle, "/v1/")
        assert b"renewed-3f9aQm7Zx1Lr8Tn5" in seen[-1]
        bottle.order("reload", routes=[replace(narrow, auth=None).to_wire()])

        def hidden(path: str) -> None:
            body = shown(bottle, path)
            assert TOKEN.encode() not in body
            assert b"renewed-3f9aQm7Zx1Lr8Tn5" not in body
            assert body.count(b"*" * 24) >= 2, "it was shown, and taken out"

        hidden("/v1/")
        hidden("/docs/last")
        bottle.order("panic")
        bottle.order("lift")
        hidden("/v1/")  # the grant ended with the panic


def test_a_human_lets_what_was_found_pass_and_nothing_else(world: World) -> None:
    """The same values to the same host, as often as was said; of the bottle's own secret nobody is asked."""
    key, other = f"ghp_{letters(36)}", f"ghp_{letters(36)[::-1]}"

    def send(bottle: Bottle, text: str, where: str = "body") -> tuple[int, str]:
        body = text.encode() if where == "body" else b""
        target = "/v1" if where == "body" else f"/v1?k={text}"
        with bottle.tunnel("ask.test") as stream:
            head = f"POST {target} HTTP/1.1\r\nHost: ask.test\r\nContent-Length: {len(body)}\r\n\r\n"
            stream.send(head.encode() + body)
            answer = stream.response()
        return answer.status, "" if answer.status == 200 else str(answer.json["next_step"])

    def yes(bottle: Bottle, **more: Any) -> None:
        one = bottle.one_request()
        name = one["request"]
        given = Grant(request=name, route=grant_route(name, one["host"]), values=tuple(one["values"]))
        changed = replace(given, values=())
        with pytest.raises(OrderRefusedError, match="nothing pass but what it asks for"):
            bottle.order("answer", request=given.request, verdict="approved", grant=changed.to_wire())
        bottle.order(
            "answer", request=given.request, verdict="approved", grant=replace(given, **more).to_wire()
        )

    with world.bottle() as bottle:
        status, step = send(bottle, f"{key} and {other}")
        (one,) = bottle.open_requests()
        assert (status, one["kind"], one["host"]) == (403, "content", "ask.test")
        assert f"request {one['request']} waits" in step
        assert send(bottle, f"{key} and {other}")[0] == 403
        assert len(bottle.open_requests()) == 1, "asked once"
        assert "github-token in body" in one["text"]
        yes(bottle, uses=1)
        assert send(bottle, f"{key} and {other}")[0] == 200
        assert send(bottle, key)[0] == 403, "once is once"
        yes(bottle)
        for _ in range(2):
            assert send(bottle, key)[0] == send(bottle, key, "query")[0] == 200
        assert send(bottle, other)[0] == 403
        refused = bottle.one_request()["request"]
        bottle.order("answer", request=refused, verdict="denied")
        assert "has said no" in send(bottle, other)[1]
        status, step = send(bottle, f"{key} {TOKEN}")
        assert (status, "request" in step, bottle.open_requests()) == (403, False, [])
        # A rule knows a private key by its beginning, which others have in common: a yes is to all of one.
        begun = letters(60)
        mine, others = (
            f"-----BEGIN PRIVATE KEY-----\n{begun}\n{letters(64)}\n-----END PRIVATE KEY-----\n"
            for _ in range(2)
        )
        assert send(bottle, mine)[0] == 403
        yes(bottle)
        assert send(bottle, mine)[0] == 200
        for text in (others.partition("-----END")[0], others[:100]):
            status, step = send(bottle, text)
            assert (status, "request" in step, bottle.open_requests()) == (403, False, [])
        assert send(bottle, mine + others)[0] == 403
        bottle.order("answer", request=bottle.one_request()["request"], verdict="denied")
        assert send(bottle, others)[0] == 403
        bottle.order("answer", request=bottle.one_request()["request"], verdict="denied")
        told = bottle.audit_file.read_text()
    arrived = b"".join(world.heads)
    assert others.split("\n")[2].encode() not in arrived
    assert (arrived.count(key.encode()), arrived.count(other.encode())) == (5, 1)
    assert TOKEN.encode() not in arrived
    assert key not in told
    assert other not in told


def test_a_no_says_why_and_opens_nothing(world: World) -> None:
    with world.bottle() as bottle:
        asking = bottle.asking(DOCS)
        one = bottle.one_request()["request"]
        grant = Grant(request=one, route=grant_route(one, "docs.test"))
        with pytest.raises(OrderRefusedError, match="a yes"):
            bottle.order("answer", request=one, verdict="denied", grant=grant.to_wire())
        bottle.order("answer", request=one, verdict="denied", words="use the copy in /workspace/docs")
        (answer,) = asking.done()
        assert (answer["status"], answer["message"]) == ("denied", "use the copy in /workspace/docs")
        assert bottle.status_of("docs.test") == 403
        with pytest.raises(OrderRefusedError, match="no open request"):
            bottle.order("answer", request=one, verdict="approved")


def test_a_grant_for_one_request_is_used_up_also_across_sessions(world: World) -> None:
    with world.bottle() as bottle:
        asking = bottle.asking(DOCS)
        bottle.grant("docs.test", uses=2)
        asking.done()
        with bottle.tunnel("docs.test") as stream:
            assert stream.get("docs.test", "/docs/1").status == 200
    with world.bottle(read_past(world.tmp_path / "audit" / "lab.jsonl")) as bottle:
        with bottle.tunnel("docs.test") as stream:
            assert stream.get("docs.test", "/docs/2").status == 200
            assert stream.get("docs.test", "/docs/3").reason == "host_not_allowed"
        assert bottle.status_of("docs.test") == 403
    assert read_past(world.tmp_path / "audit" / "lab.jsonl").grants[0].uses == 0


def test_a_grant_for_a_time_ends_by_itself(world: World) -> None:
    for seconds in (4, 15, 40):
        with world.bottle() as bottle:
            asking = bottle.asking(DOCS)
            bottle.grant("docs.test", until=int(time.time()) + seconds)
            asking.done()
            with bottle.tunnel("docs.test") as stream:
                try:
                    answer = stream.get("docs.test", "/docs")
                except ConnectionError:
                    if seconds == 40:
                        raise
                    continue  # the machine was too busy: it ended while it was used
                if answer.status == 403 and seconds < 40:
                    continue  # the machine was too busy: it had ended before it was used
                assert answer.status == 200, answer.body
                assert stream.rest() == b"", "what it had opened is closed when it ends"
            assert bottle.status_of("docs.test") == 403
            return


def test_what_is_open_survives_a_restart_and_is_answered_later(world: World) -> None:
    audit = world.tmp_path / "audit" / "lab.jsonl"
    with world.bottle() as bottle:
        asking = bottle.asking(DOCS)
        one = bottle.one_request()["request"]
    asking.join(SECONDS)
    past = read_past(audit)
    assert [request.id for request in past.open] == [one]
    with world.bottle(past) as bottle:
        assert [request["request"] for request in bottle.open_requests()] == [one]
        bottle.grant("docs.test")
        (answer,) = bottle.ask(("request_status", {"id": one}))
        assert answer["status"] == "approved"
        assert bottle.status_of("docs.test") == 200
    with world.bottle(read_past(audit)) as bottle:
        assert bottle.status_of("docs.test") == 200, "and a grant survives as well"


@pytest.mark.parametrize(
    ("tool", "arguments", "word"),
    [
        ("request_egress", {"host": "169.254.169.254", "reason": "x"}, "addresses"),
        ("request_egress", {"host": "docs.test"}, "reason"),
        (
            "request_egress",
            {"host": "docs.test", "reason": "x", "token_ref": "LAB_TOKEN"},
            "unknown argument",
        ),
        ("request_status", {"id": "../../etc"}, "no request"),
        ("approve", {"id": "x"}, "no tool"),
        ("answer", {"request": "x", "verdict": "approved"}, "no tool"),
    ],
)
def test_what_is_no_request_is_an_error_and_asks_nobody(
    world: World, tool: str, arguments: dict[str, object], word: str
) -> None:
    with world.bottle() as bottle:
        (answer,) = bottle.ask((tool, arguments))
        assert answer["status"] == "error"
        assert word in answer["message"]
        assert bottle.open_requests() == []


def test_a_flood_of_requests_ends_in_a_bound_and_the_sidecar_goes_on(world: World) -> None:
    with world.bottle() as bottle:
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}

        def ask(number: int) -> None:
            params = {"name": "request_egress", "arguments": {"host": f"h{number}.test", "reason": "flood"}}
            with contextlib.suppress(OSError, http.client.HTTPException):
                bottle.post(json.dumps({**call, "params": params}).encode())

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(60)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(bottle.open_requests()) >= 5, "requests")
        assert bottle.status_of("kept.test") == 200
        wait_until(lambda: sum(thread.is_alive() for thread in threads) <= MAX_OPEN, "refusals")
        assert len(bottle.open_requests()) <= MAX_OPEN


def test_what_is_no_mcp_is_refused_and_the_next_one_is_served(world: World) -> None:
    with world.bottle() as bottle:
        assert bottle.post(b"{" * 100)[0] == 400
        assert bottle.post(b'{"x":"' + b"a" * 100_000 + b'"}')[0] == 413
        with socket.create_connection(("127.0.0.1", bottle.port)) as sock:
            sock.sendall(b"\x16\x03\x01\x00\xff" * 50)
            sock.settimeout(SECONDS)
            assert sock.recv(100).startswith(b"HTTP/1.1 400")
        connection = http.client.HTTPConnection("127.0.0.1", bottle.port, timeout=SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/mcp")
            assert connection.getresponse().status == 405
        assert bottle.ask(("request_status", {}))[0]["status"] == "ok"


def test_the_process_that_reads_the_agent_holds_nothing_and_is_replaced_when_it_dies(world: World) -> None:
    with world.bottle() as bottle:
        bottle.ask(("request_status", {}))
        (child,) = _children(bottle.process.pid)
        status = dict(
            line.split(":\t", 1)
            for line in _read(f"/proc/{child}/status").decode().splitlines()
            if ":\t" in line
        )
        assert status["NoNewPrivs"] == "1"
        if os.getuid() == 0:
            for name in ("environ", "cmdline"):
                assert TOKEN.encode() not in _read(f"/proc/{child}/{name}")
            assert TOKEN.encode() not in _memory(child), "no credential in its memory"
        os.kill(child, 9)
        wait_until(lambda: _children(bottle.process.pid) != [child], "the end of the killed one")
        assert bottle.ask(("request_status", {}))[0]["status"] == "ok"
        assert _children(bottle.process.pid) != [child]
        last = _children(bottle.process.pid)
    wait_until(lambda: not any(Path(f"/proc/{one}").exists() for one in last), "its end with the sidecar's")


def test_a_bottle_that_may_not_ask_finds_the_door_closed(tmp_path: Path, world: World) -> None:
    settings = config(tmp_path, (KEPT,))
    with contextlib.closing(SidecarProcess.start(settings)) as process:
        door = socket.create_server(("127.0.0.1", 0))
        process.give_listeners([("supervise", door)])
        with socket.create_connection(door.getsockname()) as sock, contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""
        door.close()


def _children(pid: int) -> list[int]:
    return [int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()]


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _memory(pid: int) -> bytes:
    found = bytearray()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in maps:
            place, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in place.split("-"))
            memory.seek(start)
            with contextlib.suppress(OSError):
                found += memory.read(end - start)
    return bytes(found)
