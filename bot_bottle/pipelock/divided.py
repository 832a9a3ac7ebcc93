"""A key that was cut in two: its parts stand in neighbouring fields of a query, a form or a JSON body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bot_bottle.pipelock.credentials import KEY_START
from bot_bottle.pipelock.fields import body_fields, query_fields

if TYPE_CHECKING:
    from bot_bottle.pipelock.finding import Context

_KEY_START = re.compile(KEY_START)
_LONGEST_VALUE = 512
_NEIGHBOURS = 3


def divided_keys(data: bytes, context: Context) -> bytes:
    """Give, line by line, what every field that begins a key makes with the one to three fields behind it."""
    fields = (
        query_fields(data)
        if context.place in {"query", "path"}
        else body_fields(data, "" if context.place == "websocket" else context.content_type)
    )
    values = [value for _name, value in fields]
    lines: list[bytes] = []
    for index, value in enumerate(values):
        if len(value) <= _LONGEST_VALUE and _KEY_START.search(value):
            text = value
            for neighbour in values[index + 1 : index + 1 + _NEIGHBOURS]:
                text += neighbour[:_LONGEST_VALUE]
                lines.append(text)
    return b"\n".join(lines)
