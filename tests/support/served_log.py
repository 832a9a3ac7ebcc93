"""A bottle as other processes meet it: its state folder, its lock, its record and its control socket.

The record and the socket's server are the product's own; nothing is isolated and no agent runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import uvloop

from bot_bottle import bottle_state, paths
from bot_bottle.audit import AuditLog
from bot_bottle.bottle_state import BottleMetadata
from bot_bottle.control_client import control_listener
from bot_bottle.sidecar.control_server import ControlServer
from bot_bottle.supervise.request import read_request

if TYPE_CHECKING:
    from collections.abc import Iterator


class ServedLog:
    """One such bottle; ``orders`` are those that came."""

    def __init__(self, identity: str, log: AuditLog) -> None:
        self.identity = identity
        self.orders: list[dict[str, Any]] = []
        self._log = log
        self._loop = uvloop.new_event_loop()  # as the sidecar's
        self._over = asyncio.Event()
        self._server: ControlServer | None = None

    def append(self, event: str, **fields: Any) -> None:
        """Put something on record, as the sidecar does."""
        self._loop.call_soon_threadsafe(lambda: self._log.append(event, **fields))

    def request(self, **path: Any) -> None:
        """Put the decision on one request on record."""
        base = {"decision": "allow", "method": "GET", "host": "docs.test", "path": "/", "rule": "r"}
        self.append("request", **{**base, **path})

    def ask(self, one: str, **arguments: Any) -> None:
        """Put an agent's request on record; ``kind`` is egress unless it is given."""
        kind = arguments.pop("kind", "egress")
        asked = read_request(kind, {"reason": "to read", **arguments}, new_id=one, now=1)
        self.append("asked", **asked.to_record())

    def _serve(self, listener: Any, ready: threading.Event) -> None:
        async def answer(order: Any) -> dict[str, object]:
            self.orders.append(dict(order))
            return {"ok": True}

        def grew() -> None:
            if self._server is not None:
                self._server.grew()

        async def serve() -> None:
            self._server = ControlServer(answer, self._log.watch(grew))
            await self._server.serve(listener)
            ready.set()
            await self._over.wait()
            self._server.close()
            self._log.close()
            await self._drop()

        self._loop.run_until_complete(serve())
        self._loop.close()

    async def _drop(self) -> None:
        """Let go of every connection: who reads events is still there, and waits for the end."""
        assert self._server is not None
        mine = asyncio.current_task()
        while coming := [one for one in asyncio.all_tasks() if one is not mine]:
            await asyncio.wait(coming)
        for session in tuple(self._server._sessions):
            session.drop()
        for _ in range(3):  # a transport is closed by what it schedules for the loop's next turn
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve it until the body ends, or :meth:`end` is called."""
        ready = threading.Event()
        with control_listener(bottle_state.bottle_state_dir(self.identity)) as listener:
            self._thread = threading.Thread(target=self._serve, args=(listener, ready), daemon=True)
            self._thread.start()
            assert ready.wait(30)
            try:
                yield
            finally:
                self.end()

    def end(self) -> None:
        """End the server as a sidecar ends."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(30)


@contextlib.contextmanager
def served(identity: str = "worker-abcde", *, backend: str = "bubblewrap") -> Iterator[ServedLog]:
    """Make a bottle that seems to run, below ``BOT_BOTTLE_HOME``, while the body runs."""
    bottle_state.create_state(
        BottleMetadata(
            identity=identity,
            agent_name=identity[:-6],
            bottle_name=identity[:-6],
            started_at=bottle_state.utc_now(),
            backend=backend,
        )
    )
    with bottle_state.hold_lock(identity):
        bottle_state.mark_preserved(identity)
        one = ServedLog(identity, AuditLog.open(paths.audit_path(identity)))
        with one.serving():
            one.append("start", identity=identity, routes=0, pid=1)
            yield one
