"""The control socket of a sidecar in a container, served by the launcher.

No socket of the host's is shown to any container. The launcher's thread takes the operator's orders here and
passes them on over the attached streams (``decisions/0008``); events come from the host's own copy of the
log, so that a reader that does not read holds nothing up there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from bot_bottle.errors import LaunchError
from bot_bottle.sidecar.control_server import ControlServer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from bot_bottle.sidecar.orders import Answer, Order

_STOP_SECONDS = 5.0


class ControlThread:
    """Serves ``listener`` until closed; ``pass_on`` gives the sidecar an order and waits for its answer."""

    def __init__(self, listener: socket.socket, log: Path, pass_on: Callable[[Order], Answer]) -> None:
        """Begin to serve a duplicate of ``listener``; raises ``OSError`` where ``log`` cannot be read."""
        self._listener = listener.dup()
        self._log_fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._pass_on = pass_on
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._server: ControlServer | None = None
        self._thread = threading.Thread(target=self._run, name="bot-bottle-control", daemon=True)
        self._thread.start()

    def grew(self) -> None:
        """Hear, from any thread, that the log has grown."""
        if not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:
                return  # closed just now

    def close(self) -> None:
        """Stop serving; safe to call again, from several threads at a time."""
        with contextlib.suppress(RuntimeError):  # another caller's close has just closed the loop
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_SECONDS)

    def _tell(self) -> None:
        if self._server is not None:
            self._server.grew()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._server = ControlServer(self._answer, self._log_fd)
        await self._server.serve(self._listener)
        await self._stop.wait()
        self._server.close()
        self._server = None
        await asyncio.sleep(0)

    async def _answer(self, order: Order) -> Answer:
        try:
            return await asyncio.to_thread(self._pass_on, order)
        except LaunchError as error:
            return {"ok": False, "error": str(error)}
