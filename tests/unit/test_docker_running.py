"""One command's streams over a real connection whose other end plays the engine."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.docker.running import Running
from bot_bottle.backend.docker.streams import STDERR, STDOUT, Multiplexed
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bot_bottle.backend.streams import Input, Sink

MARK = "ab" * 16
END = f"\x1e{MARK}%d;"


def frame(stream: int, payload: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(payload).to_bytes(4, "big") + payload


class Engine:
    """The other end: told what to do as a function of its socket, which then closes."""

    def __init__(self) -> None:
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(30)
        self.streams = Multiplexed(ours)
        self.stdout, self.stderr = bytearray(), bytearray()
        self.broken = 0
        self._thread: threading.Thread | None = None

    def play(self, act: Callable[[Engine], None]) -> None:
        def run() -> None:
            # Whoever has seen the end hangs up, whatever is still being said.
            with self.socket, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                act(self)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def say(self, stream: int, text: bytes) -> None:
        self.socket.sendall(frame(stream, text))

    def end(self, code: int) -> None:
        for stream in (STDOUT, STDERR):
            self.say(stream, (END % code).encode())

    def input(self) -> bytes:
        data = b""
        while part := self.socket.recv(65536):
            data += part
        return data

    def run(
        self,
        given: Input = None,
        *,
        timeout: float | None = None,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> int | None:
        self.running = Running(
            MARK, given, stdout or self.stdout.extend, stderr or self.stderr.extend, self._note_broken
        )
        return self.running.finish(self.streams, timeout)

    def _note_broken(self) -> None:
        self.broken += 1

    def close(self) -> None:
        self.streams.close()
        if self._thread is not None:
            self._thread.join(30)
        self.socket.close()


@pytest.fixture
def engine() -> Iterator[Engine]:
    one = Engine()
    yield one
    one.close()


def test_output_goes_to_its_sinks_up_to_the_end_and_no_further(engine: Engine) -> None:
    def act(engine: Engine) -> None:
        engine.say(STDOUT, b"out")
        engine.say(STDERR, b"err")
        engine.end(7)
        engine.say(STDOUT, b"from the background")

    engine.play(act)
    assert engine.run() == 7
    assert (bytes(engine.stdout), bytes(engine.stderr)) == (b"out", b"err")


@pytest.mark.parametrize("given", [None, b"", io.BytesIO()], ids=["none", "bytes", "file"])
def test_no_input_is_told_at_once(engine: Engine, given: Input) -> None:
    """A command that waits for the end of its input before it says anything must not wait for ever."""

    def act(engine: Engine) -> None:
        assert engine.input() == b""
        engine.end(0)

    engine.play(act)
    assert engine.run(given, timeout=30) == 0


def test_input_of_every_kind_arrives_whole(engine: Engine) -> None:
    data = os.urandom(1 << 20)
    read_end, write_end = os.pipe()

    def feed() -> None:
        with os.fdopen(write_end, "wb") as sink:
            sink.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()

    def act(engine: Engine) -> None:
        engine.say(STDOUT, engine.input())
        engine.end(0)

    engine.play(act)
    try:
        assert engine.run(read_end) == 0
    finally:
        os.close(read_end)
        feeder.join()
    assert bytes(engine.stdout) == data


def test_input_that_nobody_takes_does_not_hold_up_the_end(engine: Engine) -> None:
    engine.play(lambda engine: engine.end(4))
    assert engine.run(b"x" * (8 << 20)) == 4


def test_a_closed_sink_is_told_once_and_the_end_still_comes(engine: Engine) -> None:
    def closed(_data: bytes) -> None:
        raise BrokenPipeError

    def act(engine: Engine) -> None:
        for _ in range(3):
            engine.say(STDOUT, b"nobody reads this")
        engine.say(STDERR, b"but this")
        engine.end(141)

    engine.play(act)
    assert engine.run(stdout=closed) == 141
    assert engine.broken == 1
    assert bytes(engine.stderr) == b"but this"


def test_an_error_of_a_sink_is_the_callers(engine: Engine) -> None:
    def full(_data: bytes) -> None:
        raise LaunchError("too much")

    engine.play(lambda engine: engine.say(STDOUT, b"x"))
    with pytest.raises(LaunchError, match="too much"):
        engine.run(stdout=full)


def test_time_that_runs_out_is_an_error(engine: Engine) -> None:
    over = threading.Event()
    engine.play(lambda _engine: None if over.wait(30) else pytest.fail("the test has not gone on"))
    with pytest.raises(TimeoutError):
        engine.run(io.BytesIO(b"x"), timeout=0.01)
    over.set()


def test_an_end_without_a_mark_is_no_exit_code_and_its_words_are_kept(engine: Engine) -> None:
    engine.play(lambda engine: engine.say(STDOUT, b"first\nOCI runtime exec failed: \x1b[31mno\n"))
    assert engine.run() is None
    assert engine.running.words == "OCI runtime exec failed: ?[31mno"


def test_a_forged_number_is_a_failure(engine: Engine) -> None:
    def act(engine: Engine) -> None:
        for stream in (STDOUT, STDERR):
            engine.say(stream, f"\x1e{MARK}-1x;".encode())

    engine.play(act)
    assert engine.run() == 255


def test_what_is_no_stream_is_an_error(engine: Engine) -> None:
    engine.play(lambda engine: engine.socket.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"))
    with pytest.raises(ValueError, match="frames"):
        engine.run()
