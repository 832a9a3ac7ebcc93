"""What answers say they used is counted and put on record, and the answers are as they were."""

from __future__ import annotations

import gzip
import json
import threading
from typing import TYPE_CHECKING, Any

import brotli
import pytest
import zstandard

from bot_bottle.egress import usage
from tests.integration.egress_lab import SECONDS, TOKEN, InProcess, Stream, Upstream, config, ok, route, serve
from tests.support import http2, ws

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration

CHAT = json.dumps(
    {
        "model": "chat-y",
        "choices": [{"text": "hidden words"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 5},
    }
).encode()
START = {
    "type": "message_start",
    "message": {"model": "m-1", "usage": {"input_tokens": 25, "output_tokens": 1}},
}
DELTA = {"type": "message_delta", "usage": {"output_tokens": 42}}
TALK = {"type": "content_block_delta", "delta": {"text": 'data: {"usage":{"output_tokens":9999}}'}}
DONE = {
    "type": "response.completed",
    "response": {"model": "r-1", "usage": {"input_tokens": 81, "output_tokens": 20}},
}
CODINGS = {"gzip": gzip.compress, "br": brotli.compress, "zstd": zstandard.compress}


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    data = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + data + (b"0\r\n\r\n" if end else b"")


STREAM = sse(START, TALK, DELTA)


def answer(head: bytes, _body: bytes) -> bytes:
    """Answer as the path says."""
    path = head.split(b" ")[1].decode()
    if path.startswith("/coded/"):
        coding = path.removeprefix("/coded/")
        extra = f"Content-Type: application/json\r\nContent-Encoding: {coding}\r\n".encode()
        return ok(CODINGS[coding](CHAT) if coding in CODINGS else CHAT, extra)
    if path == "/echo":  # a server that says the credential where a model's name belongs
        said = {
            "model": head.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode(),
            "usage": {"prompt_tokens": 3},
        }
        return ok(json.dumps(said).encode(), b"Content-Type: application/json\r\n")
    if path == "/events":
        return chunked(*(STREAM[at : at + 7] for at in range(0, len(STREAM), 7)))
    if path == "/error":
        return b"HTTP/1.1 429 Slow Down\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
            len(CHAT),
            CHAT,
        )
    return ok(
        CHAT, b"Content-Type: text/plain\r\n" if path == "/text" else b"Content-Type: application/json\r\n"
    )


ROUTES = [
    route("chat.test", usage="chat-completions"),
    route("secret.test", usage="chat-completions", auth=True),
    route("messages.test", usage="messages", auth=True),
    route("plain.test"),
]


class World(InProcess):
    """An egress whose counters can be seen."""

    def used(self, host: str) -> list[tuple[str, int, int]]:
        return [
            (one["model"], one["input_tokens"], one["output_tokens"])
            for one in self.records("usage")
            if one["host"] == host
        ]

    def counted(self, host: str) -> dict[str, Any]:
        return dict(self.call(self.proxy.counters.of(host).to_wire))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    handler, _heads = serve(answer)
    tmp_path = tmp_path_factory.mktemp("usage")
    with Upstream(handler) as upstream:
        settings = config(tmp_path, ROUTES, pins={one.host: upstream.pin for one in ROUTES})
        with World(tmp_path, settings) as egress:
            yield egress


def test_answers_in_one_piece_are_counted_in_any_coding_and_go_on_untouched(world: World) -> None:
    with world.tunnel("chat.test") as stream:
        assert stream.get("chat.test", "/json").body == CHAT
        for coding, pack in CODINGS.items():
            got = stream.get("chat.test", f"/coded/{coding}", extra=f"Accept-Encoding: {coding}\r\n")
            assert (got.body, got.headers["content-encoding"]) == (pack(CHAT), coding)
        for path in (
            "/text",
            "/error",
            "/coded/rot47",
        ):  # nothing that could be read, or no answer of a model
            assert stream.get("chat.test", path).body == CHAT
        assert stream.get("chat.test", "/json", "HEAD").status == 200
        assert stream.get("chat.test", "/json").body == CHAT
    assert world.used("chat.test") == [("chat-y", 11, 5)] * 5
    counted = world.counted("chat.test")["usage"]
    assert (counted["answers"], counted["input_tokens"], counted["output_tokens"]) == (5, 55, 25)
    assert counted["models"][0]["model"] == "chat-y"
    assert b"hidden words" not in world.audit_file.read_bytes()


def test_a_stream_of_events_behind_a_credential_is_counted(world: World) -> None:
    with world.tunnel("messages.test") as stream:
        assert stream.get("messages.test", "/events").body == STREAM
    assert world.used("messages.test") == [("m-1", 25, 42)]


def test_a_credential_is_no_models_name_and_a_route_that_says_nothing_is_not_read(world: World) -> None:
    with world.tunnel("secret.test") as stream:
        assert TOKEN.encode() not in stream.get("secret.test", "/echo").body
    assert world.used("secret.test") == [("", 3, 0)]
    with world.tunnel("plain.test") as stream:
        assert stream.get("plain.test", "/json").body == CHAT
    assert world.used("plain.test") == []
    assert "usage" not in world.counted("plain.test")


def test_a_stream_that_its_client_leaves_is_counted_as_far_as_it_went(tmp_path: Path) -> None:
    left = threading.Event()

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        stream.until(b"\r\n\r\n")
        sock.sendall(chunked(sse(START, TALK), end=False))
        assert stream.rest() == b""  # until egress has let go of it
        left.set()

    with Upstream(handler) as upstream:
        settings = config(tmp_path, [route("m.test", usage="messages")], pins={"m.test": upstream.pin})
        with World(tmp_path, settings) as egress:
            with egress.tunnel("m.test") as stream:
                stream.send(b"GET / HTTP/1.1\r\nHost: m.test\r\n\r\n")
                stream.until(b"9999")
            assert left.wait(SECONDS)
            assert egress.used("m.test") == [("m-1", 25, 1)]


def test_a_websocket_is_counted_answer_by_answer(tmp_path: Path) -> None:
    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        stream.until(b"\r\n\r\n")
        sock.sendall(ws.UPGRADED)
        for _first, _data in ws.frames(stream):
            for event in (TALK, DONE):
                data = json.dumps(event).encode()
                sock.sendall(
                    ws.said(data[:20], final=False, key=b"") + ws.said(data[20:], ws.CONTINUATION, key=b"")
                )

    for auth in (None, True):
        place = tmp_path / str(auth)
        with Upstream(handler) as upstream:
            settings = config(
                place, [route("r.test", usage="responses", auth=auth)], pins={"r.test": upstream.pin}
            )
            with World(place, settings) as egress, egress.tunnel("r.test") as stream:
                stream.send(f"GET / HTTP/1.1\r\nHost: r.test\r\n{ws.ASK}\r\n".encode())
                stream.until(b"\r\n\r\n")
                for number in range(1, 3):
                    stream.send(ws.said(b"go"))
                    assert [json.loads(ws.message(stream)) for _ in range(2)] == [TALK, DONE]
                    assert egress.used("r.test") == [("r-1", 81, 20)] * number


def test_http2_streams_are_counted_each(tmp_path: Path) -> None:
    def reply(server: http2.Server, request: http2.Request) -> None:
        server.answer(request.stream, body=STREAM, extra=[("content-type", "text/event-stream")])

    handler, _seen = http2.serve(reply)
    with Upstream(handler, http2_for="h2.test") as upstream:
        routes = [route("h2.test", http2=True, usage="messages", auth=True)]
        with (
            World(tmp_path, config(tmp_path, routes, pins={"h2.test": upstream.pin})) as egress,
            egress.http2("h2.test") as client,
        ):
            streams = [client.request("h2.test", "/") for _ in range(3)]
            assert [client.wait(one).body for one in streams] == [STREAM] * 3
            assert egress.used("h2.test") == [("m-1", 25, 42)] * 3
            assert egress.counted("h2.test")["usage"]["output_tokens"] == 126


def test_a_reader_that_breaks_harms_no_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.used("chat.test"), world.used("messages.test")

    def fail(*_any: object) -> None:
        raise MemoryError

    for place in ("Pluck.feed", "UsageSum.take"):
        name, _, method = place.partition(".")
        with monkeypatch.context() as patch:
            patch.setattr(getattr(usage, name), method, fail)
            with world.tunnel("chat.test") as stream, world.tunnel("messages.test") as other:
                assert stream.get("chat.test", "/json").body == CHAT
                assert other.get("messages.test", "/events").body == STREAM
    assert (world.used("chat.test"), world.used("messages.test")) == before
