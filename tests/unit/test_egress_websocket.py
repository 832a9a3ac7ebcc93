"""WebSocket frames: what is none ends the connection, and nothing of a match goes on, however it is cut."""

from __future__ import annotations

import base64
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.frames import Begin, FrameError, FrameReader, Payload, close_frame, frame, masked
from bot_bottle.egress.redact import Needles
from bot_bottle.egress.routes import EgressRoute
from bot_bottle.egress.websocket import Conversation
from bot_bottle.pipelock.selection import Selection
from bot_bottle.pipelock.stream import BLOCK
from tests.support.pipelock import FORMS, SECRETS, letters, own_secrets, scanner
from tests.support.ws import BINARY, CLOSE, PING, PONG, TEXT, heard, said

if TYPE_CHECKING:
    from bot_bottle.decision import Deny

OWN = own_secrets()
SCANNER = scanner(own=OWN)
KEY = "ghp_" + letters(36)


class Bytes:
    """What was written, read from its beginning."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def exactly(self, count: int) -> bytes:
        assert len(self.data) >= count
        taken, self.data = self.data[:count], self.data[count:]
        return taken


def conversation(*, rules: bool = True, **fields: Any) -> Conversation:
    route = EgressRoute(host="api.test", tls_passthrough=not rules, **fields)
    return Conversation(SCANNER, Selection(rules=rules), host="api.test", route=route)


def talk(said_: bytes, talk_: Conversation | None = None, step: int = 1 << 30) -> tuple[bytes, Deny | None]:
    """Feed bytes in pieces; give the payloads that went on, put together, and the refusal."""
    chosen = talk_ or conversation()
    passed = b""
    deny: Deny | None = None
    for at in range(0, len(said_), step):
        more, deny = chosen.from_client(said_[at : at + step])
        passed += more
        if deny is not None:
            break
    read, payloads = Bytes(passed), b""
    while read.data:
        first, data = heard(read)
        assert not first & 0x70
        payloads += data
    return payloads, deny


@given(st.binary(max_size=70_000), st.binary(min_size=4, max_size=4), st.booleans())
def test_what_is_written_is_read_again(payload: bytes, key: bytes, final: bool) -> None:
    for mask in (key, b""):
        reader = FrameReader(masked=bool(mask))
        begun, *payloads, _end = reader.feed(frame(TEXT, payload, final=final, key=mask))
        assert begun == Begin(opcode=TEXT, final=final, length=len(payload))
        assert b"".join(one.data for one in payloads if isinstance(one, Payload)) == payload
        assert said(payload, final=final, key=mask) == frame(TEXT, payload, final=final, key=mask)


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 40))
def test_however_the_bytes_arrive(messages: list[bytes], step: int) -> None:
    whole = b"".join(said(one, BINARY) for one in messages)
    reader = FrameReader(masked=True)
    read = b"".join(
        event.data
        for at in range(0, len(whole), step)
        for event in reader.feed(whole[at : at + step])
        if isinstance(event, Payload)
    )
    assert read == b"".join(messages)


def read_in_steps(data: bytes, step: int) -> None:
    reader = FrameReader(masked=True)
    for at in range(0, len(data), step):
        list(reader.feed(data[at : at + step]))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xc1\x80", "extension"),
        (b"\x83\x80", "not defined"),
        (b"\x8b\x80", "not defined"),
        (b"\x81\x01", "not masked"),
        (b"\x09\x80", "in pieces"),
        (b"\x89\xfe", "too long"),
        (b"\x81\xfe\x00\x7d" + b"abcd", "shortest"),
        (b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff" + b"abcd", "shortest"),
        (b"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00" + b"abcd", "shortest"),
        (said(b"x", 0x0), "continues no message"),
        (said(b"x", TEXT, final=False) + said(b"y", TEXT), "amid another"),
        (said(b"\x03\xe8", CLOSE) + said(b"x"), "behind a close"),
        (b"GET / HTTP/1.1\r\n\r\n", "extension"),
    ],
)
def test_what_is_no_frame_of_a_clients(data: bytes, why: str) -> None:
    for step in (1, len(data)):
        with pytest.raises(FrameError, match=why):
            read_in_steps(data, step)
    assert talk(data)[1] is not None


def test_a_servers_frames_are_read_for_their_form() -> None:
    talk_ = conversation()
    answer = said(b"hello", key=b"") + said(b"\0" * 70_000, BINARY, key=b"")
    assert talk_.from_server(answer) == (answer, None)
    assert (talk_.received.messages, talk_.received.binary, talk_.received.size) == (2, 1, 70_005)
    passed, deny = talk_.from_server(said(b"hello"))
    assert passed == b""
    assert deny is not None
    assert (deny.reason, "masked" in deny.message) == ("websocket_protocol", True)
    assert conversation().from_server(b"\xc1\x05hello")[1] is not None


@given(
    st.integers(1, 60),
    st.lists(st.integers(0, 40), max_size=4),
    st.sampled_from(["", " and more", "x" * 200]),
)
def test_a_servers_messages_come_without_the_credential(step: int, cuts: list[int], behind: str) -> None:
    """However they are cut into frames and the frames into pieces; each message is whole at its end."""
    token = "marked-credential-8f1c2d"
    talk_ = Conversation(
        SCANNER,
        Selection(),
        host="api.test",
        route=EgressRoute(host="api.test"),
        needles=Needles([token.encode()]),
    )
    text = f"you sent {token}{behind}".encode()
    edges = sorted({0, *(cut % len(text) for cut in cuts), len(text)})
    parts = [text[a:b] for a, b in itertools.pairwise(edges)]
    data = b"".join(
        said(part, TEXT if not index else 0x0, final=index == len(parts) - 1, key=b"")
        + said(b"!", PING, key=b"")
        for index, part in enumerate(parts)
    )
    data += said(token.encode(), PONG, key=b"") + said(b"", key=b"") + said(b"endm", key=b"")
    passed = b"".join(talk_.from_server(data[at : at + step])[0] for at in range(0, len(data), step))
    read, messages, controls = Bytes(passed), [b""], []
    while read.data:
        first, payload = heard(read)
        if first & 0x08:
            controls.append(payload)
            continue
        messages[-1] += payload
        if first & 0x80:
            messages.append(b"")
    want = text.replace(token.encode(), b"*" * len(token))
    assert messages == [want, b"", b"endm", b""]
    assert controls == [b"!"] * len(parts) + [b"*" * len(token)]
    assert talk_.found


@given(st.binary(max_size=4), st.binary(max_size=100))
def test_a_mask_taken_twice_is_none(key: bytes, data: bytes) -> None:
    full = key.ljust(4, b"k")
    assert masked(masked(data, full), full) == data


def test_messages_go_on_as_they_were() -> None:
    talk_ = conversation()
    parts = said(b"Hello, ", TEXT, final=False) + said(b"", PING) + said(b"world", 0x0)
    passed, deny = talk_.from_client(parts + said(b"") + said(b"\x00\xff" * 50, BINARY))
    assert deny is None
    read = Bytes(passed)
    frames_ = []
    while read.data:
        frames_.append(heard(read))
    assert frames_ == [
        (0x80 | PING, b""),
        (0x80 | TEXT, b"Hello, world"),
        (0x80 | TEXT, b""),
        (0x80 | BINARY, b"\x00\xff" * 50),
    ]
    assert talk_.summary()["sent_messages"] == 3
    assert talk_.summary()["sent_binary"] == 1


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("value", [KEY, SECRETS["PREFIXED"]], ids=["rule", "own"])
def test_nothing_of_a_match_goes_on_wherever_a_message_is_cut(value: str, step: int) -> None:
    text = f'{{"note": "{value}"}}'.encode()
    for cut in range(1, len(text), 5):
        data = said(text[:cut], TEXT, final=False) + said(b"?", PONG) + said(text[cut:], 0x0)
        passed, deny = talk(data, step=step)
        assert deny is not None
        assert deny.rule in {"pipelock.github-token", "pipelock.own-secret:PREFIXED"}
        assert passed == b"?"
        assert value not in repr(deny)


@pytest.mark.parametrize("form", ["raw", "hex", "base64", "base32", "reversed", "gzip in base64"])
def test_own_secrets_are_seen_in_binary_too_and_where_rules_are_off(form: str) -> None:
    for value, opcode in itertools.product(SECRETS.values(), (TEXT, BINARY)):
        data = said(b"\x01\x02 " + FORMS[form](value.encode()), opcode)
        assert talk(data, conversation(rules=False))[1] is not None
    assert talk(said(KEY.encode()), conversation(rules=False)) == (KEY.encode(), None)


def test_control_frames_carry_nothing_out() -> None:
    value = SECRETS["PASSWORD"].encode()
    assert talk(said(value, PING)) == (b"", talk(said(value, PING))[1])
    assert talk(said(b"\x03\xe8" + KEY.encode(), CLOSE))[1] is not None
    pings = b"".join(said(value[at : at + 5], PONG) for at in range(0, len(value), 5))
    assert talk(pings)[1] is not None


def test_messages_are_judged_together() -> None:
    for value, dress in itertools.product(SECRETS.values(), ("{}", '{{"type":"log","text":"{}"}}')):
        talk_ = conversation(rules=False)
        parts = [dress.format(value[at : at + 6].replace('"', '\\"')) for at in range(0, len(value), 6)]
        denied = [talk_.from_client(said(part.encode()))[1] for part in parts]
        assert any(denied)


def test_a_message_of_any_size_flows_in_bounded_memory() -> None:
    text = b"the quick brown fox jumps over the lazy dog\n" * (4 * BLOCK // 44)
    passed, deny = talk(said(text), step=10_000)
    assert deny is None
    assert passed == text
    bad = text + base64.b64encode(f"token {KEY}".encode()) + text
    passed, deny = talk(said(bad[: 3 * BLOCK], final=False) + said(bad[3 * BLOCK :], 0x0), step=10_000)
    assert deny is not None
    assert bad.startswith(passed)
    assert BLOCK < len(passed) <= len(text)


def test_a_route_bounds_messages() -> None:
    assert talk(said(b"x" * 100), conversation(max_body=100))[1] is None
    for data in (said(b"x" * 101), said(b"x" * 60, final=False) + said(b"x" * 60, 0x0)):
        deny = talk(data, conversation(max_body=100))[1]
        assert deny is not None
        assert deny.reason == "body_too_large"


def test_text_must_be_text() -> None:
    noise = bytes(range(256)) * 4
    deny = talk(said(noise, TEXT))[1]
    assert deny is not None
    assert deny.reason == "content_unreadable"
    assert talk(said(noise, BINARY))[1] is None
    assert talk(said(noise, TEXT), conversation(on_opaque="allow"))[1] is None


def test_a_close_frame_holds_what_one_can() -> None:
    (begun, payload, _end) = FrameReader(masked=False).feed(close_frame(1008, "é" * 200))
    assert isinstance(begun, Begin)
    assert begun.length <= 125
    assert isinstance(payload, Payload)
    assert payload.data[:2] == b"\x03\xf0"
    payload.data[2:].decode("utf-8")
