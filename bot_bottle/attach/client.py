"""The operator's end of a detached session: their terminal, joined to the agent's for as long as wanted."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bot_bottle import bottle_state, local_socket
from bot_bottle.attach import wire
from bot_bottle.attach.detach_keys import DetachKeys
from bot_bottle.attach.escapes import EscapeGuard
from bot_bottle.attach.terminal import STDIN, STDOUT, has_terminal, own_terminal, window_size
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.attach.terminal import OwnTerminal

_SECONDS = 10.0
#: How long the first of the two keys waits for the second, in milliseconds.
_HELD_MS = 500
#: Puts a terminal back that an agent's program has set up for itself and not let go of: its own screen,
#: mouse, pasting, focus, keypad, keys, hidden cursor, colours (xterm's ctlseqs; kitty's keyboard protocol).
_PUT_BACK = (
    b"\x1b[?1047l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?1004l\x1b[?1l\x1b>"
    b"\x1b[<u\x1b[>4;0m\x1b[?25h\x1b[0m\r\n"
)

#: What ended it: the agent, the operator's two keys, another terminal, the launcher.
Leaving = Literal["ended", "detached", "taken", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """How an attached session was left; ``exit_code`` is the agent's where that ended."""

    leaving: Leaving
    exit_code: int = 0


def require_detached(identity: str) -> None:
    """Raise ``UsageError`` with what to do unless the bottle runs without a terminal of its own."""
    bottle_state.require_running(identity)
    if not bottle_state.is_detached(identity):
        raise UsageError(
            f"{identity} runs on the terminal that it was started from, or is only just coming up; "
            "what is started with --detach can be attached to"
        )


def attach(identity: str, announce: Callable[[bool], None] = lambda _keys: None) -> Attached:
    """Join this terminal to a detached session until the agent ends or it is left.

    ``announce`` is called once joined, before the first output; its argument tells whether there is a
    terminal to type on. What the agent wrote last is shown first. Raises ``UsageError`` for a bottle that
    cannot be attached to, or not from here, and ``LaunchError`` where its launcher does not answer.
    """
    require_detached(identity)
    with _join(identity) as sock:
        keys = _await_welcome(identity, sock)
        announce(keys)
        if not keys:
            return _follow(sock)
        try:
            with own_terminal() as own:
                return _carry(sock, own)
        finally:
            with contextlib.suppress(OSError):
                os.write(STDOUT, _PUT_BACK)
            # What the terminal has answered the agent meanwhile is not to be typed at the operator's shell.
            with contextlib.suppress(termios.error):
                termios.tcflush(STDIN, termios.TCIFLUSH)


def _join(identity: str) -> socket.socket:
    folder = bottle_state.bottle_state_dir(identity)
    try:
        sock = local_socket.connect(folder, wire.SOCKET, socket.SOCK_SEQPACKET, _SECONDS)
    except OSError as error:
        raise LaunchError(f"the launcher of {identity} does not listen: {error.strerror or error}") from error
    try:
        sock.send(wire.hello(wire.Hello(size=window_size(), keys=has_terminal())))
    except BaseException:
        sock.close()
        raise
    return sock


def _await_welcome(identity: str, sock: socket.socket) -> bool:
    """Wait to be taken on; tells whether the agent has a terminal."""
    try:
        packet = sock.recv(wire.MAX_PACKET)
    except OSError as error:
        raise LaunchError(f"the launcher of {identity} does not answer: {error.strerror or error}") from error
    if packet[:1] == wire.REFUSED:
        raise UsageError(legible(packet[1:].decode("utf-8", "replace")))
    if packet[:1] != wire.WELCOME:
        raise LaunchError(f"the session of {identity} is just ending")
    sock.settimeout(None)
    return packet == wire.welcome(terminal=True)


def _follow(sock: socket.socket) -> Attached:
    """Show what an agent without a terminal writes; Ctrl-C ends the showing alone."""
    guard = EscapeGuard(quiet=True)  # there is no terminal to be asked, or nobody to hear its answer
    show = (lambda data: _write(guard.feed(data))) if os.isatty(STDOUT) else _write
    try:
        while True:
            found = _heard(sock.recv(wire.MAX_PACKET), show)
            if found is not None:
                return found
    except KeyboardInterrupt:
        return Attached(leaving="detached")


def _carry(sock: socket.socket, own: OwnTerminal) -> Attached:
    detach = DetachKeys()
    while True:
        poller = select.poll()
        poller.register(sock, select.POLLIN)
        poller.register(own.resized, select.POLLIN)
        poller.register(own.keys, select.POLLIN)
        ready = dict(poller.poll(_HELD_MS if detach.holding else None))
        if own.resized in ready:
            _say(sock, wire.size(*own.sizes()[-1]))
        if own.keys in ready:
            typed = own.read_keys()
            if not typed:
                return Attached(leaving="detached")  # the terminal was closed
            typed, leave = detach.feed(typed)
            for piece in wire.pieces(typed):
                _say(sock, wire.KEYS + piece)
            if leave:
                return Attached(leaving="detached")
        elif detach.holding and not ready:
            _say(sock, wire.KEYS + detach.let_go())
        if sock.fileno() in ready:
            found = _heard(sock.recv(wire.MAX_PACKET), own.show)
            if found is not None:
                return found


def _heard(packet: bytes, show: Callable[[bytes], None]) -> Attached | None:
    """Take in a word of the launcher's; gives the end, if it was that."""
    kind = packet[:1]
    if kind == wire.OUTPUT:
        show(packet[1:])
        return None
    if kind == wire.ENDED:
        return Attached(leaving="ended", exit_code=wire.read_ended(packet))
    return Attached(leaving="taken" if kind == wire.TAKEN else "lost")


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(STDOUT, view) :]


def _say(sock: socket.socket, packet: bytes) -> None:
    """Send a word; that the launcher has gone is heard on reading."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.send(packet)
