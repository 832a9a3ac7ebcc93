"""The sidecar's side of supervise: it judges what is asked, puts it on record and waits for a human.

The process that reads the agent's words is another (:mod:`bot_bottle.supervise.mcp_server`), started at the
first knock; what it says is as little to be believed as the agent is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from typing import TYPE_CHECKING

from bot_bottle.process import start_own
from bot_bottle.sidecar.control import control_pair, receive_or_end, send_message
from bot_bottle.supervise.relay import FarEnd, Relay
from bot_bottle.supervise.request import AgentRequest, RequestError, clean, request_id
from bot_bottle.supervise.tools import TOOLS

if TYPE_CHECKING:
    import socket
    import subprocess
    from collections.abc import Callable, Mapping

    from bot_bottle.audit import AuditLog
    from bot_bottle.supervise.ledger import Answer, Ledger

#: How long a call waits for a human before it says "pending", in seconds.
WAIT_SECONDS = 30.0
_MAX_CONNECTIONS = 32
_MAX_CALLS = 64
_ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
#: A process that dies so often within a minute is not started again until the minute is over.
_MAX_STARTS = 5
_STARTS_SECONDS = 60.0
_KINDS = {tool.name: tool.kind for tool in TOOLS}


class Supervisor:
    """Serves the ``supervise`` port of one bottle. Used on the sidecar's loop."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        audit: AuditLog,
        loop: asyncio.AbstractEventLoop,
        routes: Callable[[], object],
        holds: Callable[[str], bool] = lambda _id: False,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """``routes`` gives what the bottle may reach, in the form that the bottle may see.

        ``holds`` tells whether what the request of an id was granted still holds.
        """
        self._ledger = ledger
        self._audit = audit
        self._loop = loop
        self._routes = routes
        self._holds = holds
        self._wait_seconds = wait_seconds
        self._relays: set[Relay] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._calls: dict[int, asyncio.Task[object]] = {}
        self._waiters: dict[str, set[asyncio.Future[Answer]]] = {}
        self._starts: list[float] = []
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # Connections.

    def protocol(self) -> asyncio.Protocol:
        """Give what serves one connection of the agent's."""
        return Relay(self._hand_over, self._relays.discard, self._join)

    def _join(self, relay: Relay, ours: socket.socket) -> None:
        self._relays.add(relay)
        self._spawn(self._loop.create_unix_connection(lambda: FarEnd(relay), sock=ours))

    def _hand_over(self, theirs: socket.socket) -> None:
        if len(self._relays) >= _MAX_CONNECTIONS:
            raise ConnectionRefusedError("too many connections")
        control = self._control or self._start()
        send_message(control, {"event": "connection"}, [theirs.fileno()])

    def _start(self) -> socket.socket:
        now = self._loop.time()
        self._starts = [start for start in self._starts if now - start < _STARTS_SECONDS]
        if len(self._starts) >= _MAX_STARTS:
            raise ConnectionRefusedError("the MCP process ends again and again")
        self._starts.append(now)
        ours, theirs = control_pair()
        try:
            self._process = start_own(
                "bot_bottle.supervise",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                env={"PYTHONDONTWRITEBYTECODE": "1"},
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)  # noqa: FBT003 - the library's signature
        self._control = ours
        self._loop.add_reader(ours.fileno(), self._hear)
        return ours

    def _hear(self) -> None:
        control = self._control
        if control is None:
            return
        try:
            received = receive_or_end(control)
        except BlockingIOError:
            return
        if received is None:
            self._let_go()
            return
        message, fds = received
        for fd in fds:
            os.close(fd)  # it has nothing to give
        self._take(message)

    def _let_go(self) -> None:
        control, self._control = self._control, None
        process, self._process = self._process, None
        if control is not None:
            self._loop.remove_reader(control.fileno())
            control.close()
        for task in tuple(self._calls.values()):
            task.cancel()
        for relay in tuple(self._relays):
            relay.drop()
        if process is not None:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End the other process and every connection; what is open stays on record as open."""
        self._let_go()
        for task in tuple(self._tasks):
            task.cancel()

    # Calls.

    def _take(self, message: Mapping[str, object]) -> None:
        cancelled = message.get("cancel")
        if isinstance(cancelled, int) and (task := self._calls.get(cancelled)) is not None:
            task.cancel()
            return
        number, tool, arguments = (message.get(name) for name in ("call", "tool", "arguments"))
        if not isinstance(number, int) or not isinstance(tool, str) or not isinstance(arguments, dict):
            return
        if len(self._calls) >= _MAX_CALLS or number in self._calls:
            self._reply(number, _error("too many calls are waiting; look with request_status later"))
            return
        task = self._spawn(self._answer_call(number, tool, arguments))
        self._calls[number] = task
        task.add_done_callback(lambda _task: self._calls.pop(number, None))

    async def _answer_call(self, number: int, tool: str, arguments: dict[str, object]) -> None:
        try:
            answer = await self._carry_out(tool, arguments)
        except RequestError as error:
            answer = _error(str(error))
        except Exception as error:  # noqa: BLE001 - fail closed: nothing was asked, nothing is granted
            answer = _error(f"the request failed inside ({type(error).__name__}); nothing was asked")
        self._reply(number, answer)

    async def _carry_out(self, tool: str, arguments: dict[str, object]) -> dict[str, object]:
        kind = _KINDS.get(tool)
        if kind is not None:
            asked, new = self._ledger.ask(
                kind, arguments, new_id=_new_id(), now=int(time.time()), holds=self._holds
            )
            if new:
                self._put_on_record(asked)
            if self._ledger.answer_to(asked.id) is not None:
                return self._status(asked.id)  # granted before, and it holds
            return await self._wait(asked)
        if tool == "list_egress_routes":
            return {"status": "ok", "egress": self._routes()}
        if tool == "request_status":
            return self._status(str(arguments.get("id") or ""))
        names = ", ".join(tool.name for tool in TOOLS)
        raise RequestError(f"there is no tool {clean(tool, 40)!r}; there are {names}")

    def _put_on_record(self, asked: AgentRequest) -> None:
        try:
            self._audit.append("asked", **asked.to_record())
        except OSError:
            self._ledger.forget(asked.id)
            raise RequestError("the request cannot be put on record, so nobody was asked") from None

    async def _wait(self, asked: AgentRequest) -> dict[str, object]:
        future: asyncio.Future[Answer] = self._loop.create_future()
        waiters = self._waiters.setdefault(asked.id, set())
        waiters.add(future)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await future
        except TimeoutError:
            pass
        finally:
            waiters.discard(future)
            if not waiters:
                self._waiters.pop(asked.id, None)
        return self._status(asked.id)

    def _status(self, one: str) -> dict[str, object]:
        if not one:
            return {
                "status": "ok",
                "pending": [{"id": a.id, "asked_for": a.summary} for a in self._ledger.open],
            }
        asked = self._ledger.get(one)
        if asked is None:
            raise RequestError(f"there is no request {clean(one, 20)!r} of this bottle")
        answer = self._ledger.answer_to(one)
        if answer is None:
            return {
                "status": "pending",
                "id": asked.id,
                "asked_for": asked.summary,
                "message": "no human has answered yet; go on without it and ask request_status later",
            }
        return {
            "status": answer.verdict,
            "id": asked.id,
            "asked_for": asked.summary,
            "message": answer.words,
            "holds": answer.terms,
        }

    def _reply(self, number: int, answer: Mapping[str, object]) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):  # a process that does not read has its call run out
                send_message(self._control, {"call": number, "answer": dict(answer)})

    # Egress's side.

    def ask_content(self, host: str, text: str, values: tuple[str, ...]) -> str:
        """Ask whether what was found may go to ``host``; gives what came of asking, for the agent."""
        now = int(time.time())
        asked = AgentRequest(
            id=_new_id(),
            kind="content",
            reason="",
            asked=now,
            host=host,
            text=clean(text, 400),
            values=values,
        )
        if self._ledger.refused(asked):
            return "a human has said no to this"
        try:
            asked, new = self._ledger.add(asked, now)
            if new:
                self._put_on_record(asked)
        except RequestError as error:
            return str(error)
        return f"request {asked.id} waits for a human; once it is approved, send the same again"

    # The operator's side.

    def open_requests(self) -> tuple[AgentRequest, ...]:
        """Those nobody has answered yet, the oldest first."""
        return self._ledger.open

    def answer(self, one: str, answer: Answer) -> AgentRequest:
        """Answer a request and tell whoever waits for it.

        It must be on record already. Raises :class:`RequestError` where it is not open.
        """
        asked = self._ledger.answer(request_id(one), answer)
        for future in self._waiters.get(one, ()):
            if not future.done():
                future.set_result(answer)
        return asked

    def _spawn(self, coroutine: object) -> asyncio.Task[object]:
        task: asyncio.Task[object] = self._loop.create_task(coroutine)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _new_id() -> str:
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(8))


def _error(sentence: str) -> dict[str, object]:
    return {"status": "error", "message": sentence}
