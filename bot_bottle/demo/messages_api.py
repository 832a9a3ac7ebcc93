"""A scripted model: answers Anthropic's Messages API the way the real one streams, from a fixed script.

Wire format: server-sent events ``message_start``, ``content_block_start``, ``content_block_delta``,
``content_block_stop``, ``message_delta``, ``message_stop`` (Anthropic API reference, "Streaming messages").
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.demo.upstreams import Answer, Seen, json_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

Json: TypeAlias = dict[str, object]


class ScriptedModel:
    """Ask once for ``tool`` with ``tool_input`` where a client offers it, then answer ``final_text``.

    Without a ``tool``, and to every request that offers no such tool, it answers ``final_text`` at once. A
    request that carries no credential is refused as the real API does.
    """

    def __init__(self, final_text: str, *, tool: str = "", tool_input: Json | None = None) -> None:
        self._final_text = final_text
        self._tool = tool
        self._tool_input = tool_input or {}

    def __call__(self, seen: Seen) -> Answer:
        """Handle one request."""
        if not (seen.values("authorization") or seen.values("x-api-key")):
            return _error(401, "authentication_error", "no credential was sent")
        path = seen.target.partition("?")[0]
        if seen.method != "POST" or path not in {"/v1/messages", "/v1/messages/count_tokens"}:
            return _error(404, "not_found_error", f"{seen.method} {path} is not scripted")
        try:
            request = json.loads(seen.body)
        except ValueError:
            return _error(400, "invalid_request_error", "the body is not JSON")
        if path.endswith("count_tokens"):
            return json_answer({"input_tokens": 12})
        content = self._content(request)
        if request.get("stream"):
            return Answer(content_type="text/event-stream", body=_stream(request, content))
        return json_answer(_message(request, content))

    def _content(self, request: Json) -> Json:
        if self._tool and self._tool in _offered_tools(request) and not tool_results(request):
            return {"type": "tool_use", "id": "toolu_scripted", "name": self._tool, "input": self._tool_input}
        return {"type": "text", "text": self._final_text}


def tool_results(request: Json) -> list[str]:
    """Give the text of every tool result a Messages API request carries, in order."""
    found: list[str] = []
    for block in _blocks(request):
        if block.get("type") == "tool_result":
            content = block.get("content")
            if isinstance(content, str):
                found.append(content)
            elif isinstance(content, list):
                found.extend(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return found


def _blocks(request: Json) -> Iterator[Json]:
    messages = request.get("messages")
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else []:
            if isinstance(block, dict):
                yield block


def _offered_tools(request: Json) -> set[str]:
    tools = request.get("tools")
    return (
        {str(tool.get("name")) for tool in tools if isinstance(tool, dict)}
        if isinstance(tools, list)
        else set()
    )


def _message(request: Json, content: Json | None) -> Json:
    stop = None if content is None else "tool_use" if content["type"] == "tool_use" else "end_turn"
    return {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": request.get("model", "scripted"),
        "content": [] if content is None else [content],
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": 12, "output_tokens": 8},
    }


def _stream(request: Json, content: Json) -> Iterator[bytes]:
    yield _event("message_start", message=_message(request, None))
    if content["type"] == "tool_use":
        start: Json = {**content, "input": {}}
        deltas: list[Json] = [{"type": "input_json_delta", "partial_json": json.dumps(content["input"])}]
    else:
        start = {"type": "text", "text": ""}
        words = str(content["text"]).split(" ")
        deltas = [
            {"type": "text_delta", "text": word if i == 0 else f" {word}"} for i, word in enumerate(words)
        ]
    yield _event("content_block_start", index=0, content_block=start)
    for delta in deltas:
        yield _event("content_block_delta", index=0, delta=delta)
    yield _event("content_block_stop", index=0)
    stop = _message(request, content)["stop_reason"]
    yield _event(
        "message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": 8}
    )
    yield _event("message_stop")


def _event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _error(status: int, kind: str, message: str) -> Answer:
    return json_answer({"type": "error", "error": {"type": kind, "message": message}}, status)
