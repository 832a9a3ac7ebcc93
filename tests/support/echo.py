"""A server that shows its client what it was sent, as test services and error pages do."""

from __future__ import annotations

import base64
import gzip
from typing import TYPE_CHECKING

from bot_bottle.demo.upstreams import Answer, json_answer

if TYPE_CHECKING:
    from bot_bottle.demo.upstreams import Seen

HOSTS = frozenset({"echo.test", "query.test"})


def echo(seen: Seen) -> Answer:
    """Show the whole request: in a header, in the way the path's first part says, in one line of a body."""
    raw = seen.raw
    kind = seen.target.split("/")[1]
    shown = ("X-Echo", raw.decode("latin-1").replace("\r\n", "|"))
    if kind == "moved":
        return Answer(status=302, headers=(("Location", f"https://allowed.test{seen.target}"), shown))
    if kind == "encoded":
        forms = {"base64": base64.b64encode(raw).decode(), "hex": raw.hex(), "text": raw.decode("latin-1")}
        return json_answer(forms)
    if kind == "pieces":
        return Answer(body=(raw[at : at + 1] for at in range(len(raw))), headers=(shown,))
    if kind == "gzip":
        return Answer(body=gzip.compress(raw), headers=(("Content-Encoding", "gzip"), shown))
    if kind == "unknown":
        return Answer(body=raw[::-1], headers=(("Content-Encoding", "backwards"), shown))
    return Answer(body=raw, headers=(shown,))
