"""How a refusal reads: one JSON body and three headers, the same for every kind of client."""

from __future__ import annotations

import json
import re

from bot_bottle.decision import Deny

HEADER_DECISION = "X-Bot-Bottle-Decision"
HEADER_REASON = "X-Bot-Bottle-Reason"
HEADER_RULE = "X-Bot-Bottle-Rule"

#: What a header value of ours may hold (RFC 9110, 5.5), so that no name from outside can end the line.
_UNSAFE = re.compile(r"[^\x20-\x7e]")

_PHRASES = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


def own_head(
    status: int, length: int, headers: tuple[tuple[str, str], ...] = (), *, close: bool = False
) -> bytes:
    """Write the head of a JSON response of our own; ``length`` is the body's in bytes."""
    lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'OK')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", "Cache-Control: no-store"]
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def denial_headers(deny: Deny, *, decision: str = "deny") -> tuple[tuple[str, str], ...]:
    """List the headers that mark a response as ours; ``decision`` is ``deny`` or ``error``."""
    return (
        (HEADER_DECISION, decision),
        (HEADER_REASON, _UNSAFE.sub("?", deny.reason)),
        (HEADER_RULE, _UNSAFE.sub("?", deny.rule)),
    )


def denial_body(deny: Deny, *, host: str, identity: str) -> bytes:
    """Write the JSON body of a refusal."""
    body = {
        "error": "bot_bottle_denied",
        "reason": deny.reason,
        "rule": deny.rule,
        "message": deny.message,
        "next_step": deny.next_step,
        "host": host,
        "identity": identity,
    }
    return json.dumps(body, indent=2).encode("ascii") + b"\n"


def header_timeout() -> Deny:
    """Describe a request whose header took too long to come."""
    return Deny(
        reason="timeout",
        rule="egress.http",
        message="the request's header did not arrive within 30 s",
        next_step="Send the request again, all at once",
    )
