"""The MCP endpoint (streamable HTTP), in a process of its own that holds nothing worth having.

What reads an agent's HTTP and JSON-RPC here is a tower of libraries. It stands beside the sidecar and never
in it: this process gets connections and gives calls over one socket, has no credential, and shuts itself in
before it reads a byte (:mod:`bot_bottle.supervise.confine`). What may be asked is judged by the sidecar.

Each request stands alone (no session, no event stream), so an agent can hold nothing here but what is
being answered; both are options that the protocol leaves to the server (MCP 2025-06-18, Transports).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from typing import TYPE_CHECKING, Any, cast

import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from uvicorn.protocols.http.h11_impl import H11Protocol

from bot_bottle import __version__
from bot_bottle.egress.hosts import is_ip_literal, parse_authority
from bot_bottle.sidecar.control import receive_or_end, send_message
from bot_bottle.supervise.tools import INSTRUCTIONS, TOOLS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/mcp"
_MAX_BODY = 64 * 1024
_MAX_HEAD = 16 * 1024
#: What one message to the sidecar may hold; a control message has 64 KiB.
_MAX_CALL = 60 * 1024


class Line:
    """The way to the sidecar: calls out, answers and connections in."""

    def __init__(self, control: socket.socket, on_connection: Callable[[socket.socket], None]) -> None:
        self._control = control
        self._on_connection = on_connection
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[dict[str, object]]] = {}
        self.gone = asyncio.get_running_loop().create_future()
        control.setblocking(False)  # noqa: FBT003 - the library's signature
        asyncio.get_running_loop().add_reader(control.fileno(), self._hear)

    async def call(self, tool: str, arguments: dict[str, Any]) -> dict[str, object]:
        """Have the sidecar carry a call out; raises ``ValueError`` where it cannot be asked."""
        number = next(self._numbers)
        message: dict[str, object] = {"call": number, "tool": tool, "arguments": arguments}
        if len(json.dumps(message)) > _MAX_CALL:
            raise ValueError(f"a call has at most {_MAX_CALL} bytes")
        future: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            send_message(self._control, message)
            return await future
        except OSError:
            raise ValueError("nobody can be asked at the moment; try again later") from None
        finally:
            self._waiting.pop(number, None)
            # An agent that hung up waits for nothing; the sidecar forgets it too.
            if not future.done() or future.cancelled():
                with contextlib.suppress(OSError):
                    send_message(self._control, {"cancel": number})

    def _hear(self) -> None:
        try:
            received = receive_or_end(self._control)
        except BlockingIOError:
            return
        if received is None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            if not self.gone.done():
                self.gone.set_result(None)
            return
        message, fds = received
        for fd in fds:
            self._on_connection(socket.socket(fileno=fd))
        future = self._waiting.get(cast("int", message.get("call")))
        answer = message.get("answer")
        if future is not None and not future.done() and isinstance(answer, dict):
            future.set_result(answer)


def make_server(call: Callable[[str, dict[str, Any]], Awaitable[dict[str, object]]]) -> Server[Any]:
    """Make the MCP server; ``call`` carries each tool call out."""

    async def list_tools(_context: object, _params: object) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(name=tool.name, description=tool.description, input_schema=tool.schema)
                for tool in TOOLS
            ]
        )

    async def call_tool(_context: object, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            answer = await call(params.name, params.arguments or {})
        except ValueError as error:
            answer = {"status": "error", "message": str(error)}
        text = types.TextContent(type="text", text=json.dumps(answer, indent=1))
        return types.CallToolResult(content=[text], is_error=answer.get("status") == "error")

    return Server(
        "bot-bottle",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def only_posts(inner: ASGIApp) -> ASGIApp:
    """Let POST to :data:`PATH` through and nothing else: there are no streams and no sessions to end.

    No page that a browser in the bottle has open gets through either (MCP 2025-06-18, Transports, Security
    Warning): a browser says where the page is from, and by what name it believes to ask.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status = 404 if scope["path"] not in {PATH, f"{PATH}/"} else 405
        if status == 405 and not _is_a_program(scope["headers"]):
            status = 403
        elif status == 405 and scope["method"] == "POST":
            await inner(scope, receive, send)
            return
        headers = [(b"content-length", b"0"), *([(b"allow", b"POST")] if status == 405 else [])]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return app


def _is_a_program(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell a program of the bottle's from a page: no header of it names a site, and it asks an address."""
    found = {name.lower(): value.decode("latin-1") for name, value in headers}
    with contextlib.suppress(ValueError):
        host = parse_authority(found.get(b"host", "")).host
        return b"origin" not in found and (host == "localhost" or is_ip_literal(host))
    return False


async def serve(control: socket.socket, ready: Callable[[], None]) -> None:
    """Serve connections that come over ``control`` until it ends; ``ready`` is called before the first."""

    async def call(tool: str, arguments: dict[str, Any]) -> dict[str, object]:
        return await line.call(tool, arguments)

    manager = StreamableHTTPSessionManager(
        make_server(call),
        json_response=True,
        stateless=True,
        max_request_body_size=_MAX_BODY,
    )
    config = uvicorn.Config(
        only_posts(manager.handle_request),
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_MAX_HEAD,
        ws="none",
    )
    config.load()
    state = uvicorn.server.ServerState()
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = set()

    def take(sock: socket.socket) -> None:
        protocol = H11Protocol(config=config, server_state=state, app_state={}, _loop=loop)
        task = loop.create_task(loop.connect_accepted_socket(lambda: protocol, sock))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with manager.run():
        ready()
        line = Line(control, take)
        await line.gone
