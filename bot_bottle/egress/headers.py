"""Header hygiene: what a request's headers say about framing, and which of them go on.

Requests are never forwarded as bytes. They are parsed, judged and written anew from what was parsed, so
that no two servers can read a different message out of them (request smuggling).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bot_bottle.decision import Deny

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Name and value as they came.
RawHeader = tuple[bytes, bytes]

#: Connection-specific fields (RFC 9110, 7.6.1) and what egress writes itself or never passes on.
_CONSUMED = frozenset(
    (
        b"authorization connection content-length expect forwarded host http2-settings keep-alive "
        b"proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade "
        b"via x-real-ip x-original-url x-rewrite-url x-original-host x-host"
    ).split()
)
_CONSUMED_PREFIXES = (b"x-forwarded-", b"x-bot-bottle-", b"proxy-")

#: Where a route injects its own credential, the agent's other ways to present one are dropped.
_CREDENTIALS = frozenset(
    (
        b"x-api-key api-key apikey x-goog-api-key private-token job-token deploy-token x-auth-token "
        b"x-access-token x-gitlab-token x-token x-amz-security-token openai-api-key x-vault-token "
        b"ocp-apim-subscription-key x-authorization"
    ).split()
)

_OVERRIDES = frozenset({b"x-http-method-override", b"x-http-method", b"x-method-override"})

_RESPONSE_CONSUMED = frozenset(
    (
        b"connection content-length keep-alive proxy-authenticate proxy-authentication-info "
        b"proxy-connection te trailer transfer-encoding upgrade"
    ).split()
)

_Fate: TypeAlias = Literal["keep", "consume", "override", "drop"]
_KEEP: Final = "keep"
_CONSUME: Final = "consume"
_OVERRIDE: Final = "override"
_DROP: Final = "drop"
_CACHED_NAME = 64

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_KEEP_ALIVE_TIMEOUT = re.compile(rb"timeout\s*=\s*([0-9]{1,6})", re.IGNORECASE)


class BadMessageError(ValueError):
    """A message that cannot be framed in one way only; carries the HTTP status and the refusal."""

    def __init__(self, message: str, *, reason: str = "bad_request", status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.deny = Deny(
            reason=reason,
            rule="egress.http",
            message=message,
            next_step="Send one well-formed HTTP/1.1 request (RFC 9112)",
        )


def header_too_large() -> BadMessageError:
    """Give the refusal of a request whose header passes the bounds."""
    return BadMessageError("the request's header is over 64 KiB or 200 lines", reason="too_large", status=431)


@dataclass(slots=True)
class RequestHeaders:
    """What a request's headers say. ``kept`` holds (lower-case name, name, value) of what may go on."""

    kept: list[tuple[bytes, bytes, bytes]]
    host: bytes | None = None
    content_length: int | None = None
    chunked: bool = False
    expect_continue: bool = False
    upgrade: bytes = b""
    override: tuple[str, ...] = ()

    @property
    def has_body(self) -> bool:
        """Whether a body follows."""
        return self.chunked or bool(self.content_length)


def read_request_headers(headers: Iterable[RawHeader], *, http_1_0: bool = False) -> RequestHeaders:
    """Sort a request's headers; raises :class:`BadMessageError` where they frame it in two ways."""
    facts = RequestHeaders([])
    named: set[bytes] = set()
    for name, raw in headers:
        low, fate = _classify(name) if len(name) <= _CACHED_NAME else _classify_name(name)
        value = raw.strip(b" \t")
        if fate is _KEEP:
            facts.kept.append((low, name, value))
        elif fate is _CONSUME:
            _consume(facts, named, low, value)
        elif fate is _OVERRIDE:
            facts.override += (value.decode("latin-1"),)
            facts.kept.append((low, name, value))
    if facts.chunked and facts.content_length is not None:
        raise BadMessageError("the request has both Content-Length and Transfer-Encoding", reason="smuggling")
    if facts.chunked and http_1_0:
        # RFC 9112, 6.1: such framing is faulty, since an HTTP/1.0 hop would not have understood it.
        raise BadMessageError("an HTTP/1.0 request has no Transfer-Encoding", reason="smuggling")
    if named:
        facts.kept = [entry for entry in facts.kept if entry[0] not in named]
    return facts


def _classify_name(name: bytes) -> tuple[bytes, _Fate]:
    low = name.lower()
    if b"_" in low:
        # CGI-like servers take X_Api_Key for X-Api-Key; such a spelling is dropped, never understood.
        low = low.replace(b"_", b"-")
        if low in _CONSUMED or low in _OVERRIDES:
            return low, _DROP
    if low in _CONSUMED:
        return low, _CONSUME
    if low in _OVERRIDES:
        return low, _OVERRIDE
    return low, _DROP if low.startswith(_CONSUMED_PREFIXES) else _KEEP


_classify = lru_cache(maxsize=512)(_classify_name)


def _consume(facts: RequestHeaders, named: set[bytes], low: bytes, value: bytes) -> None:
    if low == b"host":
        if facts.host is not None:
            raise BadMessageError("the request has more than one Host header", reason="duplicate_host")
        facts.host = value
    elif low == b"content-length":
        if facts.content_length is not None or not _DIGITS.fullmatch(value):
            raise BadMessageError("the request's Content-Length is not one number", reason="smuggling")
        facts.content_length = int(value)
    elif low == b"transfer-encoding":
        if facts.chunked or value.lower() != b"chunked":
            raise BadMessageError("the only Transfer-Encoding taken is 'chunked'", reason="smuggling")
        facts.chunked = True
    elif low == b"connection":
        named.update(token.strip().lower() for token in value.split(b","))
    elif low == b"expect":
        facts.expect_continue = value.lower() == b"100-continue"
    elif low == b"upgrade":
        facts.upgrade = value.lower()


def upstream_head(
    *,
    method: bytes,
    target: bytes,
    authority: bytes,
    facts: RequestHeaders,
    authorization: bytes = b"",
    websocket: bool = False,
) -> bytes:
    """Write the head of the request that goes upstream.

    ``authorization`` is the whole value to inject; with it every other credential header is dropped. With
    ``websocket`` the upgrade is asked for, without extensions, so that frames stay readable.
    """
    lines = [b"%b %b HTTP/1.1\r\nHost: %b" % (method, target, authority)]
    if authorization:
        lines.append(b"Authorization: " + authorization)
    for low, name, value in facts.kept:
        if authorization and low in _CREDENTIALS:
            continue
        if websocket and low == b"sec-websocket-extensions":
            continue
        lines.append(name + b": " + value)
    if websocket:
        lines.append(b"Connection: Upgrade\r\nUpgrade: websocket")
    elif facts.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif facts.content_length is not None:
        lines.append(b"Content-Length: %d" % facts.content_length)
    if facts.expect_continue and facts.has_body:
        lines.append(b"Expect: 100-continue")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


@dataclass(slots=True)
class ResponseHeaders:
    """What a response's headers say; ``idle_seconds`` is how long the server keeps the connection."""

    kept: list[RawHeader]
    content_length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    upgrade: bytes = b""
    idle_seconds: float | None = None


def read_response_headers(headers: Sequence[RawHeader], *, http_1_0: bool) -> ResponseHeaders:
    """Sort a response's headers; raises :class:`BadMessageError` where they cannot be trusted."""
    if _CONTROL.search(b"\t".join([value for _name, value in headers])):
        raise BadMessageError(
            "a response header has control characters", reason="upstream_protocol", status=502
        )
    facts = ResponseHeaders([], keep_alive=not http_1_0)
    named: set[bytes] = set()
    for name, value in headers:
        low, fate = _classify_response(name) if len(name) <= _CACHED_NAME else _classify_response_name(name)
        if fate is _KEEP:
            facts.kept.append((name, value))
        elif fate is _CONSUME:
            _consume_response(facts, named, low, value.strip(b" \t"))
    if not named:
        return facts
    if b"close" in named:
        facts.keep_alive = False
    elif b"keep-alive" in named:
        facts.keep_alive = True
    extra = named - {b"close", b"keep-alive", b"upgrade", b""}
    if extra:
        facts.kept = [entry for entry in facts.kept if entry[0].lower() not in extra]
    return facts


def _classify_response_name(name: bytes) -> tuple[bytes, _Fate]:
    low = name.lower()
    if low in _RESPONSE_CONSUMED:
        return low, _CONSUME
    return low, _DROP if low.startswith(b"x-bot-bottle-") else _KEEP  # only our own refusals carry these


_classify_response = lru_cache(maxsize=512)(_classify_response_name)


def _consume_response(facts: ResponseHeaders, named: set[bytes], low: bytes, value: bytes) -> None:
    if low == b"content-length":
        if not _DIGITS.fullmatch(value) or facts.content_length not in {None, int(value)}:
            raise BadMessageError(
                "the response's Content-Length is not one number", reason="upstream_protocol", status=502
            )
        facts.content_length = int(value)
    elif low == b"transfer-encoding":
        if value.lower() != b"chunked":
            raise BadMessageError(
                "the response's Transfer-Encoding is unknown", reason="upstream_protocol", status=502
            )
        facts.chunked = True
    elif low == b"connection":
        named.update(token.strip().lower() for token in value.split(b","))
    elif low == b"upgrade":
        facts.upgrade = value.lower()
    elif low == b"keep-alive" and (match := _KEEP_ALIVE_TIMEOUT.search(value)):
        facts.idle_seconds = float(match[1])
