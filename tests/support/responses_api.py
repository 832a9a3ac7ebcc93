"""A scripted model behind OpenAI's Responses API and ChatGPT's Codex backend, from a fixed script.

Wire format: the same JSON events as server-sent events or as WebSocket messages, the latter asked for by
``response.create`` messages (OpenAI API reference, "Responses", streaming events and WebSocket mode).
"""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.demo.upstreams import Answer, Seen, json_answer
from tests.support import websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

Json: TypeAlias = dict[str, object]

HOSTS = ("chatgpt.com", "api.openai.com")
#: Where the program trades its refresh token for new tokens (RFC 6749, 6).
TOKEN_HOST = "auth.openai.com"
_PATIENCE = 120.0
_RESPONSES = frozenset({"/backend-api/codex/responses", "/v1/responses"})
_MODELS = frozenset({"/backend-api/codex/models", "/v1/models"})


class ScriptedResponses:
    """Ask once for ``command`` to be run in a shell, then answer ``final_text``, word by word.

    A request without a credential is refused as the real API does. ``websocket=False`` answers handshakes
    with 426, which the program takes as "use HTTP". With ``hold`` nothing comes after the first word until
    :meth:`release` is called.
    """

    def __init__(
        self, final_text: str, *, command: str = "", websocket: bool = True, hold: bool = False
    ) -> None:
        self._final_text = final_text
        self._command = command
        self._websocket = websocket
        self._released = threading.Event()
        if not hold:
            self._released.set()

    def release(self) -> None:
        """Let the rest of the answer go."""
        self._released.set()

    def __call__(self, seen: Seen) -> Answer:
        """Handle one request."""
        if not seen.values("authorization"):
            return json_answer({"error": {"message": "no credential was sent"}}, 401)
        path = seen.target.partition("?")[0]
        if path == "/backend-api/wham/accounts/check":
            return json_answer(_accounts("".join(seen.values("chatgpt-account-id"))))
        if path in _MODELS:
            return json_answer({"object": "list", "data": []} if path.startswith("/v1") else {"models": []})
        if path not in _RESPONSES:
            return json_answer({"detail": "not scripted"}, 404)
        if websocket.is_handshake(seen):
            return websocket.accept(seen, self._replies) if self._websocket else Answer(status=426)
        events = (
            f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in self._events(seen.body)
        )
        return Answer(content_type="text/event-stream", body=(event.encode() for event in events))

    def _replies(self, message: bytes) -> Iterator[str]:
        if json.loads(message).get("type") == "response.create":
            yield from map(json.dumps, self._events(message))

    def _events(self, body: bytes) -> Iterator[Json]:
        request = json.loads(body)
        answer: Json = {"id": "resp_scripted", "object": "response", "model": "scripted", "output": []}
        yield {"type": "response.created", "response": answer}
        if request.get("generate") is not False:
            yield from self._items(request)
        usage = {"input_tokens": 12, "output_tokens": 8, "total_tokens": 20}
        yield {"type": "response.completed", "response": {**answer, "usage": usage}}

    def _items(self, request: Json) -> Iterator[Json]:
        call = None if not self._command or tool_results(request) else _call(request, self._command)
        if call:
            yield {"type": "response.output_item.added", "output_index": 0, "item": call}
            yield {"type": "response.output_item.done", "output_index": 0, "item": call}
            return
        message: Json = {"type": "message", "role": "assistant", "id": "msg_scripted", "content": []}
        yield {"type": "response.output_item.added", "output_index": 0, "item": message}
        for number, word in enumerate(re.findall(r"\S+\s*", self._final_text)):
            if number:
                self._released.wait(_PATIENCE)
            yield {"type": "response.output_text.delta", "item_id": "msg_scripted", "delta": word}
        whole = [{"type": "output_text", "text": self._final_text, "annotations": []}]
        yield {"type": "response.output_item.done", "output_index": 0, "item": {**message, "content": whole}}


class TokenEndpoint:
    """Gives tokens once it is told which; who asks for them before waits for that."""

    def __init__(self) -> None:
        self._tokens: Json = {}
        self._status = 200
        self._told = threading.Event()

    def give(self, tokens: Json, status: int = 200) -> None:
        """Say what is given, or in which words it is refused; with nothing, that it is still to be said."""
        self._tokens, self._status = tokens, status
        (self._told.set if tokens else self._told.clear)()

    def __call__(self, seen: Seen) -> Answer:
        """Handle one request."""
        if seen.target != "/oauth/token" or seen.method != "POST":
            return json_answer({"error": {"message": "not scripted"}}, 404)
        if not self._told.wait(_PATIENCE):
            return json_answer({"error": {"message": "nothing is scripted"}}, 503)
        return json_answer(self._tokens, self._status)


def tool_results(request: Json) -> list[str]:
    """Give the text of every tool result that a request carries, in order."""
    found = []
    for item in _dicts(request.get("input")):
        if str(item.get("type")).endswith("call_output"):
            output = item.get("output")
            parts = [output] if isinstance(output, str) else [str(x.get("text", "")) for x in _dicts(output)]
            found.append("".join(parts))
    return found


def _call(request: Json, command: str) -> Json | None:
    """Call whichever shell tool the program offers."""
    for tool, namespace in _offered(request):
        name = tool.get("name")
        head = {"id": "fc_scripted", "call_id": "call_scripted", "name": name, "status": "completed"}
        if namespace:
            head["namespace"] = namespace
        if name == "exec_command":
            return {**head, "type": "function_call", "arguments": json.dumps({"cmd": command})}
        if name == "shell_command":
            return {**head, "type": "function_call", "arguments": json.dumps({"command": command})}
        if name == "exec" and tool.get("type") == "custom":
            script = f"text(JSON.stringify(await tools.exec_command({json.dumps({'cmd': command})})))"
            return {**head, "type": "custom_tool_call", "input": script}
    return None


def _offered(request: Json) -> Iterator[tuple[Json, str]]:
    """Give every tool, with the namespace it is in; they may stand among the input as well."""
    lists = [request, *(item for item in _dicts(request.get("input")) if item["type"] == "additional_tools")]
    for tool in [tool for item in lists for tool in _dicts(item.get("tools"))]:
        if tool.get("type") != "namespace":
            yield tool, ""
        for inner in _dicts(tool.get("tools")):
            yield inner, str(tool.get("name"))


def _dicts(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _accounts(account_id: str) -> Json:
    entry = {
        "id": account_id,
        "plan_type": "pro",
        "structure": "personal",
        "workspace_backend_origin": "https://chatgpt.com",
        "account_routing_override": "NO_CONSTRAINT",
    }
    return {"accounts": [entry], "account_ordering": [account_id], "default_account_id": account_id}
