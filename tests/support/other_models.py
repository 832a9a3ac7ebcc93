"""A scripted model behind two more interfaces: Google's generateContent and OpenAI's chat completions.

Both stream server-sent events (ai.google.dev, "Generating content"; OpenAI API reference, "Chat streaming").
"""

from __future__ import annotations

import json

from bot_bottle.demo.upstreams import Answer, Seen, json_answer

GOOGLE = "generativelanguage.googleapis.com"
CHAT = "/v1/chat/completions"


def google(seen: Seen, text: str) -> Answer:
    """Answer ``models/NAME:generateContent``, streamed or not; refuses a request without a key."""
    if not seen.values("x-goog-api-key"):
        return json_answer({"error": {"code": 403, "message": "no key was sent"}}, 403)
    answer = {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 5, "totalTokenCount": 16},
        "modelVersion": "gemini-scripted",
    }
    if ":countTokens" in seen.target:
        return json_answer({"totalTokens": 11})
    if ":streamGenerateContent" in seen.target:
        return Answer(content_type="text/event-stream", body=iter([_event(answer)]))
    return json_answer(answer)


def chat(seen: Seen, text: str) -> Answer:
    """Answer a chat completion, streamed or not; refuses a request without a key."""
    if not seen.values("authorization"):
        return json_answer({"error": {"message": "no key was sent"}}, 401)
    asked = json.loads(seen.body)
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    whole = {"id": "chatcmpl-1", "created": 1, "model": "scripted"}
    if not asked.get("stream"):
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return json_answer({**whole, "object": "chat.completion", "choices": [choice], "usage": usage})
    piece = {**whole, "object": "chat.completion.chunk"}
    said = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    events = [
        {**piece, "choices": [said]},
        {**piece, "choices": [last]},
        {**piece, "choices": [], "usage": usage},
    ]
    return Answer(content_type="text/event-stream", body=iter([*map(_event, events), b"data: [DONE]\n\n"]))


def _event(value: object) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()
