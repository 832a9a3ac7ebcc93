"""Our own answers over HTTP/2: the structured refusal, and how a gRPC client reads one.

A gRPC client looks at nothing but ``grpc-status`` and ``grpc-message``; a 403 with a JSON body it shows as
"unknown". So it gets what the gRPC protocol calls Trailers-Only: status 200, the refusal's sentence in
``grpc-message`` and the same ``X-Bot-Bottle-*`` headers, in one frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from hpack import HeaderTuple

if TYPE_CHECKING:
    from bot_bottle.decision import Deny

#: gRPC status codes (grpc/grpc doc/statuscodes.md) for the statuses that we refuse with.
_GRPC_STATUS: Final = {400: 13, 404: 12, 408: 4, 413: 8, 431: 8, 500: 13, 502: 14, 503: 14, 504: 14}
_PERMISSION_DENIED: Final = 7

#: What grpc-message may hold as it is (gRPC over HTTP/2, Percent-Encoded): all of printable ASCII but "%".
_MESSAGE_SAFE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def own_fields(status: int, length: int, headers: tuple[tuple[str, str], ...] = ()) -> list[HeaderTuple]:
    """Write the head of a JSON response of our own; ``length`` is the body's in bytes."""
    return [
        HeaderTuple(b":status", b"%d" % status),
        *_marks(headers),
        HeaderTuple(b"content-type", b"application/json"),
        HeaderTuple(b"content-length", b"%d" % length),
        HeaderTuple(b"cache-control", b"no-store"),
    ]


def grpc_fields(status: int, deny: Deny, headers: tuple[tuple[str, str], ...]) -> list[HeaderTuple]:
    """Write a refusal for a gRPC client: the whole response."""
    code = _GRPC_STATUS.get(status, _PERMISSION_DENIED)
    message = quote(f"{deny.message}; {deny.next_step} ({deny.reason}, {deny.rule})", safe=_MESSAGE_SAFE)
    return [
        HeaderTuple(b":status", b"200"),
        HeaderTuple(b"content-type", b"application/grpc"),
        HeaderTuple(b"grpc-status", b"%d" % code),
        HeaderTuple(b"grpc-message", message.strip().encode("ascii")),
        *_marks(headers),
    ]


def _marks(headers: tuple[tuple[str, str], ...]) -> list[HeaderTuple]:
    return [
        HeaderTuple(name.lower().encode("ascii"), value.strip().encode("latin-1")) for name, value in headers
    ]
