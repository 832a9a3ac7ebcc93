"""The scanner does the same work for a guess that is right for a part of a guarded value as for a wrong one.

The bottle sees how long its request takes. So what is counted here is what runs, not what comes of it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.own_secrets import OwnSecrets
from bot_bottle.pipelock.session import Session
from bot_bottle.pipelock.stream import StreamScanner
from bot_bottle.secret import Secret
from tests.support.pipelock import scanner

if TYPE_CHECKING:
    from types import FrameType

    from bot_bottle.pipelock.scanner import Scanner

TOKEN = "cUuKKHDwHIioLgrBuQL2InvIeWfhwMiKCOBCjnLU"
HEX = "8f14e45fceea167a5a36dedd4bea2543e0b1c5d2"
#: Of the same kinds, with no run of four in common.
OTHERS = {TOKEN: "pQz7mXvRa9TgYb2sNe4xJd6Wk8Fh3Zt5Vq1GoPyE", HEX: "c7b9d2a60f3e1847b5c92d6e07f8a3194d5b6c7e"}
#: How many runs of four of the value stand in a body at once, up to half of it.
RIGHT = (1, 2, 3, 5)


def work(scanner: Scanner, body: bytes, content_type: str) -> Counter[str]:
    """Count every function that runs while a body is judged, alone and in the window of its client."""
    counts: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            counts[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            counts[getattr(argument, "__qualname__", "?")] += 1

    session = Session(scanner.own)
    stream = StreamScanner(scanner, Context(place="body", content_type=content_type))
    sys.setprofile(note)
    try:
        steps = [stream.feed(body), stream.finish()]
        found = session.body(stream.small, content_type) if stream.small else ()
    finally:
        sys.setprofile(None)
    assert not any(step.refusals for step in steps)
    assert found == ()
    return counts


@pytest.mark.parametrize("value", [TOKEN, HEX])
@pytest.mark.parametrize("lines", [10, 300, 12_000, 30_000])
@pytest.mark.parametrize("kind", ["lines", "json", "form", "text"])
def test_parts_that_are_right_cost_what_wrong_ones_cost(kind: str, lines: int, value: str) -> None:
    guarded, others = (scanner(own=OwnSecrets({"IT": Secret(one)})) for one in (value, OTHERS[value]))
    for right in RIGHT:
        runs = " ".join(value[start : start + 4] for start in range(0, 8 * right, 8))
        if kind == "lines":
            content_type = "application/x-ndjson"
            body = json.dumps(runs) + "\n" + "1\n" * lines
        elif kind == "json":
            content_type = "application/json"
            body = json.dumps([runs, *range(1, lines // 4)])
        elif kind == "form":
            content_type = "application/x-www-form-urlencoded"
            body = "&".join([f"q={quote(runs)}", *(f"a={one % 10}" for one in range(lines // 4))])
        else:
            content_type = "text/plain"
            body = runs + "\n" + "some words\n" * (lines // 4)
        data = body.encode()
        for one in (guarded, others):  # what is made at first use is made for both
            work(one, data, content_type)
        assert work(guarded, data, content_type) == work(others, data, content_type), right


def test_the_work_of_a_body_is_counted() -> None:
    one = scanner(own=OwnSecrets({"IT": Secret(TOKEN)}))
    assert work(one, b"[1, 2]", "application/json") != work(one, b"words", "text/plain")
