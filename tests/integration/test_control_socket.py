"""Orders to a running sidecar: reload while it works, stop everything, follow what it decides."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle import bottle_state
from bot_bottle.audit import AuditLog
from bot_bottle.control_client import ControlClient, NotReachableError, OrderRefusedError, control_listener
from bot_bottle.egress.routes import RouteAuth
from bot_bottle.running import order_all, running_identities
from bot_bottle.sidecar import control_server
from bot_bottle.sidecar.config import MOST_FORMER
from tests.integration.egress_lab import (
    SECONDS,
    TOKEN,
    Handler,
    Response,
    Sidecar,
    Stream,
    Upstream,
    config,
    heads_on,
    ok,
    route,
)
from tests.support import ws
from tests.support.family import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot_bottle.egress.routes import EgressRoute

pytestmark = pytest.mark.integration

IDENTITY = "lab-00001"
NEW_TOKEN = "marked-newcomer-4b7e91"
HOSTS = ("kept.test", "gone.test", "path.test", "cred.test", "new.test")
KEPT, GONE = route("kept.test"), route("gone.test")
PATH, CRED = route("path.test", path_allowlist=("/a/", "/b/")), route("cred.test", auth=True)
TABLE = (KEPT, GONE, PATH, CRED)
WEBSOCKET = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class World:
    """A sidecar with its control socket in a state folder, and one upstream behind several names."""

    def __init__(
        self,
        sidecar: Sidecar,
        heads: list[bytes],
        folder: Path,
        release: threading.Event,
        opened: contextlib.ExitStack,
    ) -> None:
        self.sidecar, self.heads, self.folder, self.release = sidecar, heads, folder, release
        self._opened = opened

    def tunnel(self, host: str) -> Stream:
        """Open a tunnel that is closed with this world, whatever the test leaves of it."""
        stream = self.sidecar.tunnel(host)
        self._opened.callback(stream.close)
        return stream

    def control(self) -> ControlClient:
        return ControlClient.connect(IDENTITY, SECONDS)

    def reload(self, *routes: EgressRoute, **fields: Any) -> dict[str, Any]:
        with self.control() as client:
            return client.order("reload", routes=[one.to_wire() for one in routes], **fields)

    def status(self) -> dict[str, Any]:
        with self.control() as client:
            return client.order("status")

    def paths_seen(self) -> set[str]:
        return {head.split(b" ")[1].decode() for head in self.heads}


def upstream_handler(heads: list[bytes], release: threading.Event) -> Handler:
    """Answer with the request line, to /log with all heads so far; echo on a WebSocket; stop in /slow."""

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        for head in heads_on(stream):
            heads.append(head)
            if b"upgrade: websocket" in head.lower():
                sock.sendall(ws.UPGRADED)
                for first, data in ws.frames(stream):
                    sock.sendall(ws.said(data, first & 0x0F, key=b""))
            if b"/log" in head:
                sock.sendall(ok(b"".join(heads)))
                continue
            if b"/slow" in head:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf-")
                release.wait(SECONDS)
                sock.sendall(b"whole")
                continue
            sock.sendall(ok(head.split(b"\r\n")[0]))

    return handler


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Bring the sidecar up, below a home whose name alone is longer than a socket's address may be."""
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / ("deep" * 20) / ("home" * 20)))
    folder = bottle_state.create_state(bottle_state.BottleMetadata(identity=IDENTITY))
    heads: list[bytes] = []
    release = threading.Event()
    with (
        Upstream(upstream_handler(heads, release)) as upstream,
        control_listener(folder) as listener,
        contextlib.ExitStack() as opened,
    ):
        settings = config(tmp_path, TABLE, pins=dict.fromkeys(HOSTS, upstream.pin))
        with Sidecar(tmp_path, settings, control=listener) as sidecar:
            listener.close()
            opened.callback(release.set)
            yield World(sidecar, heads, folder, release, opened)


def ended(stream: Stream) -> bool:
    """Wait for the end of a connection that must come by itself."""
    return stream.rest() == b""


def echoes(stream: Stream) -> bool:
    """Send a message and wait for the server's, which is the same."""
    return ws.message(stream.send(ws.said(b"!"))) == b"!"


def websocket(world: World, host: str, path: str = "/") -> Stream:
    stream = world.tunnel(host)
    stream.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{WEBSOCKET}\r\n".encode())
    assert stream.response(head=True).status == 101
    assert echoes(stream)
    return stream


def test_new_routes_hold_from_the_next_request_on(world: World) -> None:
    with world.sidecar.tunnel("gone.test") as stream:
        assert stream.get("gone.test").status == 200
        answer = world.reload(KEPT, route("new.test"))
        assert answer["after"] == ["new.test; any method; any path; ports 443,80"]
        assert {line.partition(";")[0] for line in answer["before"]} == {
            "gone.test",
            "path.test",
            "cred.test",
        }
        assert ended(stream)
    with world.sidecar.tunnel("gone.test") as stream:
        assert stream.get("gone.test").reason == "host_not_allowed"
    with world.sidecar.tunnel("new.test") as stream:
        assert stream.get("new.test").status == 200
    (record,) = world.sidecar.records("reload")
    assert record["decision"] == "applied"
    assert (record["before"], record["after"]) == (answer["before"], answer["after"])


def test_what_was_open_under_a_route_that_is_gone_or_narrowed_is_closed_and_the_rest_goes_on(
    world: World,
) -> None:
    gone, kept = websocket(world, "gone.test"), websocket(world, "kept.test")
    narrowed, inside = websocket(world, "path.test", "/a/x"), websocket(world, "path.test", "/b/x")
    slow = world.tunnel("cred.test")
    slow.send(b"GET /slow HTTP/1.1\r\nHost: cred.test\r\n\r\n")
    slow.until(b"half-")
    idle = world.tunnel("gone.test")
    assert idle.get("gone.test").status == 200
    answer = world.reload(KEPT, replace(PATH, path_allowlist=("/b/",)), replace(CRED, auth=None))
    assert answer["closed"] >= 4
    for stream in (gone, narrowed, idle):
        assert ended(stream)
    with pytest.raises(ConnectionError):  # cut, not ended: half an answer must not look whole
        slow.exactly(5)
    for stream in (kept, inside):
        assert echoes(stream)


def test_a_request_under_way_ends_in_peace_under_routes_that_still_allow_it(world: World) -> None:
    with world.sidecar.tunnel("cred.test") as slow:
        slow.send(b"GET /slow HTTP/1.1\r\nHost: cred.test\r\n\r\n")
        slow.until(b"half-")
        for origin in ("first", "second"):  # what went on once goes on again, by its new route
            world.reload(replace(CRED, methods=("GET",), origin=origin))
        world.release.set()
        assert slow.exactly(5) == b"whole"


def test_requests_read_before_a_reload_are_judged_after_it(world: World) -> None:
    """Pipelined behind a slow one, and known from before: the precedent of old routes speaks for nothing."""
    with world.sidecar.tunnel("path.test") as stream:
        assert stream.get("path.test", "/a/known").status == 200
        assert stream.get("path.test", "/a/known").status == 200
        request = "GET {} HTTP/1.1\r\nHost: path.test\r\n\r\n"
        stream.send((request.format("/b/slow") + request.format("/a/known")).encode())
        stream.until(b"half-")
        before = len(world.heads)
        world.reload(replace(PATH, path_allowlist=("/b/",)))
        world.release.set()
        assert stream.exactly(5) == b"whole"
        assert stream.response().reason == "path_not_allowed"
        assert len(world.heads) == before


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ("everything", "list of routes"),
        ([{**KEPT.to_wire(), "host": "Kept.test"}], r"routes\[0\].host"),
        ([KEPT.to_wire(), {**GONE.to_wire(), "ports": [99999]}], r"routes\[1\].ports"),
        ([replace(KEPT, auth=RouteAuth(scheme="Bearer", token_ref="NOBODYS")).to_wire()], "NOBODYS"),
    ],
)
def test_an_invalid_table_is_refused_whole_and_the_old_one_stays(
    world: World, routes: object, words: str
) -> None:
    before = world.status()
    with websocket(world, "gone.test") as stream, world.control() as client:
        with pytest.raises(OrderRefusedError, match=words):
            client.order("reload", routes=routes)
        assert echoes(stream)
    for one in (*before["routes"], *(after := world.status()["routes"])):
        del one["counters"]
    assert after == before["routes"]
    (record,) = world.sidecar.records("reload")
    assert record["decision"] == "refused"


def test_a_new_credential_is_sent_on_its_route_and_shown_nowhere(world: World) -> None:
    fresh = route("new.test", auth=None)
    fresh = replace(fresh, auth=RouteAuth(scheme="token", token_ref="NEWCOMER"))
    with pytest.raises(OrderRefusedError, match="NEWCOMER"):
        world.reload(fresh)
    answer = world.reload(fresh, secrets={"NEWCOMER": NEW_TOKEN})
    with world.sidecar.tunnel("new.test") as stream:
        assert stream.get("new.test", "/plain").status == 200
        assert stream.get("new.test", f"/{NEW_TOKEN}").reason == "own_secret"
    assert f"authorization: token {NEW_TOKEN}".encode() in world.heads[-1].lower()
    assert NEW_TOKEN not in json.dumps([answer, world.status()])
    world.reload(replace(fresh, path_allowlist=(f"/{NEW_TOKEN}/",)))  # a record that would quote it
    assert "[redacted]" in world.sidecar.audit_file.read_text()
    assert NEW_TOKEN not in world.sidecar.audit_file.read_text()
    with pytest.raises(OrderRefusedError, match="header"):
        world.reload(fresh, secrets={"NEWCOMER": "two\nlines"})


def test_what_a_renewal_took_the_place_of_is_shown_and_sent_no_more_than_before(world: World) -> None:
    def renew(value: str) -> None:
        with world.control() as client:
            client.order("renew", secrets={"LAB_TOKEN": value})

    def ask(host: str, path: str) -> Response:
        with world.tunnel(host) as stream:
            return stream.get(host, path)

    assert ask("cred.test", "/a").status == 200
    values = [f"marked-{number:02}-{token_hex(12)}" for number in range(MOST_FORMER + 1)]
    renew(values[0])
    shown = ask("cred.test", "/log").body  # a server's log of what was sent to it: the old token, and the new
    assert shown.lower().count(b"authorization: bearer ") == 2
    assert TOKEN.encode() not in shown
    assert values[0].encode() not in shown
    assert ask("kept.test", f"/{TOKEN}").reason == "own_secret"
    assert ask("kept.test", f"/?x={TOKEN.encode().hex()}").reason == "own_secret"
    for value in values[1:-1]:
        renew(value)
    assert ask("cred.test", "/log").body.count(TOKEN.encode()) == 0
    assert ask("kept.test", f"/{TOKEN}").reason == "own_secret"
    assert not [one for one in world.sidecar.records("credential") if "message" in one]
    renew(values[-1])  # one more than is kept: the oldest falls out, which is said
    said = world.sidecar.records("credential")[-1]["message"]
    assert said == f"the oldest value of LAB_TOKEN is guarded no more; {MOST_FORMER} earlier ones are"
    assert ask("kept.test", f"/{TOKEN}").status == 200
    for value in values:
        assert ask("kept.test", f"/{value}").reason == "own_secret"
        assert value not in world.sidecar.audit_file.read_text()
    # Routes that change keep all of it.
    world.reload(CRED, KEPT)
    shown = ask("cred.test", "/log").body
    assert not [value for value in values if value.encode() in shown]


@pytest.mark.timeout(120)
def test_nothing_falls_open_while_a_thousand_requests_meet_many_reloads(world: World) -> None:
    """Each request is answered by the table of its moment: 200 where it is open, 403 where it is not.

    A path is open or closed for good before the first request for it is sent, so one answer alone is right.
    """
    ever, never = replace(GONE, path_allowlist=("/open/",)), replace(KEPT, path_allowlist=("/open/",))
    world.reload(ever, never)
    stop = threading.Event()
    reloads = 0

    def keep_reloading() -> None:
        nonlocal reloads
        with world.control() as client:
            while not stop.is_set():
                hosts = (ever, never) if reloads % 2 else (ever,)
                client.order("reload", routes=[one.to_wire() for one in hosts])
                reloads += 1

    def ask(number: int) -> list[tuple[str, int]]:
        found = []
        for turn in range(20):
            path = f"/open/{number}-{turn}" if turn % 2 else f"/shut/{number}-{turn}"
            host = "gone.test" if turn % 4 < 2 else "kept.test"
            with contextlib.suppress(OSError), world.sidecar.tunnel(host) as stream:
                found.append((path, stream.get(host, path).status))
        return found

    thread = threading.Thread(target=keep_reloading)
    thread.start()
    with ThreadPoolExecutor(50) as pool:
        answers = [answer for found in pool.map(ask, range(50)) for answer in found]
    stop.set()
    thread.join(SECONDS)
    assert reloads > 10
    assert len(answers) > 300
    assert {status for path, status in answers if path.startswith("/shut/")} == {403}
    assert {status for path, status in answers if path.startswith("/open/")} <= {200, 403}
    assert 200 in {status for _path, status in answers}
    assert not [path for path in world.paths_seen() if path.startswith("/shut/")]


def test_panic_stops_everything_until_it_is_lifted(world: World) -> None:
    tunnels = [websocket(world, host) for host in ("kept.test", "gone.test")]
    with world.sidecar.tunnel("kept.test") as idle, world.control() as client:
        assert idle.get("kept.test").status == 200
        closed: Any = client.order("panic")["closed"]
        assert closed >= 3
        assert all(ended(stream) for stream in (*tunnels, idle))
        for host in ("kept.test", "nowhere.test"):
            with world.sidecar.tunnel(host) as stream:
                assert stream.get(host).reason == "panic"
        with world.sidecar.plain("http") as stream:
            assert stream.get("kept.test").reason == "panic"
        with world.sidecar.plain("proxy") as stream:
            stream.send(b"GET http://_egress.local/allowlist HTTP/1.1\r\nHost: _egress.local\r\n\r\n")
            assert stream.response().reason == "panic"
        assert client.order("status")["halted"] is True
        client.order("panic")  # twice is once
        world.reload(KEPT)  # taken for later; nothing opens by it
        with world.sidecar.tunnel("kept.test") as stream:
            assert stream.get("kept.test").reason == "panic"
        client.order("lift")
    with world.sidecar.tunnel("kept.test") as stream:
        assert stream.get("kept.test").status == 200
    with world.sidecar.tunnel("gone.test") as stream:
        assert stream.get("gone.test").reason == "host_not_allowed"
    assert [one["decision"] for one in world.sidecar.records("panic")] == ["deny", "lifted"]


def test_what_a_launcher_tells_of_the_session_is_an_event(world: World) -> None:
    with world.control() as client:
        client.order("session", state="ended", exit_code=3)
        for wrong in ({"state": "gone"}, {"state": "ended", "exit_code": "0"}, {"state": ["ended"]}):
            with pytest.raises(OrderRefusedError):
                client.order("session", **wrong)
    recorded = [(one["state"], one["exit_code"]) for one in world.sidecar.records("session")]
    assert recorded == [("ended", 3)]


def read_until(events: Iterator[bytes], done: Callable[[bytes], bool]) -> bytes:
    data = b""
    for piece in events:
        data += piece
        if done(data):
            break
    return data


def test_events_are_the_record_itself_from_any_place_in_it(world: World) -> None:
    with world.control() as client:
        events = client.events(0)
        with world.sidecar.tunnel("kept.test") as stream:
            stream.get("kept.test", "/first")
        first = read_until(events, lambda data: b"/first" in data and data.endswith(b"\n"))
        assert first == world.sidecar.audit_file.read_bytes()
    with world.control() as client:
        later = client.events(len(first))
        with world.sidecar.tunnel("gone.test") as stream:
            stream.get("gone.test", "/second")
        second = read_until(later, lambda data: b"/second" in data and data.endswith(b"\n"))
        assert first + second == world.sidecar.audit_file.read_bytes()
    with world.control() as client, pytest.raises(OrderRefusedError, match="offset"):
        client.order("events", **{"from": 10**9})


def test_each_route_is_counted(world: World) -> None:
    with world.sidecar.tunnel("kept.test") as stream:
        for _ in range(3):  # the second and third by the precedent of the first
            assert stream.get("kept.test").body == b"GET / HTTP/1.1"
        stream.send(b"POST /p HTTP/1.1\r\nHost: kept.test\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
        stream.exactly(1)
    with world.sidecar.tunnel("path.test") as stream:
        assert stream.get("path.test", "/outside").status == 403
    with world.sidecar.tunnel("nowhere.test") as stream:
        assert stream.get("nowhere.test").status == 403
    websocket(world, "gone.test")
    before = world.status()
    world.reload(KEPT, PATH)
    after = world.status()
    for status in (before, after):
        counted = {one["host"]: one["counters"] for one in status["routes"]}
        kept = counted["kept.test"]
        assert (kept["requests"], kept["denied"], kept["errors"]) == (4, 0, 0)
        assert kept["bytes_in"] == 3 * len("GET / HTTP/1.1") + len("POST /p HTTP/1.1")
        assert 1000 < kept["bytes_out"] < 2000
        assert 0 < kept["latency_p50_ms"] <= kept["latency_p95_ms"] <= kept["latency_max_ms"]
        assert (counted["path.test"]["requests"], counted["path.test"]["denied"]) == (0, 1)
        assert status["elsewhere"]["counters"]["denied"] == 1
    gone = {one["host"]: one["counters"] for one in before["routes"]}["gone.test"]
    assert (gone["requests"], gone["bytes_in"]) == (1, 3)  # one frame, echoed


def test_events_end_with_the_sidecar(world: World) -> None:
    with world.control() as client:
        events = client.events(0)
        assert next(events)
        world.sidecar.process._process.kill()
        assert b"".join(events) == b""
        world.sidecar.process._process.wait()
    with pytest.raises(NotReachableError, match="not running"):
        world.control()
    AuditLog.open(world.sidecar.audit_file).close()  # goes on with the chain, and ends it


def raw(world: World) -> socket.socket:
    folder = os.open(world.folder, os.O_PATH)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(SECONDS)
        sock.connect(f"/proc/self/fd/{folder}/control")
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


def answer_to(world: World, data: bytes) -> dict[str, Any]:
    with contextlib.closing(raw(world)) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        line = sock.makefile("rb").readline()
        answer: dict[str, Any] = json.loads(line)
        return answer


@pytest.mark.parametrize(
    "data",
    [
        b"no json\n",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b'{"order": "open the gates"}\n',
        b'{"order": ["reload"]}\n',
        b"{}\n",
        b'{"order": "reload", "routes": {}, "secrets": []}\n',
        b"x" * (control_server.MAX_ORDER_BYTES + 1),
    ],
)
def test_what_is_no_order_is_answered_and_changes_nothing(world: World, data: bytes) -> None:
    assert answer_to(world, data)["ok"] is False
    assert len(world.status()["routes"]) == len(TABLE)


def test_a_flood_of_connections_keeps_neither_orders_nor_requests_out(world: World) -> None:
    flood = []
    for _ in range(4 * control_server.MAX_CONNECTIONS):
        with contextlib.suppress(BlockingIOError):
            flood.append(raw(world))
            flood[-1].send(b'{"order":')  # begun, never ended
    assert world.status()["halted"] is False
    with world.sidecar.tunnel("kept.test") as stream:
        assert stream.get("kept.test").status == 200
    for sock in flood:
        sock.close()


def test_readers_of_events_leave_room_for_orders_and_those_that_do_not_read_hold_nothing(
    world: World,
) -> None:
    readers = []
    for _ in range(control_server.MAX_READERS):
        client = world.control()
        client.order("events", **{"from": 0})
        readers.append(client)
    with world.control() as one_more, pytest.raises(OrderRefusedError, match="readers"):
        one_more.order("events", **{"from": 0})
    with world.sidecar.tunnel("kept.test") as stream:
        stream.get("kept.test", "/first")
        before = rss(world.sidecar.process.pid)  # with all that judges loaded
        for number in range(2000):
            stream.get("kept.test", f"/{number}-{'x' * 900}")
    assert rss(world.sidecar.process.pid) - before < 24 * 1024 * 1024
    assert world.status()["halted"] is False
    for client in readers:
        client.close()


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_socket_is_the_operators_alone(world: World) -> None:
    place = world.folder / "control"
    assert place.lstat().st_mode & 0o7777 == 0o600
    assert world.folder.stat().st_mode & 0o7777 == 0o700
    if os.geteuid() != 0:
        pytest.skip("needs root, to try as another user")
    assert b"PermissionError" in knock_as_another_user(world)
    # With folder and socket thrown open the other end is still asked who it is.
    world.folder.chmod(0o755)
    place.chmod(0o666)
    assert b"got b''" in knock_as_another_user(world)
    assert world.status()["halted"] is False


def knock_as_another_user(world: World) -> bytes:
    """Give an order from inside the folder, where no parent folder stands in the way."""
    script = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(20)\ns.connect('control')\n"
        "try:\n    s.send(b'{\"order\": \"panic\"}\\n'); print('got', s.recv(999))\n"
        "except ConnectionError:\n    print('got', b'')\n"
    )
    tried = subprocess.run(
        [shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable, "-I", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=world.folder,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    return tried.stdout


def test_an_order_to_many_waits_for_none_and_reaches_one_that_is_coming_up(
    world: World, tmp_path: Path
) -> None:
    """A bottle that runs and does not listen yet gets the order once it does; a dead one is named at once."""
    late, dead = "late-00001", "dead-00001"
    folder = bottle_state.create_state(bottle_state.BottleMetadata(identity=late))
    gone = bottle_state.create_state(bottle_state.BottleMetadata(identity=dead))
    with control_listener(gone) as deserted:
        deserted.close()
        with (
            bottle_state.hold_lock(late),
            bottle_state.hold_lock(dead),
            bottle_state.hold_lock(IDENTITY),
            ThreadPoolExecutor(1) as pool,
        ):
            assert running_identities() == (dead, IDENTITY, late)
            told = pool.submit(order_all, running_identities(), "panic")
            wait_until(lambda: world.status()["halted"], "the order has reached the one that listens")
            settings = replace(config(tmp_path / "late", TABLE), identity=late)
            with control_listener(folder) as listener, Sidecar(tmp_path / "late", settings, control=listener):
                listener.close()
                outcomes = {one.identity: one for one in told.result(SECONDS)}
                with ControlClient.connect(late, SECONDS) as client:
                    assert client.order("status")["halted"] is True
    assert (outcomes[late].trouble, outcomes[IDENTITY].trouble) == ("", "")
    assert "not running" in outcomes[dead].trouble


def test_a_listener_left_by_a_killed_launcher_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "control"))
    dead.close()
    with control_listener(folder) as listener:
        assert listener.fileno() >= 0
    assert not (folder / "control").exists()
