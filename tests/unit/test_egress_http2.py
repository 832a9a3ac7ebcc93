"""HTTP/2 without I/O: what a peer may say, and that both protocols read one message alike."""

from __future__ import annotations

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import example, given
from hypothesis import strategies as st

from bot_bottle.decision import Deny
from bot_bottle.egress.grammar import METHODS, BadMessageError
from bot_bottle.egress.grpc import MessageEnds, is_grpc
from bot_bottle.egress.grpc_content import GrpcGuard
from bot_bottle.egress.headers import head_tail, read_request_headers
from bot_bottle.egress.http2.frames import MAX_FRAME_BYTES, FrameError, GoAway, Intake
from bot_bottle.egress.http2.messages import (
    read_request_fields,
    read_response_fields,
    read_trailer_fields,
    write_request_fields,
    write_response_fields,
)
from bot_bottle.egress.http2.own import grpc_fields

DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION, UNKNOWN = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
    99,
)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def fresh() -> Intake:
    intake = Intake(now=0.0, from_client=True)
    assert intake.feed(PREFACE, 0.0) == PREFACE
    return intake


# Frames.

FLOODS = {
    "settings": frame(SETTINGS, stream=0),
    "settings-ack": frame(SETTINGS, flags=1, stream=0),
    "ping": frame(PING, bytes(8), stream=0),
    "ping-ack": frame(PING, bytes(8), flags=1, stream=0),
    "priority": frame(PRIORITY, bytes(5)),
    "window": frame(WINDOW, b"\0\0\0\1", stream=0),
    "unknown": frame(UNKNOWN, b"x"),
    "goaway": frame(GOAWAY, bytes(8), stream=0),
    "empty-data": frame(DATA),
    "padding-only": frame(DATA, b"\xff" + bytes(255), flags=8),
    "reset": frame(RST, bytes(4)),
    "rapid-reset": frame(HEADERS, b"x", flags=5) + frame(RST, bytes(4)),
    "continuation": frame(HEADERS) + frame(CONTINUATION) * 200,
    "continuation-bytes": frame(HEADERS) + frame(CONTINUATION, b"x") * 3000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends(name: str) -> None:
    intake = fresh()
    with pytest.raises(FrameError) as error:
        intake.feed(FLOODS[name] * 5000, 0.0)
    assert (error.value.reason, error.value.code) == ("flood", 11)


def test_what_real_clients_say_is_no_flood() -> None:
    intake = fresh()
    for second in range(60):
        for _ in range(90):
            intake.feed(frame(PING, bytes(8), stream=0), float(second))
    for _ in range(20_000):  # a download: a window update or two for each of our DATA frames, and a ping
        intake.earn()
        intake.feed(frame(WINDOW, b"\0\0\0\1") * 2 + frame(PING, bytes(8), stream=0), 60.0)
    for _ in range(5_000):  # small calls, one in three given up
        intake.feed(
            (frame(HEADERS, b"x", flags=4) + frame(DATA, b"x", flags=1)) * 3 + frame(RST, bytes(4)), 60.0
        )


def test_a_frame_is_judged_by_its_header_alone() -> None:
    with pytest.raises(FrameError, match="16 KiB"):
        fresh().feed((MAX_FRAME_BYTES + 1).to_bytes(3, "big") + b"\0\0\0\0\0\1", 0.0)


def test_a_header_block_is_bounded_as_it_comes() -> None:
    intake = fresh()
    with pytest.raises(FrameError) as error:
        intake.feed(frame(HEADERS, bytes(16_000)) + frame(CONTINUATION, bytes(16_000)) * 4, 0.0)
    assert error.value.reason == "too_large"


def test_a_block_that_does_not_end_is_known_since_when() -> None:
    intake = fresh()
    whole = frame(HEADERS, b"abc", flags=4)
    intake.feed(whole, 1.0)
    assert intake.block_since == 0.0
    intake.feed(whole[:10], 2.0)
    assert intake.block_since == 2.0
    intake.feed(whole[10:], 3.0)
    assert intake.block_since == 0.0
    intake.feed(frame(HEADERS, b"abc"), 4.0)
    intake.feed(frame(CONTINUATION, b"abc"), 5.0)
    assert intake.block_since == 4.0
    intake.feed(frame(CONTINUATION, b"abc", flags=4), 6.0)
    assert intake.block_since == 0.0


_FRAMES = st.lists(
    st.builds(
        frame,
        st.sampled_from([DATA, HEADERS, SETTINGS, PING, WINDOW, GOAWAY, UNKNOWN]),
        st.binary(min_size=8, max_size=40),
        flags=st.integers(0, 255).map(lambda flags: flags | 4),
    ),
    max_size=12,
)


@given(_FRAMES, st.lists(st.integers(1, 30), max_size=20))
def test_pieces_do_not_matter_and_only_goaway_is_kept(frames: list[bytes], steps: list[int]) -> None:
    stream = PREFACE + b"".join(frames)
    intake, passed, position = Intake(now=0.0, from_client=True), b"", 0
    for step in [*steps, len(stream)]:
        passed += intake.feed(stream[position : position + step], 0.0)
        position += step
    assert passed == PREFACE + b"".join(one for one in frames if one[3] != GOAWAY)
    going = [one[9:] for one in frames if one[3] == GOAWAY]
    assert intake.going == (
        GoAway(int.from_bytes(going[-1][:4], "big") & 0x7FFFFFFF, int.from_bytes(going[-1][4:8], "big"))
        if going
        else None
    )


def test_what_is_passed_is_what_the_library_reads() -> None:
    client, server = H2Connection(), H2Connection(H2Configuration(client_side=False))
    client.initiate_connection()
    server.initiate_connection()
    client.send_headers(
        1, [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")]
    )
    client.send_data(1, b"hello", end_stream=True)
    data = client.data_to_send()
    intake = Intake(now=0.0, from_client=True)
    events = [
        event for at in range(len(data)) for event in server.receive_data(intake.feed(data[at : at + 1], 0.0))
    ]
    assert [type(event).__name__ for event in events] == [
        "RemoteSettingsChanged", "RequestReceived", "DataReceived", "StreamEnded",
    ]  # fmt: skip


# Messages: what HTTP/2 says and what HTTP/1.1 would have said are one thing.

_NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,12}", fullmatch=True).filter(
    lambda name: name not in {"host", "te", "cookie", "connection", "upgrade", "content-length", "expect",
                              "keep-alive", "transfer-encoding", "trailer", "via", "forwarded"}
    and not name.startswith(("proxy-", "x-"))
)  # fmt: skip
_VALUES = st.from_regex(r"([!-~]([ -~]{0,20}[!-~])?)?", fullmatch=True)
_FIELDS = st.lists(st.tuples(_NAMES.map(str.encode), _VALUES.map(str.encode)), max_size=8)
_TARGETS = st.from_regex(r"/[!\"$-~]{0,30}", fullmatch=True).filter(lambda text: "#" not in text)
_METHODS = st.sampled_from(sorted(METHODS - {b"CONNECT"}))


def pseudo(
    method: bytes = b"GET", path: bytes = b"/", authority: bytes = b"a.test"
) -> list[tuple[bytes, bytes]]:
    return [(b":method", method), (b":scheme", b"https"), (b":authority", authority), (b":path", path)]


@given(_METHODS, _TARGETS, _FIELDS, st.booleans())
@example(b"GET", "/", [(b"authorization", b"mine")], True)
def test_a_request_read_and_written_is_the_same_request(
    method: bytes, target: str, fields: list[tuple[bytes, bytes]], ended: bool
) -> None:
    parts = read_request_fields([*pseudo(method, target.encode()), *fields], scheme="https", ended=ended)
    facts = read_request_headers(parts.block)
    assert (parts.method, parts.target, facts.host) == (method, target.encode(), b"a.test")
    assert facts.has_body is not ended
    assert facts.chunked is not ended
    head = b" ".join((parts.method, parts.target, head_tail(authority=b"a.test", facts=facts)))
    written = [(bytes(name), bytes(value)) for name, value in write_request_fields(head)]
    assert written[:4] == pseudo(method, target.encode())
    assert written[4:] == [*((kept.name, kept.value) for kept in facts.kept), (b"te", b"trailers")]
    assert {kept.name for kept in facts.kept} == {name for name, _value in fields} - {b"authorization"}
    assert read_request_fields(written, scheme="https", ended=ended).block == head.partition(b"\r\n")[
        2
    ].removesuffix(b"\r\n\r\n"), "and once more"


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6), st.booleans())
def test_whatever_is_said_is_one_request_or_none(fields: list[tuple[bytes, bytes]], ended: bool) -> None:
    """Nothing in a name or a value makes a line of its own."""
    try:
        parts = read_request_fields([*pseudo(), *fields], scheme="https", ended=ended)
        facts = read_request_headers(parts.block)
    except BadMessageError as error:
        if not 400 <= error.status < 500:
            raise
        return
    assert facts.host == b"a.test"
    assert len(parts.block.split(b"\r\n")) <= 2 + len(fields)
    assert all(kept.name in {name for name, _value in fields} for kept in facts.kept)


@given(st.integers(200, 599), _FIELDS)
def test_a_response_read_and_written_is_the_same_response(
    status: int, fields: list[tuple[bytes, bytes]]
) -> None:
    line, headers = read_response_fields([(b":status", b"%d" % status), *fields])
    assert line.status == status
    written = [(bytes(name), bytes(value)) for name, value in write_response_fields(status, headers.kept)]
    assert written == [(b":status", b"%d" % status), *fields]


@given(st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6))
def test_whatever_a_server_says_is_one_response_or_none(fields: list[tuple[bytes, bytes]]) -> None:
    for read in (_response_lines, read_trailer_fields):
        try:
            lines = read(fields)
        except BadMessageError:
            continue
        assert all(b"\r" not in one and b"\n" not in one and b"\0" not in one for one in lines)


def _response_lines(fields: list[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    return tuple(read_response_fields([(b":status", b"200"), *fields])[1].kept)


def test_secrets_go_into_no_compression_table() -> None:
    head = b"GET / HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer x\r\nX-Api-Key: y\r\nAccept: z\r\n\r\n"
    kinds = {bytes(field[0]): type(field).__name__ for field in write_request_fields(head)}
    assert kinds[b"authorization"] == kinds[b"x-api-key"] == "NeverIndexedHeaderTuple"
    assert kinds[b"accept"] == "HeaderTuple"


# gRPC.


def test_a_refusal_for_grpc_says_everything_in_one_frame() -> None:
    deny = Deny(reason="r", rule="q", message="50% of\nit \u00e4", next_step="do")
    fields = {
        bytes(name): bytes(value) for name, value in grpc_fields(403, deny, (("X-Bot-Bottle-Reason", "r"),))
    }
    assert fields[b":status"] == b"200"
    assert fields[b"grpc-status"] == b"7"
    assert fields[b"grpc-message"] == b"50%25 of%0Ait %C3%A4; do (r, q)"
    assert fields[b"x-bot-bottle-reason"] == b"r"


@pytest.mark.parametrize(
    ("content_type", "grpc"),
    [
        (b"application/grpc", True),
        (b"Application/gRPC+proto; a=b", True),
        (b"application/grpc-web", False),
        (b"", False),
    ],
)
def test_grpc_is_told_from_its_relatives(content_type: bytes, grpc: bool) -> None:
    assert is_grpc(content_type) is grpc


_MESSAGES = st.lists(st.binary(max_size=30), max_size=6)


@given(_MESSAGES, st.lists(st.integers(1, 20), max_size=20), st.binary(max_size=4))
def test_messages_are_found_in_any_pieces(messages: list[bytes], steps: list[int], tail: bytes) -> None:
    tail = tail.replace(b"\1", b"\0")
    body = b"".join(b"\0" + len(one).to_bytes(4, "big") + one for one in messages) + tail
    ends, position, found, passed = MessageEnds(), 0, [b""], b""
    for step in [*steps, len(body)]:
        for prefix, content, ended in ends.cut(body[position : position + step]):
            passed += prefix + content
            found[-1] += content
            if ended:
                found.append(b"")
        position += step
    assert found[:-1] == messages
    assert passed + ends.rest() == body


class _Judge:
    """Holds everything back until the end, as a judge of whole bodies does, and objects to a word."""

    def __init__(self, seen: list[bytes]) -> None:
        self._held = b""
        self._seen = seen
        self.notices = ()

    def feed(self, data: bytes) -> bytes:
        self._held += data
        return b""

    def finish(self) -> bytes | Deny:
        self._seen.append(self._held)
        if b"bad" in self._held:
            return Deny(reason="found", rule="", message="", next_step="")
        return self._held


def test_a_message_goes_on_as_it_ends_and_nothing_of_a_bad_one() -> None:
    seen: list[bytes] = []
    too_large = Deny(reason="too_large", rule="", message="", next_step="")
    guard = GrpcGuard(lambda _packed: _Judge(seen), most=60, too_large=lambda: too_large)  # type: ignore[arg-type, return-value]
    good, bad = b"\0\0\0\0\5hello", b"\0\0\0\0\3bad"
    assert guard.feed(good[:7]) == b""
    assert guard.feed(good[7:] + good) == good + good
    assert guard.feed(b"\0\0\0\0\0") == b"\0\0\0\0\0", "an empty message is one too"
    assert isinstance(guard.feed(bad), Deny)
    assert seen == [b"hello", b"hello", b"", b"bad"]
    assert guard.feed(bytes(50)) is too_large


def test_a_body_that_ends_within_a_message_is_judged_to_its_end() -> None:
    guard = GrpcGuard(lambda _packed: _Judge([]), most=None, too_large=lambda: pytest.fail("no"))  # type: ignore[arg-type, return-value]
    assert guard.feed(b"\0\0\0\0\x09half") == b""
    assert guard.finish() == b"\0\0\0\0\x09half"
    guard = GrpcGuard(lambda _packed: _Judge([]), most=None, too_large=lambda: pytest.fail("no"))  # type: ignore[arg-type, return-value]
    guard.feed(b"\0\0\0\0\x09bad")
    assert isinstance(guard.finish(), Deny)
