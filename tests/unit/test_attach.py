"""The parts of a detached session: words, keys, output, the launcher's end and the one in front."""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from bot_bottle import local_socket
from bot_bottle.attach import wire
from bot_bottle.attach.console import Console
from bot_bottle.attach.detach_keys import DetachKeys
from bot_bottle.attach.output import CURRENT, OLDER, KeptOutput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SECONDS = 30.0
HELLO = wire.Hello(size=(33, 101), keys=True)


@pytest.mark.parametrize(
    ("typed", "given_on", "left"),
    [
        ([b"abc"], b"abc", False),
        ([b"ab\x10\x11cd"], b"ab", True),
        ([b"ab\x10", b"\x11"], b"ab", True),
        ([b"\x10", b"x", b"\x11"], b"\x10x\x11", False),
        ([b"\x10\x10", b"\x11"], b"\x10", True),
        ([b"\x1b[112;5u", b"\x1b[113;5u"], b"", True),
        ([b"\x1b[112;5:1u\x1b[112;5:3u", b"\x1b[113;5:1u"], b"", True),
        ([b"\x1b[27;5;112~\x1b[27;5;113~"], b"", True),
        ([b"\x1b[112;6u\x1b[113;6u"], b"\x1b[112;6u\x1b[113;6u", False),
    ],
)
def test_two_keys_leave_and_all_others_go_on(typed: list[bytes], given_on: bytes, left: bool) -> None:
    keys, given, found = DetachKeys(), b"", False
    for data in typed:
        more, found = keys.feed(data)
        given += more
    assert (given, found, keys.holding) == (given_on, left, False)


def test_the_first_key_alone_is_held_back_and_let_go() -> None:
    keys = DetachKeys()
    assert keys.feed(b"a\x10") == (b"a", False)
    assert [keys.holding, keys.let_go(), keys.holding] == [True, b"\x10", False]
    assert keys.feed(b"\x11") == (b"\x11", False)


def test_words_are_read_as_they_were_written_and_others_refused() -> None:
    assert wire.read_hello(wire.hello(HELLO)) == HELLO
    assert wire.read_size(wire.size(40, 99)) == (40, 99)
    assert wire.read_ended(wire.ended(255)) == 255
    for bad in (b"", b"h", wire.hello(HELLO)[:-1] + b"\7", wire.hello(HELLO) + b"\0", b"k" + b"\0" * 5):
        with pytest.raises(ValueError, match="word"):
            wire.read_hello(bad)
    for bad in (wire.size(0, 80), wire.size(24, 0), b"s\0"):
        with pytest.raises(ValueError, match="terminal"):
            wire.read_size(bad)


def test_output_is_kept_in_bounded_room(tmp_path: Path) -> None:
    output = KeptOutput(tmp_path, file_bytes=1000, recent_bytes=100)
    lines = [f"line {number}\n".encode() for number in range(500)]
    for line in lines:
        output.append(line)
    output.close()
    recent = output.recent()
    assert b"".join(lines).endswith(recent)
    assert recent.startswith(b"line ")
    assert 80 < len(recent) <= 100
    kept = (tmp_path / OLDER).read_bytes() + (tmp_path / CURRENT).read_bytes()
    assert b"".join(lines).endswith(kept)
    assert 1000 < len(kept) <= 2 * (1000 + 10)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    KeptOutput(tmp_path).close()
    assert [(path.name, path.stat().st_size) for path in tmp_path.iterdir()] == [(CURRENT, 0)]


@contextmanager
def console(folder: Path, *, terminal: bool = True) -> Iterator[Console]:
    with Console(folder, terminal=terminal, size=(24, 80), begun=lambda: None) as made:
        yield made


def join(folder: Path, word: bytes = wire.hello(HELLO)) -> socket.socket:
    sock = local_socket.connect(folder, wire.SOCKET, socket.SOCK_SEQPACKET, _SECONDS)
    sock.send(word)
    return sock


def heard(sock: socket.socket, size: int) -> bytes:
    """Read output until there is as much."""
    found = b""
    while len(found) < size:
        packet = sock.recv(wire.MAX_PACKET)
        assert packet[:1] == wire.OUTPUT
        found += packet[1:]
    return found


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], _SECONDS)[0])


def test_who_joins_sees_what_was_and_what_comes_types_and_hears_the_end(tmp_path: Path) -> None:
    with console(tmp_path) as held:
        assert stat.S_IMODE((tmp_path / wire.SOCKET).stat().st_mode) == 0o600
        held.show(b"before")
        with join(tmp_path) as sock:
            assert sock.recv(100) == wire.welcome(terminal=True)
            assert heard(sock, 6) == b"before"
            assert readable(held.resized)
            assert held.sizes() == ((24, 80), (33, 101))
            held.show(b"after")
            assert heard(sock, 5) == b"after"
            sock.send(wire.KEYS + b"typed")
            assert readable(held.keys)
            assert held.read_keys() == b"typed"
            sock.send(wire.size(40, 99))
            assert readable(held.resized)
            assert held.sizes()[-1] == (40, 99)
            held.ended(7)
            assert sock.recv(100) == wire.ended(7)
    assert not (tmp_path / wire.SOCKET).exists()


def test_a_later_terminal_takes_the_place_and_is_redrawn(tmp_path: Path) -> None:
    with console(tmp_path) as held:
        with join(tmp_path) as first, join(tmp_path) as second:
            assert first.recv(100) == wire.welcome(terminal=True)
            assert first.recv(100) == wire.TAKEN
            assert first.recv(100) == b""
            assert second.recv(100) == wire.welcome(terminal=True)
            sizes = held.sizes()
            assert sizes[-2:] == ((33, 100), (33, 101)), "the same size again tells no program to draw"
            held.show(b"x")
            assert heard(second, 1) == b"x"
        held.show(b"to nobody")


@pytest.mark.parametrize(
    "word", [b"nonsense", wire.KEYS + b"typed before a word", b"h", wire.hello(HELLO) + b"more"]
)
def test_who_does_not_say_the_first_word_is_not_taken_on(tmp_path: Path, word: bytes) -> None:
    with console(tmp_path) as held, join(tmp_path) as good:
        assert good.recv(100) == wire.welcome(terminal=True)
        with join(tmp_path, word) as bad:
            assert bad.recv(100) == b""
        held.show(b"still here")
        assert heard(good, 10) == b"still here"


def test_a_pipe_follows_an_agent_without_a_terminal_alone(tmp_path: Path) -> None:
    pipe = wire.hello(wire.Hello(size=(24, 80), keys=False))
    with console(tmp_path) as held, join(tmp_path, pipe) as sock:
        assert sock.recv(1000)[:1] == wire.REFUSED
        held.show(b"x")
    with console(tmp_path, terminal=False) as held, join(tmp_path, pipe) as sock:
        assert sock.recv(100) == wire.welcome(terminal=False)
        held.show(b"seen")
        assert heard(sock, 4) == b"seen"
        sock.send(wire.KEYS + b"typed")  # which it cannot be: it is let go of
        assert sock.recv(100) == b""


def test_a_terminal_that_takes_nothing_does_not_hold_up_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot_bottle.attach.console._STALLED_SECONDS", 0.2)
    with console(tmp_path) as held, join(tmp_path) as sock:
        assert sock.recv(100) == wire.welcome(terminal=True)
        for _ in range(40):
            held.show(b"x" * (1 << 17))
        while packet := sock.recv(wire.MAX_PACKET):
            assert packet[:1] == wire.OUTPUT
        with join(tmp_path) as again:  # and may come back
            assert again.recv(100) == wire.welcome(terminal=True)


def test_typing_that_the_agent_does_not_read_is_kept_for_it(tmp_path: Path) -> None:
    with console(tmp_path) as held, join(tmp_path) as sock:
        assert sock.recv(100) == wire.welcome(terminal=True)
        sent = [os.urandom(1 << 14) for _ in range(16)]  # more than a pipe holds
        received = b""
        for piece in sent:
            sock.setblocking(False)
            while True:
                try:
                    sock.send(wire.KEYS + piece)
                    break
                except BlockingIOError:
                    assert readable(held.keys)
                    received += held.read_keys()
        while len(received) < sum(map(len, sent)):
            assert readable(held.keys)
            received += held.read_keys()
        assert received == b"".join(sent)


_BACKGROUND = """
import json, os, signal, sys, time
from pathlib import Path
from bot_bottle.attach.background import Background, split
found = split()
if isinstance(found, Background):
    print("in front still", flush=True)
    found.leave()
    assert os.getsid(0) == os.getpid()
    {body}
else:
    print(json.dumps([found.report, found.exit_code]))
"""


def in_background(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    code = _BACKGROUND.format(body=body.replace("\n", "\n    "))
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_one_in_front_hears_that_it_is_up_and_the_other_goes_on(tmp_path: Path) -> None:
    done = in_background(tmp_path, "found.up(Path(sys.argv[1]), {'identity': 'x'})\nprint('unheard')")
    assert done.stdout == 'in front still\n[{"identity": "x"}, 0]\n', done.stderr
    # Its output ends with the one in front: nothing of the other's holds the pipe open.
    log = tmp_path / "launcher.log"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_the_one_in_front_ends_with_the_code_of_what_did_not_come_up(tmp_path: Path) -> None:
    done = in_background(tmp_path, "sys.exit(4)")
    assert done.stdout == "in front still\n[null, 4]\n", done.stderr
    done = in_background(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert done.stdout == "in front still\n[null, 137]\n", done.stderr


def test_ctrl_c_in_front_reaches_the_one_that_has_left(tmp_path: Path) -> None:
    body = "os.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)"
    done = in_background(tmp_path, body)
    assert "KeyboardInterrupt" in done.stderr
    assert done.stdout.endswith("[null, 130]\n"), done.stdout
