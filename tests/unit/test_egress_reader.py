"""Requests cut from bytes: the strict grammar, any segmentation, and what is written anew read again."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot_bottle.egress.bodies import LAST_CHUNK, Body, ChunkedBody, EndlessBody, LengthBody, chunk
from bot_bottle.egress.grammar import (
    METHODS,
    BadMessageError,
    HeadBuffer,
    read_field_line,
    read_request_line,
    read_status_line,
    split_lines,
)
from bot_bottle.egress.headers import head_tail, read_request_headers
from bot_bottle.egress.reader import RequestReader
from bot_bottle.egress.target import Arrival, read_request

CORPORA = Path(os.environ.get("BOT_BOTTLE_CORPORA", Path(__file__).parents[3] / "shared" / "corpora"))
PLAIN = Arrival(via="transparent", scheme="http", port=80)


class Message(NamedTuple):
    """One request as it was read."""

    method: bytes
    target: bytes
    head: bytes
    chunked: bool
    body: bytes = b""
    whole: bool = False

    def written(self) -> bytes:
        body = (chunk(self.body) if self.body else b"") + LAST_CHUNK if self.chunked else self.body
        return b"%b %b %b%b" % (self.method, self.target, self.head, body)


class Collected:
    """A sink that writes down what it hears; it has room for ``room`` pieces at a time."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.messages: list[Message] = []
        self.room = room

    def may_go_on(self, *, in_body: bool) -> bool | None:
        self.room -= 1
        return self.room >= 0

    def on_request(self, line: bytes, block: bytes, *, last: bool) -> Body | None:
        method, target, http_1_0 = read_request_line(line)
        facts = read_request_headers(block, http_1_0=http_1_0)
        tail = head_tail(authority=facts.host or b"", facts=facts)
        read_request(PLAIN, method=method.decode(), target=target.decode(), headers=facts, http_1_0=http_1_0)
        self.messages.append(Message(method, target, tail, facts.chunked, whole=not facts.has_body))
        if not facts.has_body:
            return None
        return ChunkedBody() if facts.chunked else LengthBody(facts.content_length or 0)

    def on_body(self, data: bytes) -> None:
        self.messages[-1] = self.messages[-1]._replace(body=self.messages[-1].body + data)

    def on_request_end(self) -> None:
        self.messages[-1] = self.messages[-1]._replace(whole=True)


UNKNOWN_TO_LLHTTP = frozenset(
    b"BASELINE-CONTROL CHECKIN LABEL MKREDIRECTREF MKWORKSPACE ORDERPATCH UNCHECKOUT UPDATE "
    b"UPDATEREDIRECTREF VERSION-CONTROL".split()
)


def read(*pieces: bytes) -> tuple[list[Message], str]:
    """Read a connection's bytes; gives its messages and why the rest was refused."""
    sink = Collected()
    reader = RequestReader(sink)
    try:
        for piece in pieces:
            reader.feed(piece)
    except BadMessageError as error:
        return sink.messages, error.deny.reason
    return sink.messages, ""


def whole(*pieces: bytes) -> list[Message]:
    return [message for message in read(*pieces)[0] if message.whole]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"get / HTTP/1.1",
        b"GETX / HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1.1x",
        b"GET / HTTP/11",
        b"GET /\x7f HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2",
    ],
)
def test_what_is_no_request_line(line: bytes) -> None:
    with pytest.raises(BadMessageError) as caught:
        read_request_line(line)
    assert caught.value.status == 400


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0"])
def test_another_version_is_named(version: bytes) -> None:
    with pytest.raises(BadMessageError) as caught:
        read_request_line(b"GET / " + version)
    assert (caught.value.status, caught.value.deny.reason) == (505, "http_version")


def test_request_lines() -> None:
    assert read_request_line(b"GET /x?y=%20 HTTP/1.1") == (b"GET", b"/x?y=%20", False)
    assert read_request_line(b"OPTIONS * HTTP/1.0") == (b"OPTIONS", b"*", True)
    for method in METHODS:
        assert read_request_line(method + b" / HTTP/1.1").method == method


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no colon",
        b": no name",
        b"Name : v",
        b" Name: v",
        b"\tfolded",
        b"Na me: v",
        b"N\x00me: v",
        b"Name\xc3\x9f: v",
        b"Name: a\x00b",
        b"Name: a\x0bb",
        b"Name: a\x7fb",
        b"Name: a\rb",
        b"Name: a\nb",
        b"(name): v",
    ],
)
@pytest.mark.parametrize("padding", [b"", b"x" * 200])
def test_what_is_no_header_line(line: bytes, padding: bytes) -> None:
    with pytest.raises(BadMessageError):
        read_field_line(line + padding)


def test_header_lines_get_one_spelling() -> None:
    line = read_field_line(b"X-Value:\t caf\xc3\xa9 \t")
    assert line == (b"x-value", b"caf\xc3\xa9", b"X-Value: caf\xc3\xa9")
    assert read_field_line(b"!#$%&'*+-.^_`|~09azAZ:").value == b""


@pytest.mark.parametrize("block", [b"A: 1\nB: 2", b"A: 1\rB: 2", b"A: 1\r\n\nB: 2", b"\nA: 1", b"A: 1\r"])
def test_a_line_ends_in_both_or_neither(block: bytes) -> None:
    with pytest.raises(BadMessageError):
        split_lines(block)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 2",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 099 Early",
        b"HTTP/1.1 000 None",
        b"HTTP/1.1 200x",
        b"HTTP/2.0 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\nK",
        b"HTTP/1.1  200 OK",
        b"http/1.1 200 OK",
    ],
)
def test_what_is_no_status_line(line: bytes) -> None:
    with pytest.raises(BadMessageError):
        read_status_line(line)


def test_status_lines() -> None:
    assert read_status_line(b"HTTP/1.1 200 OK") == (200, b"HTTP/1.1 200 OK", False)
    assert read_status_line(b"HTTP/1.0 404") == (404, b"HTTP/1.1 404 ", True)
    assert read_status_line(b"HTTP/1.1 599 ") == (599, b"HTTP/1.1 599 ", False)


@pytest.mark.parametrize(
    "junk",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"SSH-2.0-x\r\n",
        b"GET / HTTP/1.1\nHost: a\n",
        b"GET / HTTP/1.1\rHost: a",
        b"GET / HTTP/1.1\r\nHost: a\nX",
        b"GET / HTTP/1.1\r\nX: \x00",
        b"\nGET",
        b"\rGET",
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 100])
def test_nonsense_is_refused_before_its_end(junk: bytes, step: int) -> None:
    pieces = [junk[index : index + step] for index in range(0, len(junk), step)]
    assert read(*pieces)[1] == "bad_request"


def test_a_head_in_pieces_is_looked_at_once() -> None:
    held = HeadBuffer(read_request_line)
    held.set(b"GET / HTTP/1.1\r")
    for piece in (b"\nX: ", b"y" * 100, b"\r", b"\n", b"\r", b"\n"):
        held.check()
        held.data += piece
    assert held.end() == len(b"GET / HTTP/1.1\r\nX: ") + 100


def test_a_head_has_bounds() -> None:
    lines = b"".join(b"X: %d\r\n" % number for number in range(201))
    assert read(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")[1] == "too_large"
    long = b"GET / HTTP/1.1\r\nX: " + b"y" * 70000
    assert read(long)[1] == "too_large"
    assert read(long + b"\r\n\r\n")[1] == "too_large"
    assert read(*(long[index : index + 1000] for index in range(0, len(long), 1000)))[1] == "too_large"


BASE = b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "body",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhelloo\r\n0\r\n\r\n",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"+5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5_0\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello\r\n0\r\n\r\n",
        b";a=b\r\nhello\r\n0\r\n\r\n",
        b"5;a=\rb\r\nhello\r\n0\r\n\r\n",
        b"5;a=\x00b\r\nhello\r\n0\r\n\r\n",
        b"10000000000000005\r\nhello\r\n0\r\n\r\n",
        b"5;" + b"x" * 5000 + b"\r\nhello\r\n0\r\n\r\n",
        b"0\r\nX Y: z\r\n\r\n",
        b"0\r\nX: y\n\r\n",
        b"0\r\n folded\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nhost: b.test\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"0\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1000 + b"\r\n",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 10000])
def test_chunks_that_can_be_read_in_two_ways(body: bytes, step: int) -> None:
    data = BASE + body
    messages, reason = read(*(data[index : index + step] for index in range(0, len(data), step)))
    assert reason
    assert not any(message.whole for message in messages)


def test_an_endless_body_takes_everything() -> None:
    body = EndlessBody()
    assert body.take(b"abc", 1) == (b"bc", 3)
    assert not body.done


_TOKEN = st.text("!#$%&'*+-.^_`|~09AZaz", min_size=1, max_size=12).map(str.encode)
_VALUE = st.binary(max_size=30).map(lambda raw: bytes(b for b in raw if b >= 0x20 and b != 0x7F).strip(b" "))
_PATH = st.text("/aZ0%.;=-_~@:,?&", max_size=30).map(lambda text: b"/" + text.encode())
_LINES = st.one_of(
    st.builds(lambda name, value: b"X-%b: %b" % (name, value), _TOKEN, _VALUE),
    st.sampled_from(
        [b"Accept:*/*", b"Cookie: a=b;\t c ", b"Connection: close, x-y", b"Expect: 100-continue"]
    ),
    st.sampled_from(
        [b"X-Forwarded-Host: b.test", b"TE: trailers", b"Upgrade: h2c", b"Authorization: Bearer x"]
    ),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Write one valid request, its header lines and chunks as they fall."""
    method = draw(st.sampled_from(sorted(METHODS - {b"CONNECT"})))
    lines = [b"%b %b HTTP/1.1" % (method, draw(_PATH)), b"Host: a.test", *draw(st.lists(_LINES, max_size=6))]
    body = draw(st.binary(max_size=60))
    if draw(st.booleans()):
        lines.append(b"Transfer-Encoding: " + draw(st.sampled_from([b"chunked", b"Chunked"])))
        wire = b""
        while body:
            size = draw(st.integers(1, len(body)))
            wire += draw(st.sampled_from([b"%x", b"%X", b"00%x", b"%x;a=b", b'%x ; q="r s"'])) % size
            wire += b"\r\n%b\r\n" % body[:size]
            body = body[size:]
        body = wire + draw(st.sampled_from([b"0\r\n\r\n", b"000;x\r\nX-Trailer: 1\r\n\r\n"]))
    elif body or draw(st.booleans()):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n" * draw(st.integers(0, 1)) + b"\r\n".join(lines) + b"\r\n\r\n" + body


@given(st.lists(requests(), min_size=1, max_size=4), st.data())
@settings(deadline=None)
def test_reading_writing_and_reading_again_is_the_identity(raw: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(raw)
    messages, reason = read(stream)
    assert reason == ""
    assert [message.whole for message in messages] == [True] * len(raw)
    written = b"".join(message.written() for message in messages)
    again, reason = read(written)
    assert reason == ""
    assert again == messages
    assert b"".join(message.written() for message in again) == written
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == (messages, "")


@given(st.lists(requests(), min_size=1, max_size=4), st.integers(1, 3))
@settings(deadline=None)
def test_want_of_room_changes_nothing_but_the_time(raw: list[bytes], room: int) -> None:
    sink = Collected(room)
    reader = RequestReader(sink)
    reader.feed(b"".join(raw))
    while reader.stopped:
        sink.room = room
        reader.resume()
    assert sink.messages == read(b"".join(raw))[0]
    assert reader.empty


@given(st.lists(requests(), min_size=1, max_size=2), st.data())
@example([b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"], None)
@settings(deadline=None)
def test_what_passes_passes_another_parser_with_the_same_meaning(
    raw: list[bytes], data: st.DataObject | None
) -> None:
    """Whatever we take of a spoiled request, llhttp takes too and reads the same."""
    httptools = pytest.importorskip("httptools", reason="httptools (llhttp) is not installed")
    stream = b"".join(raw)
    if data is not None:
        at = data.draw(st.integers(0, len(stream)))
        spoil = data.draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\x00", b"0", b"\xe9"])
        )
        stream = stream[:at] + spoil + stream[at + data.draw(st.integers(0, 2)) :]
    for message in whole(stream):
        heard: dict[str, Any] = {"url": b"", "body": b"", "headers": [], "ended": 0}

        class Protocol:
            def on_url(self, url: bytes, heard: dict[str, Any] = heard) -> None:
                heard["url"] += url

            def on_header(self, name: bytes, value: bytes, heard: dict[str, Any] = heard) -> None:
                heard["headers"].append(name + b": " + value)

            def on_body(self, body: bytes, heard: dict[str, Any] = heard) -> None:
                heard["body"] += body

            def on_message_complete(self, heard: dict[str, Any] = heard) -> None:
                heard["ended"] += 1

        if message.method in UNKNOWN_TO_LLHTTP:
            continue
        parser = httptools.HttpRequestParser(Protocol())
        parser.feed_data(message.written())
        assert parser.get_method() == message.method
        assert heard["url"] == message.target
        assert heard["body"] == message.body
        assert heard["ended"] == 1
        lines = message.head.split(b"\r\n")[1:-2]
        assert [line.rstrip(b" \t") for line in heard["headers"]] == [line.rstrip(b" \t") for line in lines]


def corpus() -> list[dict[str, Any]]:
    path = CORPORA / "http1" / "cases.json"
    return json.loads(path.read_text()) if path.is_file() else []


#: Requests another server's tests call invalid and that are safe here, each with why.
TOLERATED = {
    "InvalidSchemeHeaders",  # X-Forwarded-Proto and its like are dropped
    "LimitRequestHeaders",  # its limits; ours are tested on their own
    "LimitRequestLine",
}


@pytest.mark.skipif(not corpus(), reason=f"the http1 corpus is not at BOT_BOTTLE_CORPORA ({CORPORA})")
@pytest.mark.parametrize("step", [1, 5, 1 << 20])
def test_the_invalid_requests_of_another_servers_tests_are_refused(step: int) -> None:
    wrongly = []
    for case in corpus():
        if case["kind"] != "invalid" or case["needs_config"] or case["expect"] in TOLERATED:
            continue
        payload = base64.b64decode(case["payload"])
        if whole(*(payload[index : index + step] for index in range(0, len(payload), step))):
            wrongly.append((case["id"], case["expect"], payload[:120]))
    assert wrongly == []
