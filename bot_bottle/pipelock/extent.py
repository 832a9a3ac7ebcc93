"""How far a value reaches beyond what a rule knows of it.

A rule is sure of a key by its beginning, and takes no more of it: of a private key the header and a few
digits, which many keys have in common. Whoever takes a value out, or knows it again, needs all of it.
"""

from __future__ import annotations

import re

from bot_bottle.pipelock.finding import value_id

#: What could belong to a value around what a rule takes for it.
_BEFORE = re.compile(rb"[\w~+-]*\Z", re.ASCII)
_AFTER = re.compile(rb"[\w~+/=.-]*", re.ASCII)
_PRIVATE_KEY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?-----.*?"
    rb"-----END [A-Z0-9 ]{0,24}PRIVATE KEY(?: BLOCK)?-----",
    re.DOTALL,
)
_KEY_BEGINS = b"PRIVATE KEY"
#: No value of one run of letters is longer; a stretch this long is looked at before it.
_REACH = 4096
#: In so many places of one content a value is known again.
_MOST_PLACES = 64


def extent(data: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Widen a spot to all that could belong to the value; ``None`` where its end cannot be told."""
    if _KEY_BEGINS in data[start:end]:
        whole = _PRIVATE_KEY.search(data, max(0, start - len(b"-----BEGIN ") - 24))
        if whole is None or not whole.start() <= start < whole.end():
            return None
        return whole.start(), max(end, whole.end())
    low = max(0, start - _REACH)
    before = _BEFORE.search(data, low, start)
    after = _AFTER.match(data, end)
    return (before.start() if before else start), (after.end() if after else end)


def whole_id(data: bytes, value: bytes) -> str:
    """Give what ``value`` is known again by as it stands in ``data``, with all that belongs to it.

    Empty where that cannot be told, so that no yes to it could be one to something else. Where it does not
    stand in ``data`` as it is, it is taken by itself.
    """
    wholes: set[bytes] = set()
    start = data.find(value)
    if start < 0 and _KEY_BEGINS in value:
        return ""
    for _ in range(_MOST_PLACES):
        if start < 0:
            return value_id(b"\0".join(sorted(wholes or {value})))
        span = extent(data, start, start + len(value))
        if span is None:
            return ""
        wholes.add(data[start : span[1]])
        start = data.find(value, start + 1)
    return ""
