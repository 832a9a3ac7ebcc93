"""HTTP/2 on both sides of a real proxy: what a request becomes, what comes back, and what is refused."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, StreamReset

from bot_bottle.egress.table import RouteTable
from tests.integration.egress_lab import (
    TOKEN,
    InProcess,
    Sidecar,
    Stream,
    Upstream,
    config,
    ok,
    route,
    serve,
)
from tests.support import http2

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

HOST = "site.test"


class Lab:
    """One egress between a client and a server that both speak HTTP/2."""

    def __init__(self, egress: InProcess, upstream: Upstream, seen: list[http2.Request]) -> None:
        self.egress = egress
        self.upstream = upstream
        self.seen = seen
        self.http2 = egress.http2

    @property
    def decided(self) -> list[tuple[str, str | None]]:
        return [(record["decision"], record["reason"]) for record in self.egress.records()]


def echo(server: http2.Server, request: http2.Request) -> None:
    """Answer with what was asked."""
    body = json.dumps(
        {
            "fields": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.fields],
            "body": request.body.decode("latin-1"),
            "trailers": len(request.trailers),
        }
    )
    server.answer(
        request.stream, body=body.encode(), extra=[("content-type", "text/plain"), ("x-a", "1"), ("x-a", "2")]
    )


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    handler, seen = http2.serve(echo)
    routes = [
        route(HOST, http2=True, auth=True, path_allowlist=("/open", "/p")),
        route("other.test"),
    ]
    with Upstream(handler, http2_for=HOST) as upstream:
        settings = config(tmp_path, routes, pins={HOST: upstream.pin})
        with InProcess(tmp_path, settings) as egress:
            yield Lab(egress, upstream, seen)


@pytest.fixture
def between(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    """Make an egress before a server of the test's own."""
    opened: list[Any] = []

    def make(handler: Callable[[socket.socket], None], *, alpn: bool = True, **fields: Any) -> Lab:
        upstream = Upstream(handler, http2_for=HOST if alpn else "")
        opened.append(upstream)
        settings = config(tmp_path, [route(HOST, http2=True, **fields)], pins={HOST: upstream.pin})
        egress = InProcess(tmp_path, settings)
        opened.append(egress)
        return Lab(egress, upstream, [])

    yield make
    for one in reversed(opened):
        one.__exit__(None, None, None)


def got(answer: http2.Answer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.body)
    found["map"] = dict(found["fields"])
    return found


# What goes through.


@pytest.mark.parametrize("transparent", [False, True], ids=["connect", "transparent"])
def test_a_request_goes_through(lab: Lab, transparent: bool) -> None:
    with lab.http2(HOST, transparent=transparent) as client:
        answer = client.get(
            HOST, "/open?b=c", extra=[("accept", "text/plain"), ("x-twice", "1"), ("x-twice", "2")]
        )
        assert answer.status == 200
        assert [value for name, value in answer.fields if name == b"x-a"] == [b"1", b"2"]
        fields = got(answer)["fields"]
        assert fields[:4] == [
            [":method", "GET"], [":scheme", "https"], [":authority", HOST], [":path", "/open?b=c"],
        ]  # fmt: skip
        assert [value for name, value in fields if name == "x-twice"] == ["1", "2"]
        assert ["te", "trailers"] in fields
        assert got(client.get(HOST, "/p/second"))["map"][":path"] == "/p/second"
    assert lab.upstream.connections == 1, "streams share a connection"
    records = lab.egress.records()
    assert [
        (record["decision"], record["path"], record["injected"], record["via"]) for record in records
    ] == [
        ("allow", "/open", "LAB_TOKEN", "transparent" if transparent else "connect"),
        ("allow", "/p/second", "LAB_TOKEN", "transparent" if transparent else "connect"),
    ]


def test_two_clients_share_an_upstream_connection(lab: Lab) -> None:
    with lab.http2(HOST) as one, lab.http2(HOST) as two:
        streams = [
            (client, client.request(HOST, f"/p/{number}")) for number in range(9) for client in (one, two)
        ]
        for client, stream in streams:
            assert client.wait(stream).status == 200
    assert lab.upstream.connections == 1


def test_bodies_go_either_way_and_cookies_are_one_field(lab: Lab) -> None:
    with lab.http2(HOST) as client:
        extra = [("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]
        answer = client.get(HOST, "/open", method="POST", extra=extra, body=b"x" * 20_000)
        assert got(answer)["body"] == "x" * 20_000
        assert got(answer)["map"]["cookie"] == "a=1; b=2"
        sized = client.get(HOST, "/open", method="PUT", extra=[("content-length", "5")], body=b"hello")
        assert got(sized)["map"]["content-length"] == "5"
        assert client.get(HOST, "/open", method="HEAD").body == b""


def test_the_clients_own_credentials_never_leave(lab: Lab) -> None:
    """Also not where a compression table brings them back by a number (C2, C4)."""
    own = [
        ("authorization", "Bearer mine-0001"),
        ("x-api-key", "mine-0002"),
        ("proxy-authorization", "mine-0003"),
        ("private-token", "mine-0004"),
    ]
    with lab.http2(HOST) as client:
        for _ in range(3):  # from the second time on they are an index each
            fields = got(client.get(HOST, "/open", extra=own))["fields"]
            assert "mine-" not in str(fields)
            (sent,) = [value for name, value in lab.seen[-1].fields if name == b"authorization"]
            assert sent == f"Bearer {TOKEN}".encode()
            assert TOKEN not in str(fields), "an echo of it does not come back"
            assert [name for name, _value in fields if name.endswith(("-key", "-token"))] == []


def test_curl_goes_through(lab: Lab) -> None:
    proxy = (
        "--proxy",
        f"http://127.0.0.1:{lab.egress.ports['proxy']}",
        "--http2",
        "-w",
        "\n%{http_version} %{http_code}",
    )
    done = lab.egress.curl(*proxy, f"https://{HOST}/open/a", f"https://{HOST}/p")
    assert done.stdout.count(b"\n2 200") == 2, done.stderr
    done = lab.egress.curl(*proxy, "-T", __file__, f"https://{HOST}/open")
    assert b"test_curl_goes_through" in done.stdout
    done = lab.egress.curl(*proxy, "-T", __file__, f"https://{HOST}/closed")
    assert b"path_not_allowed" in done.stdout
    assert done.stdout.endswith(b"\n2 403"), done.stderr
    done = lab.egress.curl(*proxy, "--http1.1", f"https://{HOST}/open")
    assert done.stdout.endswith(b"\n1.1 200"), done.stderr


# Whom HTTP/2 is offered.


def test_it_is_offered_only_where_the_route_says_so(lab: Lab) -> None:
    tunnel = lab.egress.connect("other.test:443")[0]
    sock: Any = lab.egress.secure(tunnel.sock, "other.test", "h2", "http/1.1").sock
    assert sock.selected_alpn_protocol() == "http/1.1"
    sock.close()


def test_a_client_of_http_1_is_carried_over_http_2(lab: Lab) -> None:
    with lab.egress.tunnel(HOST) as stream:
        answer = stream.get(HOST, "/open/1", extra="X-A: b\r\nTE: trailers\r\n")
        fields = dict(json.loads(answer.body)["fields"])
        assert (fields[":path"], fields["x-a"]) == ("/open/1", "b")
        assert lab.seen[0]["authorization"] == f"Bearer {TOKEN}"
        stream.send(
            b"POST /p HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        assert json.loads(stream.response().body)["body"] == "abc"


def test_a_server_of_http_1_is_spoken_to_in_its_own_way(between: Callable[..., Lab]) -> None:
    handler, heads = serve(lambda head, body: ok(body or b"plain", b"X-A: b\r\nConnection: keep-alive\r\n"))
    lab = between(handler, alpn=False, auth=True)
    with lab.http2(HOST) as client:
        answer = client.get(HOST, "/x", extra=[("x-b", "c")])
        assert (answer.status, answer.body, answer["x-a"]) == (200, b"plain", "b")
        assert answer.get("connection") is None
        assert client.get(HOST, "/y", method="POST", body=b"chunks").body == b"chunks"
    assert heads[0].startswith(
        b"GET /x HTTP/1.1\r\nHost: site.test\r\nAuthorization: Bearer " + TOKEN.encode()
    )
    assert b"\r\nTransfer-Encoding: chunked\r\n" in heads[1]
    assert lab.upstream.connections == 1


def test_grpc_is_refused_where_its_status_would_be_lost(between: Callable[..., Lab]) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    lab = between(handler, alpn=False)
    with lab.http2(HOST) as client:
        for _ in range(2):  # behind the second nothing of the connection's own comes that would move anything
            answer = client.get(
                HOST, "/s/m", method="POST", extra=[("content-type", "application/grpc")], body=b"x"
            )
            assert (answer.status, answer["grpc-status"]) == (200, "14")
            assert "HTTP/1.1 only" in answer["grpc-message"]
    assert heads == []
    assert lab.decided[-1] == ("error", "upstream_protocol")


def test_a_websocket_is_never_given_a_connection_of_http_2(lab: Lab) -> None:
    with lab.egress.tunnel(HOST) as stream:
        stream.get(HOST, "/open")
        handshake = (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        )
        stream.send(f"GET /open HTTP/1.1\r\nHost: {HOST}\r\n{handshake}\r\n".encode())
        assert stream.response().status == 502, "this server answers HTTP/1.1 in HTTP/2"
    assert lab.upstream.connections == 2


# What is refused.


def test_a_denial_is_the_same_structured_403(lab: Lab) -> None:
    with lab.http2(HOST) as client:
        answer = client.get(HOST, "/closed")
        assert answer.status == 403
        assert answer["x-bot-bottle-decision"] == "deny"
        assert answer["x-bot-bottle-reason"] == "path_not_allowed"
        body = json.loads(answer.body)
        assert body["error"] == "bot_bottle_denied"
        assert body["rule"].endswith("path_allowlist")
        assert client.get(HOST, "/open").status == 200, "the connection goes on"
    assert lab.decided == [("deny", "path_not_allowed"), ("allow", None)]


def test_a_denied_upload_is_answered_and_then_told_to_stop(lab: Lab) -> None:
    with lab.http2(HOST) as client:
        stream = client.request(HOST, "/closed", method="POST", end=False)
        answer = client.wait(stream)
        assert (answer.status, answer.ended, answer.reset) == (403, True, None)
        client.send(stream, bytes(300_000))  # more than a window: what comes is dropped
        (connection,) = lab.egress.call(lambda: tuple(lab.egress.proxy.clients))
        lab.egress.call(lambda: connection.sweep(lab.egress.loop.time() + 3))
        assert client.wait(stream, lambda answer: answer.reset is not None).reset == ErrorCodes.NO_ERROR
        assert client.get(HOST, "/open").status == 200


def test_a_stream_for_another_host_is_misdirected(lab: Lab) -> None:
    """B4 and B5: neither a coalesced connection nor a fronted one."""
    with lab.http2(HOST) as client:
        for name in ("other.test", "evil.test", "SITE.test.evil.test"):
            answer = client.get(name, "/open")
            assert (answer.status, answer.reason) == (421, "names_disagree"), name
        assert client.get("SITE.TEST.:443", "/open").status == 200, "another spelling is the same name"
    assert lab.decided[:3] == [("deny", "names_disagree")] * 3
    assert [request[":authority"] for request in lab.seen] == [HOST]


_BASE = {":method": "GET", ":scheme": "https", ":authority": HOST, ":path": "/open"}
BAD: dict[str, tuple[list[tuple[str, str]], int, str]] = {
    "host-differs": ([*_BASE.items(), ("host", "evil.test")], 403, "names_disagree"),
    "host-twice": ([*_BASE.items(), ("host", HOST), ("host", HOST)], 400, "duplicate_host"),
    "host-port-differs": ([*_BASE.items(), ("host", f"{HOST}:444")], 403, "names_disagree"),
    "userinfo": ([*{**_BASE, ":authority": f"{HOST}@evil.test"}.items()], 403, "bad_host"),
    "empty-authority": ([*{**_BASE, ":authority": ""}.items()], 403, "bad_host"),
    "no-authority": ([item for item in _BASE.items() if item[0] != ":authority"], 400, "host_missing"),
    "scheme": ([*{**_BASE, ":scheme": "http"}.items()], 403, "names_disagree"),
    "no-scheme": ([item for item in _BASE.items() if item[0] != ":scheme"], 403, "names_disagree"),
    "absolute-path": ([*{**_BASE, ":path": "https://evil.test/"}.items()], 400, "bad_request"),
    "path-with-space": ([*{**_BASE, ":path": "/open HTTP/1.1\r\nX: y"}.items()], 400, "bad_request"),
    "empty-path": ([*{**_BASE, ":path": ""}.items()], 400, "bad_request"),
    "fragment": ([*{**_BASE, ":path": "/open#a"}.items()], 400, "bad_request"),
    "star": ([*{**_BASE, ":path": "*"}.items()], 400, "bad_request"),
    "method": ([*{**_BASE, ":method": "GE T"}.items()], 400, "bad_request"),
    "connect": ([*{**_BASE, ":method": "CONNECT"}.items()], 403, "connect_denied"),
    "extended-connect": (
        [*{**_BASE, ":method": "CONNECT", ":protocol": "websocket"}.items()], 403, "connect_denied",
    ),
    "pseudo-late": ([*_BASE.items(), ("x", "y"), (":path", "/p")], 400, "bad_request"),
    "pseudo-twice": ([*_BASE.items(), (":path", "/p")], 400, "bad_request"),
    "pseudo-unknown": ([*_BASE.items(), (":x", "y")], 400, "bad_request"),
    "upper-case": ([*_BASE.items(), ("X-A", "b")], 400, "bad_request"),
    "name-space": ([*_BASE.items(), ("x a", "b")], 400, "bad_request"),
    "name-empty": ([*_BASE.items(), ("", "b")], 400, "bad_request"),
    "name-colon": ([*_BASE.items(), ("x:a", "b")], 400, "bad_request"),
    "value-crlf": ([*_BASE.items(), ("x", "a\r\nauthorization: b")], 400, "bad_request"),
    "value-nul": ([*_BASE.items(), ("x", "a\0b")], 400, "bad_request"),
    "value-space": ([*_BASE.items(), ("x", " a")], 400, "bad_request"),
    "connection": ([*_BASE.items(), ("connection", "close")], 400, "bad_request"),
    "transfer-encoding": ([*_BASE.items(), ("transfer-encoding", "chunked")], 400, "bad_request"),
    "upgrade": ([*_BASE.items(), ("upgrade", "h2c")], 400, "bad_request"),
    "te": ([*_BASE.items(), ("te", "gzip")], 400, "bad_request"),
    "many-lines": ([*_BASE.items(), *(("x", str(n)) for n in range(250))], 431, "too_large"),
    "trace": ([*{**_BASE, ":method": "TRACE"}.items()], 403, "method_denied"),
    "dot-dot": ([*{**_BASE, ":path": "/open/..%2f../closed"}.items()], 403, "path_not_allowed"),
}  # fmt: skip


def test_what_is_no_request_is_refused_and_the_next_one_is_not(lab: Lab) -> None:
    for name, (fields, status, reason) in BAD.items():
        with lab.http2(HOST, validate=False) as client:
            answer = client.wait(client.fields([(key.encode(), value.encode()) for key, value in fields]))  # type: ignore[misc]
            assert (answer.status, answer.reason) == (status, reason), name
            assert client.get(HOST, "/open").status == 200, name
    assert len(lab.seen) == len(BAD)
    assert all(request[":path"] == "/open" for request in lab.seen)
    assert [reason for decision, reason in lab.decided if decision == "deny"] == [
        reason for _fields, _status, reason in BAD.values()
    ]


@pytest.mark.parametrize("ends", ["with-its-head", "with-trailers"])
def test_a_request_that_ends_short_lends_no_body_to_the_next_one(
    between: Callable[..., Lab], ends: str
) -> None:
    """B4: a server that answers at the head reads what is still owed to it from its connection."""
    heads: list[bytes] = []

    def answers_first(sock: socket.socket) -> None:
        stream = Stream(sock)
        with contextlib.suppress(ConnectionError):
            while True:
                heads.append(stream.until(b"\r\n\r\n"))
                sock.sendall(ok(heads[-1].partition(b"\r\n")[0]))
                size = heads[-1].lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                stream.exactly(int(size or 0))

    lab = between(answers_first, alpn=False, auth=True, path_allowlist=("/open",))
    hidden = b"DELETE /closed HTTP/1.1\r\nHost: site.test\r\n\r\n"
    second = b"POST /open/2 HTTP/1.1"
    owed = len(b"\r\n".join((
        second, b"Host: site.test", b"Authorization: Bearer " + TOKEN.encode(),
        b"Accept-Encoding: identity", b"Content-Length: %d" % len(hidden), b"", b"",
    )))  # fmt: skip
    with lab.http2(HOST, validate=False) as client:
        fields = [
            (b":method", b"POST"), (b":scheme", b"https"), (b":authority", HOST.encode()),
            (b":path", b"/open/1"), (b"content-length", b"%d" % (owed + 2 * (ends == "with-trailers"))),
        ]  # fmt: skip
        if ends == "with-its-head":
            stream = client.fields(fields)  # type: ignore[arg-type]
        else:
            stream = client.fields(fields, body=b"xy", end=False)  # type: ignore[arg-type]
            client.h2.send_headers(stream, [(b"x-trailer", b"1")], end_stream=True)
            client.flush()
        answer = client.wait(stream)
        assert (answer.status, answer.reason) == (400, "smuggling")
        length = ("content-length", str(len(hidden)))
        answer = client.get(HOST, "/open/2", method="POST", extra=[length], body=hidden)
        assert answer.body == second
        assert client.get(HOST, "/open/3").body == b"GET /open/3 HTTP/1.1"
    assert [head.partition(b" HTTP/")[0] for head in heads] == [b"POST /open/2", b"GET /open/3"]
    assert ("deny", "smuggling") in lab.decided


def test_content_is_searched_as_it_is_over_http_1(lab: Lab) -> None:
    """A real secret in a path, a header, a body, and in one message of a call that goes on."""
    grpc = [("content-type", "application/grpc")]
    with lab.http2(HOST) as client:
        for _ in range(2):
            assert client.get(HOST, "/open", extra=[("x-note", TOKEN)]).reason == "own_secret"
        assert client.get(HOST, f"/open?q={TOKEN}").reason == "own_secret"
        body = f"it is {TOKEN}".encode()
        assert client.get(HOST, "/open", method="POST", body=body).reason == "own_secret"
        assert lab.seen == []
        call = client.request(HOST, "/open", method="POST", extra=grpc, end=False)
        client.send(call, _message(b"harmless"))
        client.send(call, _message(TOKEN[:8].encode()))
        client.send(call, _message(body))
        answer = client.wait(call)
        assert (answer["grpc-status"], answer.reason) == ("7", "own_secret")
    assert TOKEN not in lab.egress.audit_file.read_text()
    assert [reason for decision, reason in lab.decided if decision == "deny"] == ["own_secret"] * 5


def _message(content: bytes) -> bytes:
    return b"\0" + len(content).to_bytes(4, "big") + content


def test_other_routes_end_the_streams_they_do_not_permit(between: Callable[..., Lab]) -> None:
    def answer(server: http2.Server, request: http2.Request) -> None:
        if request[":path"] == "/quick":
            server.answer(request.stream, body=b"x")

    handler, _seen = http2.serve(answer)
    lab = between(handler)
    proxy = lab.egress.proxy
    with lab.http2(HOST) as busy, lab.http2(HOST) as idle:
        assert idle.get(HOST, "/quick").status == 200
        stay, go = busy.request(HOST, "/stay"), busy.request(HOST, "/go")
        while len(lab.egress.records()) < 3:
            pass
        narrowed = RouteTable([route(HOST, http2=True, path_allowlist=("/stay", "/quick"))], {})
        assert lab.egress.call(lambda: proxy.replace_table(narrowed)) >= 2
        assert busy.wait(go).reset == ErrorCodes.CANCEL
        assert busy.get(HOST, "/quick").status == 200, "the connection and its other stream go on"
        assert busy.answers[stay].reset is None
        assert busy.get(HOST, "/go").reason == "path_not_allowed"
        idle.until_closed()
        assert idle.going is not None


# Streams.


def test_an_answer_streams_and_waits_for_its_client(between: Callable[..., Lab]) -> None:
    """The server can send no more than the windows between it and a client that takes nothing."""
    sent: list[int] = []
    stalled = threading.Event()

    def answer(server: http2.Server, request: http2.Request) -> None:
        server.h2.send_headers(request.stream, [(":status", "200")])
        total = 0
        while total < 2 * 1024 * 1024:
            room = min(server.h2.local_flow_control_window(request.stream), 16384)
            if room <= 0:
                sent.append(total)
                stalled.set()
                server.receive()
                continue
            server.h2.send_data(request.stream, bytes(room))
            total += room
            server.flush()
        server.h2.end_stream(request.stream)
        server.flush()

    handler, _seen = http2.serve(answer)
    lab = between(handler)
    with lab.http2(HOST, credit=False) as client:
        stream = client.request(HOST, "/")
        client.wait(stream, lambda answer: len(answer.body) >= 65_535)
        assert stalled.wait(20)
        while lab.egress.call(lambda: not any(one.throttled for one in _streams(lab))):
            pass
        assert sent[-1] <= 65_535 + 64 * 1024 + 16 * 1024 + 256 * 1024, "the rest waits at the server"
        client._credit = True
        client.h2.acknowledge_received_data(65_535, stream)
        client.flush()
        assert len(client.wait(stream).body) == 2 * 1024 * 1024


def _streams(lab: Lab) -> list[Any]:
    return [
        stream for client in lab.egress.proxy.clients for stream in getattr(client, "_streams", {}).values()
    ]


def test_a_stalled_upload_holds_up_no_other_stream(between: Callable[..., Lab]) -> None:
    go_on = threading.Event()

    class Unwilling(http2.Server):
        """Makes no room for the first stream's body until told so."""

        owed = slow = 0

        def take(self, event: Any) -> http2.Request | None:
            request = self.requests.get(getattr(event, "stream_id", 0))
            slow = request is not None and request[":path"] == "/slow"
            if request and slow and isinstance(event, DataReceived) and not go_on.is_set():
                request.body += event.data
                self.slow = request.stream
                self.owed += event.flow_controlled_length
                return None
            return super().take(event)

    def handler(sock: socket.socket) -> None:
        server = Unwilling(sock)
        while (events := server.receive()) is not None:
            for event in events:
                if (request := server.take(event)) is not None:
                    server.answer(request.stream, body=b"%d" % len(request.body))
                    if request[":path"] == "/quick" and go_on.is_set():
                        server.h2.acknowledge_received_data(server.owed, server.slow)
            server.flush()

    lab = between(handler)
    with lab.http2(HOST) as client:
        slow = client.request(HOST, "/slow", method="POST", end=False)
        client.wait(slow, lambda _answer: True)
        room = client.h2.local_flow_control_window(slow)
        total = 0
        while (room := min(client.h2.local_flow_control_window(slow), 16384)) > 0 and total < 1024 * 1024:
            client.h2.send_data(slow, bytes(room))
            client.flush()
            total += room
            # An answer to another stream says that what was sent before it has been taken or not.
            assert client.get(HOST, "/quick").status == 200
        assert total <= 512 * 1024, "the client is held to the windows on the way"
        go_on.set()
        assert client.get(HOST, "/quick").status == 200
        client.send(slow, bytes(100_000), end=True)
        assert client.wait(slow).body == b"%d" % (total + 100_000)


def test_a_reset_passes_on_either_way(between: Callable[..., Lab]) -> None:
    heard: list[int] = []
    told = threading.Event()

    def on_event(server: http2.Server, event: Any) -> None:
        if isinstance(event, StreamReset):
            heard.append(int(event.error_code or 0))
            told.set()

    def answer(server: http2.Server, request: http2.Request) -> None:
        if request[":path"] == "/breaks":
            server.h2.send_headers(request.stream, [(":status", "200")])
            server.h2.send_data(request.stream, b"half")
            server.flush()
            server.h2.reset_stream(request.stream, ErrorCodes.ENHANCE_YOUR_CALM)
        elif request[":path"] == "/refuses":
            server.h2.reset_stream(request.stream, ErrorCodes.INTERNAL_ERROR)
        elif request[":path"] == "/other":
            server.answer(request.stream, body=b"other")

    handler, _seen = http2.serve(answer, on_event=on_event)
    lab = between(handler)
    with lab.http2(HOST) as client:
        broken = client.get(HOST, "/breaks")
        assert (broken.ended, broken.reset) == (False, ErrorCodes.ENHANCE_YOUR_CALM)
        refused = client.get(HOST, "/refuses")
        assert (refused.status, refused.reason) == (502, "upstream_closed")
        waiting = client.request(HOST, "/never")
        while len(lab.egress.records()) < 4:
            pass
        client.h2.reset_stream(waiting, ErrorCodes.CANCEL)
        client.flush()
        assert told.wait(20)
        assert heard == [ErrorCodes.CANCEL]
        assert client.get(HOST, "/other").body == b"other"
    assert lab.upstream.connections == 1
    assert lab.egress.call(lambda: lab.egress.proxy.clients.streams) == 0


def test_what_a_server_that_goes_away_has_not_looked_at_is_asked_elsewhere(
    between: Callable[..., Lab],
) -> None:
    connections: list[http2.Server] = []

    def answer(server: http2.Server, request: http2.Request) -> None:
        if server not in connections:
            connections.append(server)
        if request[":path"] == "/last":
            # Streams above this one were never looked at; this one is answered all the same.
            server.raw(_goaway(request.stream))
            server.answer(request.stream, body=b"the last")
        elif connections.index(server) == 0 and request[":path"] == "/late":
            server.raw(_goaway(request.stream - 2))
        else:
            server.answer(request.stream, body=b"connection %d" % connections.index(server))

    handler, _seen = http2.serve(answer)
    lab = between(handler)
    with lab.http2(HOST) as client:
        assert client.get(HOST, "/").body == b"connection 0"
        assert client.get(HOST, "/late").body == b"connection 1"
        assert client.get(HOST, "/last").body == b"the last"
        assert client.get(HOST, "/").body == b"connection 2"


def _goaway(last: int) -> bytes:
    return b"\0\0\x08\x07\0\0\0\0\0" + last.to_bytes(4, "big") + bytes(4)


def test_trailers_and_interim_answers_pass(between: Callable[..., Lab]) -> None:
    def answer(server: http2.Server, request: http2.Request) -> None:
        if request[":path"] == "/only":
            server.h2.send_headers(
                request.stream, [(":status", "200"), ("grpc-status", "5")], end_stream=True
            )
            return
        server.h2.send_headers(request.stream, [(":status", "103"), ("link", "</a>")])
        server.answer(
            request.stream, body=b"x", trailers=[("grpc-status", "0"), ("x-bot-bottle-decision", "allow")]
        )

    handler, _seen = http2.serve(answer)
    lab = between(handler)
    with lab.http2(HOST) as client:
        whole = client.get(HOST, "/")
        assert [dict(fields)[b":status"] for fields in whole.interim] == [b"103"]
        assert whole.trailers == [(b"grpc-status", b"0")], "nobody else's word on our decisions"
        only = client.get(HOST, "/only")
        assert only.ended_with_head
        assert only["grpc-status"] == "5"
    with lab.egress.tunnel(HOST) as stream:
        stream.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
        assert stream.response().status == 103
        assert stream.response().body == b"x"


@pytest.mark.parametrize(
    "fields",
    [
        [(":status", "101")],
        [(":status", "20")],
        [(":status", "200"), (":status", "200")],
        [(":status", "200"), ("X-Upper", "a")],
        [(":status", "200"), ("x", "a\nb")],
        [(":status", "200"), ("connection", "close")],
        [(":status", "200"), ("transfer-encoding", "chunked")],
        [(":status", "200"), (":path", "/")],
        [("x", "no status")],
    ],
)
def test_an_answer_that_is_none_breaks_its_own_stream_only(
    between: Callable[..., Lab], fields: list[tuple[str, str]]
) -> None:
    def answer(server: http2.Server, request: http2.Request) -> None:
        if request[":path"] == "/bad":
            server.h2.send_headers(request.stream, fields, end_stream=fields[0][1] != "101")
        else:
            server.answer(request.stream, body=b"good")

    handler, _seen = http2.serve(answer, validate=False)
    lab = between(handler)
    with lab.http2(HOST) as client:
        bad = client.get(HOST, "/bad")
        assert (bad.status, bad.reason) == (502, "upstream_protocol")
        assert client.get(HOST, "/good").body == b"good"


def test_a_push_ends_the_servers_connection(between: Callable[..., Lab]) -> None:
    def answer(server: http2.Server, request: http2.Request) -> None:
        server.h2.remote_settings.enable_push = 1
        server.h2.remote_settings.acknowledge()
        pushed = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/pushed")]
        server.h2.push_stream(request.stream, 2, pushed)
        server.answer(request.stream, body=b"x")

    handler, _seen = http2.serve(answer)
    lab = between(handler)
    with lab.http2(HOST) as client:
        assert client.get(HOST, "/").status == 502


def test_the_real_sidecar_speaks_it(tmp_path: Path) -> None:
    handler, seen = http2.serve(echo)
    with Upstream(handler, http2_for=HOST) as upstream:
        settings = config(tmp_path, [route(HOST, http2=True, auth=True)], pins={HOST: upstream.pin})
        with Sidecar(tmp_path, settings) as sidecar, sidecar.http2(HOST) as client:
            assert client.get(HOST, "/").status == 200
        assert seen[0]["authorization"] == f"Bearer {TOKEN}"
