"""The control socket: where the operator's other commands reach a running bottle.

A unix socket in the bottle's state folder, which is the operator's alone (0700) and of which a bottle sees
two folders at most, neither of them this one. The launcher binds it; whoever holds the sidecar's ear serves
it: the sidecar itself on this host, the launcher for a sidecar in a container.

JSON lines: one order, one answer. After ``{"order": "events", "from": OFFSET}`` the answer is followed by
the audit log's own bytes from that offset on, as they are written: the record is the stream of events, so
that no two accounts of a bottle can differ and a reader that was cut off goes on from where it was.

Bounded in everything: connections (the one that has waited longest makes room), the length of an order, the
time it may take, what is held for a reader that does not read, and how long that may last.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bot_bottle.sidecar.orders import Answer, Order

MAX_CONNECTIONS = 48
#: Of them, how many may read events, so that there is always room for orders.
MAX_READERS = 32
MAX_ORDER_BYTES = 1024 * 1024
#: How long a connection may be without an order, or with a part of one, in seconds.
_PATIENCE_SECONDS = 30.0
#: How long a reader of events may take nothing at all, in seconds.
_STALLED_SECONDS = 20.0
#: How long records may gather before they are passed on, in seconds.
_GATHER_SECONDS = 0.02
_PIECE = 64 * 1024
_BUFFER_BYTES = 128 * 1024
_PEER = struct.Struct("3i")


class ControlServer:
    """Serves one control socket on the running loop; ``log_fd`` is the audit log, open for reading."""

    def __init__(self, answer: Callable[[Order], Awaitable[Answer]], log_fd: int) -> None:
        self.answer = answer
        self.log_fd = log_fd
        self._loop = asyncio.get_running_loop()
        self._sessions: dict[_Session, None] = {}
        self._readers: dict[_Session, None] = {}
        self._server: asyncio.AbstractServer | None = None
        self._gathering = False

    async def serve(self, listener: socket.socket) -> None:
        """Serve a listening socket; raises ``OSError``."""
        listener.setblocking(False)  # noqa: FBT003 - the library's signature
        self._server = await self._loop.create_unix_server(lambda: _Session(self), sock=listener)

    def close(self) -> None:
        """Stop listening, give readers what is on record by now, and drop everybody."""
        if self._server is not None:
            self._server.close()
        for session in tuple(self._sessions):
            session.finish()
        os.close(self.log_fd)
        self.log_fd = -1

    def grew(self) -> None:
        """Hear, on the loop, that the log has grown."""
        if self._readers and not self._gathering:
            self._gathering = True
            self._loop.call_later(_GATHER_SECONDS, self._pass_on)

    def log_size(self) -> int:
        """Give the log's size in bytes."""
        return os.fstat(self.log_fd).st_size

    def _pass_on(self) -> None:
        self._gathering = False
        for reader in tuple(self._readers):
            reader.pump()

    # The sessions' side.

    def admit(self, session: _Session) -> None:
        """Take a connection; where there are too many, the one goes that has waited longest for nothing."""
        if len(self._sessions) >= MAX_CONNECTIONS:
            waiting = (one for one in self._sessions if one not in self._readers and not one.busy)
            next(waiting, session).drop()
        self._sessions[session] = None

    def begin_reading(self, session: _Session) -> bool:
        """Count a reader of events in, unless there are too many."""
        if len(self._readers) >= MAX_READERS:
            return False
        self._readers[session] = None
        return True

    def leave(self, session: _Session) -> None:
        """Count a connection out; twice is no error."""
        self._sessions.pop(session, None)
        self._readers.pop(session, None)


class _Session(asyncio.Protocol):
    """One connection to the control socket."""

    def __init__(self, server: ControlServer) -> None:
        self.busy = False
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._line = bytearray()
        self._offset = -1
        self._paused = False
        self._going_on = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection of the operator's own; of anybody else's, nothing is even read."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclasses
        if not _is_operators(transport.get_extra_info("socket")):
            self.drop()
            return
        self._transport.set_write_buffer_limits(_BUFFER_BYTES)
        self._server.admit(self)
        self._wait(_PATIENCE_SECONDS)

    def data_received(self, data: bytes) -> None:
        """Gather an order and carry it out; a second one waits until the first is answered."""
        if self._offset >= 0:
            self.drop()  # a reader of events has nothing more to say
            return
        self._line += data
        if len(self._line) > MAX_ORDER_BYTES:
            self._say({"ok": False, "error": f"an order has at most {MAX_ORDER_BYTES} bytes"})
            self.finish()
            return
        self._take_next()

    def eof_received(self) -> bool:
        """Let a client that has said all it will say still get its answer."""
        return self.busy

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the connection."""
        self._transport = None
        self._stop_waiting()
        self._server.leave(self)

    def pause_writing(self) -> None:
        """The client does not read: it gets some time, and no memory of ours."""
        self._paused = True
        self._wait(_STALLED_SECONDS)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._paused = False
        self._stop_waiting()
        if self._offset >= 0:
            self.pump()

    # The server's side.

    def drop(self) -> None:
        """End the connection at once."""
        self._server.leave(self)
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Send what is waiting, the newest events included, and end."""
        if self._transport is None:
            return
        if self._offset >= 0:
            self.pump()
        self._transport.close()

    def pump(self) -> None:
        """Pass events on, as many as the client takes: the log's file is the queue."""
        self._going_on = False
        if self._paused or self._transport is None or self._transport.is_closing():
            return
        data = os.pread(self._server.log_fd, _PIECE, self._offset) if self._server.log_fd >= 0 else b""
        if not data:
            return
        self._offset += len(data)
        self._transport.write(data)
        if len(data) == _PIECE and not self._going_on:
            # One piece at a time: whoever waits for the data plane waits for no more than that.
            self._going_on = True
            self._loop.call_soon(self.pump)

    # Inside.

    def _take_next(self) -> None:
        if self.busy or self._transport is None or b"\n" not in self._line:
            return
        line, _, rest = bytes(self._line).partition(b"\n")
        self._line = bytearray(rest)
        try:
            order = json.loads(line)
        except (ValueError, RecursionError):
            order = None
        if not isinstance(order, dict):
            self._say({"ok": False, "error": "an order is one JSON object on one line"})
            self.finish()
        elif order.get("order") == "events":
            self._begin_events(order.get("from"))
        else:
            self.busy = True
            self._stop_waiting()
            self._task = self._loop.create_task(self._carry_out(order))

    async def _carry_out(self, order: Order) -> None:
        answer = await self._server.answer(order)
        self.busy = False
        self._say(answer)
        if self._transport is not None:
            self._wait(_PATIENCE_SECONDS)
            self._take_next()

    def _begin_events(self, start: object) -> None:
        size = self._server.log_size()
        at = size if start is None else start
        if type(at) is not int or not 0 <= at <= size:
            self._say({"ok": False, "error": f"from: expected an offset of the log, 0 to {size}"})
        elif not self._server.begin_reading(self):
            self._say({"ok": False, "error": f"{MAX_READERS} readers of events are as many as there may be"})
        else:
            self._stop_waiting()
            self._say({"ok": True, "at": at})
            self._offset = at
            self.pump()

    def _say(self, answer: Answer) -> None:
        if self._transport is not None:
            self._transport.write(json.dumps(answer).encode("ascii") + b"\n")

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self._loop.call_later(seconds, self.drop)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_operators(sock: object) -> bool:
    """Tell whether the other end belongs to this very user or to root (unix(7), SO_PEERCRED)."""
    uid = -1
    if hasattr(sock, "getsockopt"):
        with contextlib.suppress(OSError):
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            uid = _PEER.unpack(data)[1]
    return uid in {0, os.geteuid()}
