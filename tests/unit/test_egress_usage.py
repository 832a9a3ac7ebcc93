"""What answers say they used: by each API, streamed and whole, however cut, and with no word of content."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bot_bottle.egress.frames import FrameReader, frame
from bot_bottle.egress.json_pluck import Pluck
from bot_bottle.egress.metering import hears_messages
from bot_bottle.egress.routes import USAGE_API_NAMES
from bot_bottle.egress.usage import USAGE_APIS, EventStream, JsonAnswer
from bot_bottle.usage import MAX_MODELS, OTHERS, Usage, UsedByModel, usage_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bot_bottle.egress.routes import UsageApiName

FAKE = json.dumps({"usage": {"input_tokens": 999_999, "prompt_tokens": 999_999}})


def event(value: Mapping[str, object], *, name: bool = True, end: str = "\n") -> str:
    first = f"event: {value['type']}{end}" if name and "type" in value else ""
    return f"{first}data: {json.dumps(value)}{end}{end}"


#: As the API's documentation shows them; the numbers of a stream are cumulative.
MESSAGES_STREAM: list[dict[str, object]] = [
    {
        "type": "message_start",
        "message": {
            "type": "message",
            "model": "model-4-8-20260101",
            "content": [],
            "usage": {
                "input_tokens": 25,
                "cache_creation_input_tokens": 100,
                "cache_read_input_tokens": 1000,
                "cache_creation": {"ephemeral_5m_input_tokens": 100},
                "output_tokens": 1,
            },
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": FAKE}},
    {"type": "content_block_stop", "index": 0, "usage": {"output_tokens": 777}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 42}},
    {"type": "message_stop"},
]
RESPONSES_STREAM: list[dict[str, object]] = [
    {"type": "response.created", "response": {"model": "gpt-x", "usage": None, "output": []}},
    {"type": "response.output_text.delta", "delta": FAKE},
    {
        "type": "response.completed",
        "response": {
            "output": [{"type": "message", "content": [{"text": FAKE, "usage": {"input_tokens": 5}}]}],
            "usage": {
                "input_tokens": 81,
                "input_tokens_details": {"cached_tokens": 64},
                "output_tokens": 20,
                "output_tokens_details": {"reasoning_tokens": 12},
                "total_tokens": 101,
            },
            "model": "gpt-x",
        },
    },
]
CHAT_STREAM: list[dict[str, object]] = [
    {"object": "chat.completion.chunk", "model": "chat-y", "choices": [{"delta": {"content": FAKE}}]},
    {
        "object": "chat.completion.chunk",
        "model": "chat-y",
        "choices": [],
        "usage": {
            "prompt_tokens": 11,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    },
]
CONTENT_STREAM: list[dict[str, object]] = [
    {
        "modelVersion": "gen-z",
        "candidates": [{"content": {"parts": [{"text": FAKE}]}}],
        "usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 2, "thoughtsTokenCount": 30},
    },
    {
        "modelVersion": "gen-z",
        "usageMetadata": {
            "promptTokenCount": 11,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 30,
        },
    },
]
STREAMS: list[tuple[UsageApiName, list[dict[str, object]], Usage]] = [
    ("messages", MESSAGES_STREAM, Usage("model-4-8-20260101", 1125, 1000, 42)),
    ("responses", RESPONSES_STREAM, Usage("gpt-x", 81, 64, 20)),
    ("chat-completions", CHAT_STREAM, Usage("chat-y", 11, 3, 5)),
    ("generate-content", CONTENT_STREAM, Usage("gen-z", 11, 4, 35)),
]
WHOLE: list[tuple[UsageApiName, object]] = [
    (
        "messages",
        {
            "type": "message",
            "model": "model-4-8-20260101",
            "content": [{"type": "text", "text": FAKE}],
            "usage": {
                "input_tokens": 25,
                "cache_creation_input_tokens": 100,
                "cache_read_input_tokens": 1000,
                "output_tokens": 42,
            },
        },
    ),
    ("responses", RESPONSES_STREAM[-1]["response"]),
    ("chat-completions", {**CHAT_STREAM[-1], "object": "chat.completion"}),
    ("generate-content", CONTENT_STREAM[-1]),
]


def read(reader: EventStream | JsonAnswer, data: bytes, step: int) -> Usage | None:
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    return reader.usage()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("api", "events", "usage"), STREAMS)
def test_a_stream_is_read_however_it_is_cut(
    api: UsageApiName, events: list[dict[str, object]], usage: Usage, end: str
) -> None:
    text = "".join(
        [f": hello{end}{end}", *(event(one, end=end) for one in events), f"data: [DONE]{end}{end}"]
    )
    for step in (1, 2, 3, 17, 100_000):
        assert read(EventStream(USAGE_APIS[api]), text.encode(), step) == usage


@pytest.mark.parametrize(("api", "events", "usage"), STREAMS)
def test_a_stream_whose_last_event_has_no_end_and_no_names_is_read_too(
    api: UsageApiName, events: list[dict[str, object]], usage: Usage
) -> None:
    text = "".join(event(one, name=False) for one in events).rstrip("\n")
    assert read(EventStream(USAGE_APIS[api]), text.encode(), 5) == usage


@pytest.mark.parametrize(("api", "answer"), WHOLE)
def test_an_answer_in_one_piece_says_the_same(api: UsageApiName, answer: object) -> None:
    expected = {name: usage for name, _events, usage in STREAMS}[api]
    if api == "generate-content":
        expected = expected._replace(output=35)
    for step in (1, 13, 100_000):
        assert read(JsonAnswer(USAGE_APIS[api]), json.dumps(answer, indent=2).encode(), step) == expected


def test_data_may_stand_on_several_lines_and_an_event_be_as_long_as_it_likes() -> None:
    api = USAGE_APIS["responses"]
    lines = json.dumps(RESPONSES_STREAM[-1], indent=1).splitlines()
    text = "".join(f"data:{line}\n" for line in lines) + "\n"
    assert read(EventStream(api), text.encode(), 4) == Usage("gpt-x", 81, 64, 20)
    long = {
        "type": "response.completed",
        "response": {"output": "x" * 3_000_000, "usage": {"input_tokens": 7}},
    }
    assert read(EventStream(api), event(long).encode(), 65536) == Usage("", 7, 0, 0)


def test_a_stream_that_breaks_off_tells_what_it_had_told() -> None:
    api = USAGE_APIS["messages"]
    text = (
        event(MESSAGES_STREAM[0]) + event(MESSAGES_STREAM[3]) + 'data: {"type":"message_delta","usage":{"out'
    )
    assert read(EventStream(api), text.encode(), 9) == Usage("model-4-8-20260101", 1125, 1000, 1)


def test_an_answer_that_used_nothing_or_says_nothing_is_none() -> None:
    for name in USAGE_API_NAMES:
        api = USAGE_APIS[name]
        for text in (
            b"",
            b"{}",
            b"[1,2",
            b'{"error":{"message":"no"}}',
            b'{"usage":{"input_tokens":0}}',
            b"\0\xff",
        ):
            assert read(JsonAnswer(api), text, 1) is None
            assert read(EventStream(api), b"data: " + text + b"\n\n", 1) is None
    assert read(JsonAnswer(USAGE_APIS["messages"]), b'{"input_tokens": 12}', 1) is None  # count_tokens


@pytest.mark.parametrize("model", ["x" * 101, "a b", "a\u001b[2J", "\u202egpt", "-x", "", 5])
def test_a_model_of_an_odd_name_is_none(model: object) -> None:
    text = json.dumps({"model": model, "usage": {"prompt_tokens": 3}}).encode()
    assert read(JsonAnswer(USAGE_APIS["chat-completions"]), text, 8) == Usage("", 3, 0, 0)


def frames(messages: Iterable[str], *, cut: int = 0) -> bytes:
    """Write messages of a server's, each in frames of ``cut`` bytes with a ping amid them."""
    out = b""
    for message in messages:
        data = message.encode()
        pieces = [data[at : at + cut] for at in range(0, len(data), cut)] if cut else [data]
        for number, piece in enumerate(pieces):
            out += frame(0 if number else 1, piece, final=number == len(pieces) - 1)
            out += frame(9, b'{"usage":{"input_tokens":5}}')
    return out


@pytest.mark.parametrize("cut", [0, 7])
def test_a_websocket_tells_once_an_answer(cut: int) -> None:
    told: list[Usage] = []
    hear = hears_messages("responses", told.append)
    data = frames([json.dumps(one) for one in (*RESPONSES_STREAM, *RESPONSES_STREAM)], cut=cut)
    reader = FrameReader(masked=False)
    for at in range(0, len(data), 11):
        for one in reader.feed(data[at : at + 11]):
            hear(one)
    assert told == [Usage("gpt-x", 81, 64, 20)] * 2


def test_a_reader_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_pluck: Pluck, _data: bytes) -> None:
        raise RecursionError

    told: list[Usage] = []
    hear = hears_messages("responses", told.append)
    events = list(FrameReader(masked=False).feed(frames([json.dumps(RESPONSES_STREAM[-1])])))
    monkeypatch.setattr(Pluck, "feed", fail)
    for one in events:
        hear(one)
    monkeypatch.undo()
    for one in events:
        hear(one)
    assert told == []


def test_sums_are_by_model_and_of_a_bounded_number_of_them() -> None:
    used = UsedByModel()
    assert not used
    for number in range(MAX_MODELS + 10):
        used.add(Usage(f"m{number}", 10, 4, 1))
    used.add(Usage("m0", 5, 0, 5))
    assert len(used.models) == MAX_MODELS + 1
    assert used.models[OTHERS].answers == 10
    assert used.models["m0"].to_json() == {
        "answers": 2,
        "input_tokens": 15,
        "cached_tokens": 4,
        "output_tokens": 6,
    }
    assert used.to_json()["answers"] == MAX_MODELS + 11
    assert used.to_json()["input_tokens"] == 10 * (MAX_MODELS + 10) + 5


def test_a_record_of_another_event_or_form_says_nothing() -> None:
    assert usage_of({"event": "request", "input_tokens": 5}) is None
    assert usage_of({"event": "usage", "model": None, "input_tokens": "5", "output_tokens": True}) == Usage(
        ""
    )
