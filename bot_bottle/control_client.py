"""The operator's end of a bottle's control socket: find it, give orders, read events.

Blocking and small, since commands that stop things must not wait for imports.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Self

from bot_bottle import bottle_state, local_socket
from bot_bottle.errors import LaunchError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

_NAME = "control"
_SECONDS = 30.0
_NOTE_SECONDS = 2.0
_AGAIN_SECONDS = 0.01
_LOOKS = 100
_PIECE = 64 * 1024
#: An answer tells of every route, with its counters.
_MAX_ANSWER = 16 * 1024 * 1024


class NotReachableError(LaunchError):
    """The bottle's sidecar does not listen: the bottle has ended, or it is only just coming up or going.

    ``deserted`` says that the socket is there and nobody at it.
    """

    def __init__(self, message: str, *, deserted: bool = False) -> None:
        super().__init__(message)
        self.deserted = deserted


class OrderRefusedError(LaunchError):
    """The sidecar did not carry an order out; the text is its own sentence."""


def control_listener(state_dir: Path) -> AbstractContextManager[socket.socket]:
    """Listen at a bottle's control socket while the body runs; the lock on the state is the caller's.

    Close it once it has been handed over: while any copy is open, who connects waits for an answer.
    Raises ``OSError``.
    """
    return local_socket.listening(state_dir, _NAME, socket.SOCK_STREAM)


class ControlClient:
    """A connection to one bottle's control socket."""

    def __init__(self, identity: str, sock: socket.socket) -> None:
        self.identity = identity
        self._sock = sock
        self._rest = b""

    @classmethod
    def connect(cls, identity: str, seconds: float = _SECONDS) -> ControlClient:
        """Connect to the sidecar of a running bottle; each answer may take ``seconds``.

        Raises :class:`NotReachableError`, and ``UsageError`` for what is no identity.
        """
        state_dir = bottle_state.bottle_state_dir(identity)
        try:
            sock = local_socket.connect(state_dir, _NAME, socket.SOCK_STREAM, seconds)
        except OSError as error:
            raise NotReachableError(
                f"the sidecar of {identity} does not listen: {_why(error)}",
                deserted=isinstance(error, ConnectionRefusedError),
            ) from error
        return cls(identity, sock)

    def patience(self, seconds: float) -> None:
        """Let each answer take ``seconds`` from now on."""
        self._sock.settimeout(seconds)

    def send(self, order: Mapping[str, object]) -> None:
        """Give an order without waiting for its answer; raises :class:`NotReachableError`."""
        try:
            self._sock.sendall(json.dumps(order).encode("ascii") + b"\n")
        except OSError as error:
            raise self._lost(error) from error

    def answer(self) -> dict[str, object]:
        """Wait for the answer to an order given; raises as :meth:`order`."""
        while b"\n" not in self._rest:
            try:
                more = self._sock.recv(_PIECE)
            except OSError as error:
                raise self._lost(error) from error
            if not more or len(self._rest) > _MAX_ANSWER:
                raise self._lost(None)
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise self._lost(None) from error
        if not isinstance(answer, dict):
            raise self._lost(None)
        if answer.get("ok") is not True:
            raise OrderRefusedError(legible(str(answer.get("error"))))
        return answer

    def order(self, name: str, **fields: object) -> dict[str, object]:
        """Give an order and wait for its answer.

        Raises :class:`NotReachableError` and :class:`OrderRefusedError`.
        """
        self.send({"order": name, **fields})
        return self.answer()

    def events(self, start: int) -> Iterator[bytes]:
        """Read the audit log's bytes from ``start`` on, as they are written, until the sidecar ends.

        Raises as :meth:`order`.
        """
        self.order("events", **{"from": start})
        self._sock.settimeout(None)
        if self._rest:
            yield self._rest
        with contextlib.suppress(ConnectionError):
            while data := self._sock.recv(_PIECE):
                yield data

    def hang_up(self) -> None:
        """End the conversation from another thread: whoever waits in it hears its end."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go."""
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _lost(self, error: OSError | None) -> NotReachableError:
        why = "it does not answer in time" if isinstance(error, TimeoutError) else "it has ended"
        return NotReachableError(f"the sidecar of {self.identity} is lost: {why}")


def note_session(identity: str, state: str, exit_code: int | None = None) -> None:
    """Put what became of a bottle's session among its events, as far as its sidecar still takes it.

    ``state`` is one of :data:`bot_bottle.sidecar.orders.SESSION_STATES`.
    """
    with contextlib.suppress(LaunchError), ControlClient.connect(identity, _NOTE_SECONDS) as client:
        client.order("session", state=state, exit_code=exit_code)


def end_session(identity: str, number: int = signal.SIGTERM) -> bool:
    """Send the launcher of a running bottle a signal; False where the session has ended already.

    The sidecar is not asked: it may be what hangs. Raises ``LaunchError`` where the launcher is not found.
    """
    for _ in range(_LOOKS):
        pid = bottle_state.launcher_of(identity)
        if pid is None and not bottle_state.is_running(identity):
            return False
        if pid is not None and _signal_launcher(identity, pid, number):
            return True
        time.sleep(_AGAIN_SECONDS)  # it has only just taken the lock, or is about to let go of it
    raise LaunchError(f"the process that runs {identity} cannot be found; end it from where it was started")


def _signal_launcher(identity: str, pid: int, number: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Proven again with the process in hand, so that the number cannot have become another's meanwhile.
        if bottle_state.launcher_of(identity) != pid:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def wait_until_ended(identity: str, seconds: float) -> bool:
    """Wait until no launcher holds a bottle; False where one still does after ``seconds``."""
    deadline = time.monotonic() + seconds
    while bottle_state.is_running(identity):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _why(error: OSError) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return "it is not running"
        case PermissionError():
            return "its state folder belongs to another user"
        case TimeoutError() | BlockingIOError():
            return "it takes no connection"
        case _:
            return error.strerror or str(error)
