"""A connection of the agent's, led to the process that speaks MCP; nothing of it is read here."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_WAITING = 128 * 1024


class Relay(asyncio.Protocol):
    """The agent's end; ``hand_over`` gives the far socket away, or raises ``OSError``."""

    def __init__(
        self,
        hand_over: Callable[[socket.socket], None],
        on_end: Callable[[Relay], None],
        spawn: Callable[[Relay, socket.socket], None],
    ) -> None:
        self._hand_over = hand_over
        self._on_end = on_end
        self._spawn = spawn
        self._near: asyncio.Transport | None = None
        self._far: asyncio.Transport | None = None
        self._waiting = bytearray()
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Make a pair, give one end away, and join the other."""
        self._near = cast("asyncio.Transport", transport)
        ours, theirs = socket.socketpair()
        try:
            self._hand_over(theirs)
        except OSError:
            ours.close()
            self.drop()
            return
        finally:
            theirs.close()
        ours.setblocking(False)  # noqa: FBT003 - the library's signature
        self._spawn(self, ours)

    def data_received(self, data: bytes) -> None:
        """Pass on, or hold a little until the far end is joined."""
        if self._far is not None:
            self._far.write(data)
            return
        self._waiting += data
        if len(self._waiting) > _MAX_WAITING:
            self.drop()

    def eof_received(self) -> bool:
        """An agent that has said all still gets its answer."""
        if self._far is not None and self._far.can_write_eof():
            self._far.write_eof()
        return True

    def pause_writing(self) -> None:
        """The agent does not read."""
        if self._far is not None:
            self._far.pause_reading()

    def resume_writing(self) -> None:
        """The agent reads again."""
        if self._far is not None:
            self._far.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The agent is gone."""
        self._near = None
        self.drop()

    def joined(self, far: asyncio.Transport) -> None:
        """Take the far end."""
        if self._over:
            far.abort()
            return
        self._far = far
        if self._waiting:
            far.write(bytes(self._waiting))
            self._waiting.clear()

    def answer(self, data: bytes) -> None:
        """Pass the far end's bytes to the agent."""
        if self._near is not None:
            self._near.write(data)

    def hold(self, *, hold: bool) -> None:
        """The far end does not keep up, or does again."""
        if self._near is not None:
            self._near.pause_reading() if hold else self._near.resume_reading()

    def finish(self) -> None:
        """The far end is done: send what is left and close."""
        self._far = None
        if self._near is not None:
            self._near.close()
        self._end()

    def drop(self) -> None:
        """Let go of both ends."""
        if self._near is not None:
            self._near.abort()
        if self._far is not None:
            self._far.abort()
        self._far = None
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._on_end(self)


class FarEnd(asyncio.Protocol):
    """The end that leads to the other process."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join."""
        self._relay.joined(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
        """Pass on."""
        self._relay.answer(data)

    def pause_writing(self) -> None:
        """The other process does not read."""
        self._relay.hold(hold=True)

    def resume_writing(self) -> None:
        """It reads again."""
        self._relay.hold(hold=False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """It is done with this connection."""
        self._relay.finish()
