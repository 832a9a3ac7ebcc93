"""A sidecar's channel to a launcher it shares no machine with: JSON lines over standard input and output.

In: the config, preceded by its length (8 bytes, big endian), then ``{"event": "sync", "id": N}`` (say when
all that is on record by now has been passed on), ``{"event": "order", "id": N, "order": {...}}`` (carry out
one of the operator's orders) and ``{"event": "stop"}``; the input ends with the launcher.
Out: what the service says, the audit log's own bytes as ``{"event": "audit", "at": OFFSET, "data": ...}``,
one ``{"event": "synced", "id": N}`` for each sync, one ``{"event": "answer", "id": N, "answer": {...}}`` for
each order and, after a stop, ``{"event": "end", "size": BYTES}``.

A launcher that does not read stalls nothing: the log's file is the queue, and at most one message of it is
held in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
from collections import deque
from typing import TYPE_CHECKING

from bot_bottle.sidecar.control import receive_message
from bot_bottle.sidecar.handover import PLACE, take_one

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Callable

    from bot_bottle.audit import AuditLog
    from bot_bottle.sidecar.channel import Message

LENGTH_BYTES = 8
MAX_CONFIG_BYTES = 64 * 1024 * 1024
#: How much is read at a time, in bytes.
_READ = 64 * 1024
#: An order may bring a whole route table, in its own JSON and once more escaped.
_MAX_LINE = 4 * 1024 * 1024
#: How much of the log goes into one message, in bytes.
_PIECE = 48 * 1024
#: How long records may gather before they are passed on, in seconds.
_GATHER_SECONDS = 0.05
#: How long the config may take, in seconds.
_CONFIG_SECONDS = 60.0
#: After the end, how long a launcher may read nothing at all, in seconds.
_PATIENCE_SECONDS = 10.0


class StdioChannel:
    """Such a channel; ``listening`` at ``place`` is where the listeners are handed over."""

    def __init__(self, stdin: int, stdout: int, listening: socket.socket, place: str = PLACE) -> None:
        self._stdin = stdin
        self._outbox = Outbox(stdout)
        self._listening = listening
        self._place = place
        self.private_folder = os.path.dirname(place)  # noqa: PTH120 - as in handover.py
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_end: Callable[[], None] = lambda: None
        self._on_message: Callable[[Message, list[int]], None] = lambda _message, _fds: None
        self._line = b""
        self._gathering = False
        self._launcher_gone = False

    def config_is_due(self) -> bool:
        """Tell that it is here: the launcher sends it before it starts the container."""
        return False

    def read_config(self) -> bytes:
        """Read the config and not a byte more; raises ``ValueError`` where it is cut short or too long."""
        length = int.from_bytes(self._exactly(LENGTH_BYTES), "big")
        if length > MAX_CONFIG_BYTES:
            raise ValueError("the config is too long")
        return self._exactly(length)

    def say(self, message: Message) -> None:
        """Send one message: at once while nothing is served yet, after that as soon as it can be."""
        self._outbox.add(message)
        if self._loop is None:
            self._outbox.send_all()
        else:
            self._wake()

    def attend(
        self,
        loop: asyncio.AbstractEventLoop,
        audit: AuditLog,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        """Hear the launcher and the doorkeeper, and pass the log on from now on."""
        self._loop, self._on_message, self._on_end = loop, on_message, on_end
        for fd in (self._stdin, self._outbox.fd):
            os.set_blocking(fd, False)
        self._outbox.log_fd = audit.watch(self._on_record)
        loop.add_reader(self._stdin, self._hear)
        loop.add_reader(self._listening.fileno(), self._take_listeners, on_message)
        self._wake()

    def close(self) -> None:
        """Pass on what is left of the log, as long as the launcher takes it, and say how long the log is."""
        if self._loop is None or self._launcher_gone:
            return
        self._outbox.end()
        poller = select.poll()
        poller.register(self._stdin, select.POLLIN)
        poller.register(self._outbox.fd, select.POLLOUT)
        with contextlib.suppress(OSError):
            while self._outbox.wants:
                ready = {fd for fd, _event in poller.poll(_PATIENCE_SECONDS * 1000)}
                if not ready or (self._stdin in ready and not os.read(self._stdin, _READ)):
                    return
                if self._outbox.fd in ready:
                    self._outbox.step()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            # A launcher that was killed before its container started leaves an input that never ends.
            if not select.select([self._stdin], [], [], _CONFIG_SECONDS)[0]:
                raise ValueError("the config did not come")
            more = os.read(self._stdin, count - len(data))
            if not more:
                raise ValueError("the config was cut short")
            data += more
        return data

    # In.

    def _hear(self) -> None:
        try:
            data = os.read(self._stdin, _READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._launcher_gone = True
            self._end()
            return
        *lines, self._line = (self._line + data).split(b"\n")
        try:
            for line in lines:
                self._obey(json.loads(line))
            if len(self._line) > _MAX_LINE:
                raise ValueError("an endless line")
        except (ValueError, TypeError, KeyError):
            self._end()  # whoever writes this is no launcher of ours

    def _obey(self, message: Message) -> None:
        if message["event"] == "sync":
            self._outbox.sync(message["id"])
            self._wake()
        elif message["event"] == "order":
            self._on_message(message, [])
        elif message["event"] == "stop":
            self._end()
        else:
            raise ValueError("an unknown message")

    def _end(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._stdin)
        self._on_end()

    def _take_listeners(self, on_message: Callable[[Message, list[int]], None]) -> None:
        if self._loop is None:
            return
        self._loop.remove_reader(self._listening.fileno())
        try:
            with take_one(self._listening, self._place) as doorkeeper:
                doorkeeper.settimeout(_PATIENCE_SECONDS)
                received = receive_message(doorkeeper)
            if received is None:
                raise ValueError("it left without them")
        except (OSError, ValueError, TypeError) as error:
            self.say({"event": "error", "message": f"the listeners were not handed over: {error}"})
            return
        on_message(*received)

    # Out.

    def _on_record(self) -> None:
        if not self._gathering and self._loop is not None:
            self._gathering = True
            self._loop.call_later(_GATHER_SECONDS, self._wake)

    def _wake(self) -> None:
        self._gathering = False
        if self._loop is not None and self._outbox.wants:
            self._loop.add_writer(self._outbox.fd, self._step)

    def _step(self) -> None:
        """Send one piece, so that whoever waits for the data plane waits for no more than that."""
        assert self._loop is not None  # noqa: S101 - only the loop calls this
        try:
            self._outbox.step()
        except OSError:
            self._loop.remove_writer(self._outbox.fd)
            self._launcher_gone = True
            self._end()
            return
        if not self._outbox.wants:
            self._loop.remove_writer(self._outbox.fd)


class Outbox:
    """What is still to be written to ``fd``: messages, the log so far, answers that wait for the log."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        #: The log's file, once it is to be passed on.
        self.log_fd = -1
        self._pending = memoryview(b"")
        self._messages: deque[Message] = deque()
        #: (size of the log up to which all must have been passed on, what is to be said then)
        self._after: deque[tuple[int, Message]] = deque()
        self._passed = 0

    @property
    def wants(self) -> bool:
        """Tell whether there is anything to write."""
        return bool(self._pending or self._messages or self._after) or self._size() > self._passed

    def add(self, message: Message) -> None:
        """Send a message as soon as possible."""
        self._messages.append(message)

    def sync(self, number: object) -> None:
        """Say ``synced`` once all that is on record by now has been passed on."""
        self._after.append((self._size(), {"event": "synced", "id": number}))

    def end(self) -> None:
        """Say how long the log is, once all of it has been passed on."""
        size = self._size()
        self._after.append((size, {"event": "end", "size": size}))

    def step(self) -> None:
        """Write as much of one message as is taken; raises ``OSError`` where nobody reads any more."""
        if not self._pending:
            self._pending = memoryview(self._next())
        if self._pending:
            with contextlib.suppress(BlockingIOError):
                self._pending = self._pending[os.write(self.fd, self._pending) :]

    def send_all(self) -> None:
        """Write everything, waiting for it to be taken."""
        while self.wants:
            self.step()

    def _next(self) -> bytes:
        if self._messages:
            return _line(self._messages.popleft())
        if self._after and self._after[0][0] <= self._passed:
            return _line(self._after.popleft()[1])
        data = os.pread(self.log_fd, _PIECE, self._passed) if self.log_fd >= 0 else b""
        if not data:
            return b""
        at, self._passed = self._passed, self._passed + len(data)
        # Records are ASCII; latin-1 also brings across whatever a broken disk made of them.
        return _line({"event": "audit", "at": at, "data": data.decode("latin-1")})

    def _size(self) -> int:
        return os.fstat(self.log_fd).st_size if self.log_fd >= 0 else 0


def _line(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"
