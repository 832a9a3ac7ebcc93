"""The engine's frames and the connection that carries them: whole, in order, half-closed, on TLS too."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.backend.docker.streams import FrameDecoder, Multiplexed
from bot_bottle.demo.authority import Authority

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

SECONDS = 20.0


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


@given(
    frames=st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=8),
    cuts=st.lists(st.integers(min_value=1, max_value=9)),
)
def test_frames_are_taken_apart_however_they_arrive(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(frame(*one) for one in frames)
    decoder, pieces = FrameDecoder(), []
    for cut in [*cuts, len(data)]:
        pieces += decoder.feed(data[:cut])
        data = data[cut:]
    for stream in (1, 2):
        assert b"".join(d for s, d in pieces if s == stream) == b"".join(d for s, d in frames if s == stream)
    merged = b"".join(d for _s, d in pieces)
    assert merged == b"".join(d for _s, d in frames)


def test_a_large_frame_is_given_on_as_it_arrives() -> None:
    decoder = FrameDecoder()
    assert decoder.feed(frame(1, b"")[:4] + (1 << 31).to_bytes(4, "big")) == []
    assert decoder.feed(b"abc") == [(1, b"abc")]
    assert decoder.feed(b"def") == [(1, b"def")]


@pytest.mark.parametrize("data", [b"\x03\0\0\0\0\0\0\1a", b"HTTP/1.1 200 OK", b"\x01\0\0\1\0\0\0\1a"])
def test_what_is_no_frame_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="frames"):
        FrameDecoder().feed(data)


class Response:
    """What the SDK keeps beside a connection: an HTTP response whose reader may hold early bytes."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self.raw = self
        self._fp = self
        self.fp = reader

    def close(self) -> None:
        self.fp.close()


class Wire:
    """An engine's end and ours, given as the SDK gives it: after one HTTP head was read from it."""

    def __init__(self, ours: socket.socket, engine: socket.socket, early: bytes = b"") -> None:
        self.engine = engine
        self.engine.settimeout(SECONDS)
        reader = ours.makefile("rb")
        engine.sendall(b"HTTP/1.1 101 UPGRADED\r\n\r\n" + early)
        while reader.readline() != b"\r\n":
            pass
        given = ours if isinstance(ours, ssl.SSLSocket) else reader.raw
        given._response = Response(reader)  # type: ignore[union-attr]
        ours.close()  # as http.client does; the reader keeps it open
        self.streams = Multiplexed(given)


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


def tls_pair() -> tuple[socket.socket, socket.socket]:
    authority = Authority("engine tests")
    left, right = socket.socketpair()
    engine: list[ssl.SSLSocket] = []
    server = authority.server_context("engine.test")
    thread = threading.Thread(target=lambda: engine.append(server.wrap_socket(right, server_side=True)))
    thread.start()
    ours = ssl.create_default_context(cadata=authority.pem).wrap_socket(left, server_hostname="engine.test")
    thread.join()
    return ours, engine[0]


Maker = Callable[..., Wire]


@pytest.fixture(params=[unix_pair, tls_pair], ids=["unix", "tls"])
def wire(request: pytest.FixtureRequest) -> Iterator[Maker]:
    with contextlib.ExitStack() as stack:

        def make(early: bytes = b"") -> Wire:
            ours, engine = request.param()
            made = Wire(ours, engine, early)
            stack.callback(made.engine.close)
            stack.callback(made.streams.close)
            return made

        yield make


def test_output_that_came_with_the_head_is_not_lost(wire: Maker) -> None:
    made = wire(frame(1, b"early") + frame(2, b"too")[:9])
    made.engine.sendall(frame(2, b"too")[9:])
    seen: list[tuple[int, bytes]] = []
    while sum(len(data) for _stream, data in seen) < 8:
        seen += made.streams.read(SECONDS)
    assert b"".join(data for _stream, data in seen) == b"earlytoo"
    assert {stream for stream, _data in seen} == {1, 2}


def test_nothing_yet_is_told_from_the_end(wire: Maker) -> None:
    made = wire()
    assert made.streams.read_now() is None
    with pytest.raises(TimeoutError):
        made.streams.read(0.01)
    made.engine.close()
    assert made.streams.read(SECONDS) == []
    assert made.streams.read_now() == []


def test_after_the_half_close_all_output_still_comes(wire: Maker) -> None:
    """Output on its way while input ends is not dropped, and the engine sees an orderly end."""
    made = wire()
    size = 300_000
    got = bytearray()

    def engine() -> None:
        made.engine.sendall(frame(1, b"a" * 1000))
        while data := made.engine.recv(65536):  # b"" here is a close_notify, not a broken connection
            got.extend(data)
        made.engine.sendall(frame(1, b"b" * size))
        made.engine.close()

    thread = threading.Thread(target=engine)
    thread.start()
    made.streams.write(b"i" * size, SECONDS)
    made.streams.half_close(SECONDS)
    made.streams.half_close(SECONDS)
    output = b"".join(data for _stream, data in made.streams)
    thread.join()
    assert output == b"a" * 1000 + b"b" * size
    assert got == b"i" * size


def test_what_cannot_be_sent_is_not_taken(wire: Maker) -> None:
    made = wire()
    taken = 0
    data = os.urandom(1 << 14)
    while (step := made.streams.write_now(data)) > 0:
        taken += step
    assert made.streams.wants_to_write
    with pytest.raises(TimeoutError):
        made.streams.write(b"more", 0.01)
    seen = bytearray()
    while len(seen) < taken:
        seen += made.engine.recv(65536)
        made.streams.write_now(b"")
    assert bytes(seen) == data * (taken // len(data)) + data[: taken % len(data)]


def test_reading_and_writing_at_once_is_whole(wire: Maker) -> None:
    made = wire()
    size = 3_000_000

    def echo() -> None:
        with contextlib.suppress(OSError):
            while data := made.engine.recv(65536):
                made.engine.sendall(frame(1, data))
        made.engine.close()

    seen = bytearray()

    def collect() -> None:
        for _stream, data in made.streams:
            seen.extend(data)

    threads = [threading.Thread(target=echo), threading.Thread(target=collect)]
    for thread in threads:
        thread.start()
    sent = os.urandom(1000) * (size // 1000)
    made.streams.write(sent, SECONDS)
    made.streams.half_close(SECONDS)
    for thread in threads:
        thread.join()
    assert bytes(seen) == sent


def test_an_abort_wakes_the_reader(wire: Maker) -> None:
    made = wire()
    ends: list[list[tuple[int, bytes]]] = []

    def read() -> None:
        with contextlib.suppress(OSError):
            ends.append(made.streams.read(SECONDS))

    thread = threading.Thread(target=read)
    thread.start()
    made.streams.abort()
    thread.join(SECONDS)
    assert not thread.is_alive()
    assert ends in ([], [[]])


def test_a_thing_that_is_no_connection_is_refused() -> None:
    with pytest.raises(TypeError):
        Multiplexed(object())
