"""The launcher's end of a detached session: an agent's terminal without an operator at it, for now.

One terminal at a time is attached; a later one takes the place of an earlier. A thread of its own serves the
socket, so that the thread that runs the agent only ever writes what the agent wrote and reads what was typed.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from bot_bottle import local_socket
from bot_bottle.attach import wire
from bot_bottle.attach.escapes import EscapeGuard
from bot_bottle.attach.output import KeptOutput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: How much may be on its way to a terminal before the agent has to wait for it, in bytes.
_MAX_UNSENT = 1 << 20
#: A terminal that takes nothing for so long is let go of, so that the agent is held up no longer.
_STALLED_SECONDS = 10.0
#: How long who connects may take for the first word.
_HELLO_SECONDS = 5.0
_END_SECONDS = 5.0
_NO_TERMINAL = "the agent has a terminal, and what attaches to it must be one; run attach on a terminal"


class Console:
    """What a detached agent is shown on and typed at; see :class:`bot_bottle.attach.terminal.OperatorSide`.

    ``begun`` is called once, when the agent runs. Use it as a context manager: the socket is there meanwhile.
    """

    def __init__(
        self, state_dir: Path, *, terminal: bool, size: tuple[int, int], begun: Callable[[], None]
    ) -> None:
        self._state_dir = state_dir
        self._terminal = terminal
        self._sizes: list[tuple[int, int]] = [size]
        self._begun = begun
        self._stack = contextlib.ExitStack()
        self._changed = threading.Condition()
        self._client: socket.socket | None = None
        self._left: list[socket.socket] = []
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._typed = b""
        self._ending = False

    def __enter__(self) -> Self:
        """Listen. Raises ``OSError`` where the state folder cannot be written."""
        with contextlib.ExitStack() as stack:
            self._output = KeptOutput(self._state_dir)
            stack.callback(self._output.close)
            self.keys, self._keys_end = _pipe(stack)
            self.resized, self._resized_end = _pipe(stack)
            self._woken, self._wake_end = _pipe(stack)
            self._listener = stack.enter_context(
                local_socket.listening(self._state_dir, wire.SOCKET, socket.SOCK_SEQPACKET)
            )
            self._listener.setblocking(False)  # noqa: FBT003 - the library's signature
            self._thread = threading.Thread(target=self._serve, name="console", daemon=True)
            self._thread.start()
            stack.callback(self._stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def begun(self) -> None:
        """Hear that the agent runs now."""
        self._begun()

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Give the sizes (rows, columns) that the terminal is to have, one after the other."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.resized, wire.MAX_PACKET)
        with self._changed:
            self._sizes, sizes = self._sizes[-1:], tuple(self._sizes)
        return sizes

    def read_keys(self) -> bytes:
        """Take what was typed, once :attr:`keys` is readable."""
        return os.read(self.keys, wire.MAX_PACKET)

    def show(self, data: bytes) -> None:
        """Take in what the agent wrote; waits for an attached terminal that is slow, not for ever."""
        with self._changed:
            self._output.append(data)
            client = self._client
            if client is None:
                return
            self._queue(data)
            self._wake()
            while self._client is client and self._unsent_bytes > _MAX_UNSENT:
                before = self._unsent_bytes
                self._changed.wait(_STALLED_SECONDS)
                if self._client is client and self._unsent_bytes >= before:
                    self._let_go()

    def ended(self, code: int) -> None:
        """Tell who is attached that the agent has ended, and see that all it wrote gets there."""
        deadline = time.monotonic() + _END_SECONDS
        with self._changed:
            if self._client is not None:
                self._unsent.append(wire.ended(code))
                self._wake()
            while self._client is not None and self._unsent and time.monotonic() < deadline:
                self._changed.wait(max(0.0, deadline - time.monotonic()))

    def _queue(self, data: bytes) -> None:
        for piece in wire.pieces(data):
            self._unsent.append(wire.OUTPUT + piece)
        self._unsent_bytes += len(data)

    def _let_go(self, word: bytes = b"") -> None:
        """Take leave of the attached terminal; it goes on by itself. The lock is held."""
        client, self._client = self._client, None
        self._unsent.clear()
        self._unsent_bytes = 0
        self._typed = b""
        if client is not None:
            with contextlib.suppress(OSError):
                if word:
                    client.send(word)
                client.shutdown(socket.SHUT_RDWR)
            # Closed by the thread that polls it, or its number might be another's while it is polled.
            self._left.append(client)
            self._wake()
        self._changed.notify_all()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_end, b"\0")

    def _stop(self) -> None:
        with self._changed:
            self._ending = True
            self._wake()
        self._thread.join()

    # What follows runs in the console's own thread.

    def _serve(self) -> None:
        comers: dict[int, tuple[socket.socket, float]] = {}
        try:
            while True:
                poller = select.poll()
                poller.register(self._listener, select.POLLIN)
                poller.register(self._woken, select.POLLIN)
                for fd in comers:
                    poller.register(fd, select.POLLIN)
                with self._changed:
                    if self._ending:
                        return
                    self._close_left()
                    attached = -1 if self._client is None else self._client.fileno()
                    if attached >= 0:
                        # While typing is not taken, no more of it is read; hanging up is heard all the same.
                        reads = 0 if self._typed else select.POLLIN
                        poller.register(attached, reads | (select.POLLOUT if self._unsent else 0))
                    if self._typed:
                        poller.register(self._keys_end, select.POLLOUT)
                ready = dict(poller.poll(1000 if comers else None))
                if self._woken in ready:
                    os.read(self._woken, wire.MAX_PACKET)
                if self._listener.fileno() in ready:
                    self._accept(comers)
                for fd in [fd for fd in comers if fd in ready or comers[fd][1] < time.monotonic()]:
                    self._greet(comers.pop(fd)[0])
                with self._changed:
                    if self._client is not None and self._client.fileno() == attached:
                        self._carry(ready.get(attached, 0))
                    if self._typed:
                        self._type()
        finally:
            with self._changed:
                self._let_go()
                self._close_left()
            for comer, _deadline in comers.values():
                comer.close()

    def _close_left(self) -> None:
        while self._left:
            self._left.pop().close()

    def _accept(self, comers: dict[int, tuple[socket.socket, float]]) -> None:
        with contextlib.suppress(OSError):
            comer, _address = self._listener.accept()
            comer.setblocking(False)  # noqa: FBT003
            if local_socket.peer_uid(comer) not in {os.geteuid(), 0}:
                comer.close()  # the socket's mode has kept everybody else out already
                return
            comers[comer.fileno()] = (comer, time.monotonic() + _HELLO_SECONDS)

    def _greet(self, comer: socket.socket) -> None:
        """Take a terminal on that has said its first word, in the place of the one before."""
        try:
            word = wire.read_hello(comer.recv(wire.MAX_PACKET))
            if self._terminal and not word.keys:
                comer.send(wire.REFUSED + _NO_TERMINAL.encode())
                raise ValueError("not a terminal")
            with self._changed:
                comer.send(wire.welcome(terminal=self._terminal))
                self._let_go(wire.TAKEN)
                self._client = comer
                # What was asked of another terminal, or of none, is not to be answered by this one.
                self._queue(EscapeGuard(quiet=True).feed(self._output.recent()))
                self._resize(word.size, redraw=True)
        except (OSError, ValueError):
            comer.close()

    def _carry(self, events: int) -> None:
        """Move what can be moved to and from the attached terminal; the lock is held."""
        assert self._client is not None  # noqa: S101 - for the type checker: the caller has looked
        try:
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._typed:
                self._hear(self._client.recv(wire.MAX_PACKET))
            elif events & (select.POLLHUP | select.POLLERR):
                raise ConnectionResetError  # and is let go of like one that breaks
            while self._unsent:
                packet = self._unsent[0]
                self._client.send(packet)
                self._unsent.popleft()
                if packet[:1] == wire.OUTPUT:
                    self._unsent_bytes -= len(packet) - 1
                self._changed.notify_all()
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self._let_go()

    def _hear(self, packet: bytes) -> None:
        """Take in a word of the attached terminal's; raises ``ValueError`` for none of those there are."""
        kind = packet[:1]
        if kind == wire.KEYS and self._terminal:
            self._typed = packet[1:]
        elif kind == wire.SIZE:
            self._resize(wire.read_size(packet), redraw=False)
        else:
            raise ValueError("not a word of a terminal")

    def _resize(self, size: tuple[int, int], *, redraw: bool) -> None:
        rows, columns = size
        if redraw and size == self._sizes[-1]:
            # A program draws anew when its terminal changes its size, and this one's has not.
            self._sizes.append((rows, columns - 1 if columns > 1 else columns + 1))
        self._sizes.append(size)
        with contextlib.suppress(BlockingIOError):
            os.write(self._resized_end, b"\0")

    def _type(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._typed = self._typed[os.write(self._keys_end, self._typed) :]


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    stack.callback(os.close, read_end)
    stack.callback(os.close, write_end)
    return read_end, write_end
