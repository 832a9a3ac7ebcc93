"""Header hygiene: what a request's headers say about framing, and which of them go on.

Requests are never forwarded as bytes. They are parsed, judged and written anew from what was parsed, so
that no two servers can read a different message out of them (request smuggling).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from bot_bottle.egress.grammar import (
    MAX_HEADER_LINES,
    BadMessageError,
    FieldLine,
    header_too_large,
    is_token,
    read_field_line,
    split_lines,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.egress.injection import Injection

#: Connection-specific fields (RFC 9110, 7.6.1) and what egress writes itself or never passes on.
_CONSUMED = frozenset(
    (
        b"authorization connection content-length expect forwarded host http2-settings keep-alive "
        b"proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade "
        b"via x-real-ip x-original-url x-rewrite-url x-original-host x-host "
        b"x-original-uri x-override-url x-request-uri x-envoy-original-path x-waws-unencoded-url"
    ).split()
)
_CONSUMED_PREFIXES = (b"x-forwarded-", b"x-bot-bottle-", b"proxy-")

#: A bottle has no credential of its own to present; whatever looks like one is dropped, on every route.
_CREDENTIALS = frozenset(
    (
        b"x-api-key api-key apikey x-goog-api-key private-token job-token deploy-token x-auth-token "
        b"x-access-token x-gitlab-token x-token x-amz-security-token openai-api-key x-vault-token "
        b"ocp-apim-subscription-key x-authorization "
        # As the vendors' pages name them: docs.datadoghq.com/api/latest/authentication, Cloudflare's global
        # and service keys (developers.cloudflare.com/fundamentals/api), shopify.dev/docs/api/usage,
        # circleci.com/docs/guides/toolkit/api-developers-guide, developers.figma.com/docs/rest-api.
        b"dd-api-key dd-application-key x-auth-key x-auth-user-service-key x-shopify-access-token "
        b"shopify-storefront-private-token circle-token x-figma-token "
        # jfrog.com/help/r/artifactory-rest-apis, learn.microsoft.com/azure/azure-functions.
        b"x-jfrog-art-api x-functions-key x-hasura-admin-secret x-postmark-server-token x-github-token"
    ).split()
)
#: How most others end (``X-NuGet-ApiKey``, ``X-RapidAPI-Key``, ``X-Redmine-API-Key``).
_CREDENTIAL_ENDS = (b"api-key", b"apikey", b"api-token", b"access-token", b"auth-token")
#: What programs that cannot set headers present as a WebSocket's subprotocol (``openai-insecure-api-key.``,
#: ``base64url.bearer.authorization.k8s.io.``, AppSync's ``header-``).
_SUBPROTOCOL_CREDENTIAL = re.compile(
    rb"(?i)(?:.*(?:api[-_]?key|bearer|authorization|(?:auth|access)[-_]?token)[.=_-]|header-).+"
)

_PRESENTED = frozenset((b"authorization", b"proxy-authorization"))

#: Headers by which some server takes another method than the request line's.
_OVERRIDES = frozenset(
    b"http-method-override x-http-method x-http-method-override x-method-override x-original-method".split()
)

#: Headers that name a second resource, to write to or to read from: WebDAV's (RFC 4918, 10.3), OpenStack
#: Swift's and, by the ends of their names, those of object stores (``x-amz-copy-source``).
_ELSEWHERE = frozenset(b"destination x-copy-from x-object-manifest x-symlink-target".split())
_ELSEWHERE_ENDS = (b"-copy-source", b"-rename-source")

#: From a host with a credential its echo must be recognised in the answer: whole and unencoded.
_READABLE = frozenset((b"a-im", b"if-range", b"range"))
#: As well as every header that asks for a coding or a charset, whatever the protocol calls it.
_READABLE_PARTS = (b"accept-encoding", b"charset")
_CHARSET_WANTED = re.compile(rb"(?i)[ \t]*;[ \t]*charset[ \t]*=[^,;]*")
_COOKIES = frozenset((b"cookie", b"cookie2"))

_RESPONSE_CONSUMED = frozenset(
    (
        b"connection content-length keep-alive proxy-authenticate proxy-authentication-info "
        b"proxy-connection te trailer transfer-encoding upgrade"
    ).split()
)

_Fate: TypeAlias = Literal["keep", "consume", "override", "elsewhere", "drop"]
_KEEP: Final = "keep"
_CONSUME: Final = "consume"
_OVERRIDE: Final = "override"
_ELSE: Final = "elsewhere"
_DROP: Final = "drop"
_CACHED_NAME = 64
_LONGEST_NAME = 1024

_MOST_DIGITS = 18
_KEEP_ALIVE_TIMEOUT = re.compile(rb"timeout\s*=\s*([0-9]{1,6})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHeaders:
    """What a request's headers say; ``kept`` are the lines that may go on.

    ``keep_alive`` is what the client asked of this connection, ``upgrade`` the protocol it would switch to,
    ``has_body`` whether bytes of a body follow. ``override`` and ``elsewhere`` are the values of headers that
    name another method and a second resource. ``presented`` are lines that would prove who asks and never go
    on. ``block`` holds all the lines as they came.
    """

    kept: tuple[FieldLine, ...] = ()
    presented: tuple[FieldLine, ...] = ()
    host: bytes | None = None
    content_length: int | None = None
    chunked: bool = False
    expect_continue: bool = False
    upgrade: bytes = b""
    override: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    keep_alive: bool = True
    has_body: bool = False
    block: bytes = field(default=b"", repr=False, compare=False)


def read_request_headers(block: bytes, *, http_1_0: bool = False) -> RequestHeaders:
    """Sort a request's header lines; raises :class:`BadMessageError` where they can be read in two ways."""
    lines = split_lines(block)
    if len(lines) > MAX_HEADER_LINES:
        raise header_too_large()
    kept: list[FieldLine] = []
    presented: tuple[FieldLine, ...] = ()
    consumed: dict[bytes, bytes] = {}
    named: set[bytes] = set()
    override: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    for raw in lines:
        line = read_field_line(raw)
        fate = _fate(line.name) if len(line.name) <= _CACHED_NAME else _fate_of(line.name)
        if fate is _KEEP:
            kept.append(line)
        elif fate is _CONSUME:
            _consume(consumed, named, line.name, line.value)
            if line.name in _PRESENTED:
                presented += (line,)
        elif fate is _OVERRIDE:
            override += (line.value.decode("latin-1"),)
            kept.append(line)
        elif fate is _ELSE:
            elsewhere += (line.value.decode("latin-1"),)
            kept.append(line)
    length = consumed.get(b"content-length")
    chunked = b"transfer-encoding" in consumed
    if chunked and length is not None:
        raise BadMessageError("the request has both Content-Length and Transfer-Encoding", reason="smuggling")
    if chunked and http_1_0:
        # RFC 9112, 6.1: such framing is faulty, since an HTTP/1.0 hop would not have understood it.
        raise BadMessageError("an HTTP/1.0 request has no Transfer-Encoding", reason="smuggling")
    if named:
        kept = [line for line in kept if line.name not in named]
    return RequestHeaders(
        kept=tuple(kept),
        presented=presented,
        host=consumed.get(b"host"),
        content_length=None if length is None else int(length),
        chunked=chunked,
        expect_continue=consumed.get(b"expect", b"").lower() == b"100-continue",
        upgrade=consumed.get(b"upgrade", b"").lower() if b"upgrade" in named else b"",
        override=override,
        elsewhere=elsewhere,
        keep_alive=b"close" not in named and (not http_1_0 or b"keep-alive" in named),
        has_body=chunked or (length is not None and int(length) > 0),
        block=block,
    )


def _fate_of(name: bytes) -> _Fate:
    """Say what becomes of a request's header, by its name in lower case."""
    if b"_" in name:
        # CGI-like servers take X_Api_Key for X-Api-Key; such a spelling is dropped, never understood.
        plain = name.replace(b"_", b"-")
        if plain in _CONSUMED or plain in _OVERRIDES or plain.startswith(_CONSUMED_PREFIXES):
            return _DROP
    if name in _CONSUMED:
        return _CONSUME
    if name in _OVERRIDES:
        return _OVERRIDE
    plain = _plain_name(name)
    if plain in _ELSEWHERE or plain.endswith(_ELSEWHERE_ENDS):
        return _ELSE
    return _DROP if name.startswith(_CONSUMED_PREFIXES) else _KEEP


_fate = lru_cache(maxsize=512)(_fate_of)


def _consume(consumed: dict[bytes, bytes], named: set[bytes], name: bytes, value: bytes) -> None:
    if name == b"connection":
        named.update(token.strip(b" \t").lower() for token in value.split(b","))
        return
    if name == b"host" and name in consumed:
        raise BadMessageError("the request has more than one Host header", reason="duplicate_host")
    if name == b"content-length" and (name in consumed or not value.isdigit() or len(value) > _MOST_DIGITS):
        raise BadMessageError("the request's Content-Length is not one number", reason="smuggling")
    if name == b"transfer-encoding" and (name in consumed or value.lower() != b"chunked"):
        raise BadMessageError("the only Transfer-Encoding taken is 'chunked'", reason="smuggling")
    consumed[name] = value


def may_inject(name: str) -> bool:
    """Tell whether a credential may go into the header ``name``, since nothing else depends on it."""
    low = name.lower().encode("latin-1")
    if not is_token(low) or b"_" in low or low in _OVERRIDES or _asks_unreadable(low):
        return False
    return low == b"authorization" or not (
        low in _CONSUMED or low.startswith(_CONSUMED_PREFIXES) or low.startswith(b"sec-")
    )


def leaving(facts: RequestHeaders, *, cookies: bool = True) -> tuple[FieldLine, ...]:
    """Give the client's lines that go on; with ``cookies`` as in :func:`head_tail`."""
    return tuple(line for line in facts.kept if not _stays(_plain_name(line.name), cookies=cookies))


def left_behind(facts: RequestHeaders) -> tuple[FieldLine, ...]:
    """Give the client's lines that are dropped on every route since they would prove who asks."""
    return (*facts.presented, *(line for line in facts.kept if _stays(_plain_name(line.name), cookies=True)))


def with_values(
    facts: RequestHeaders, lines: tuple[FieldLine, ...], headers: Sequence[tuple[bytes, bytes]]
) -> tuple[FieldLine, ...]:
    """Give the lines that are kept, those of ``lines`` with the values of ``headers``, one for one."""
    new = {
        id(line): line._replace(value=value, line=b"%b: %b" % (name, value))
        for line, (name, value) in zip(lines, headers, strict=True)
        if line.value != value
    }
    return tuple(new.get(id(line), line) for line in facts.kept)


def _stays(name: bytes, *, cookies: bool) -> bool:
    """Tell whether a header, by its name with dashes, never goes on; with ``cookies`` those do."""
    if name in _COOKIES:
        return not cookies
    return name in _CREDENTIALS or name.endswith(_CREDENTIAL_ENDS)


def _without_credentials(value: bytes) -> bytes:
    """Leave out of a list of subprotocols those that prove who asks."""
    offered = (one.strip(b" \t") for one in value.split(b","))
    return b", ".join(one for one in offered if not _SUBPROTOCOL_CREDENTIAL.fullmatch(one))


def _asks_unreadable(name: bytes) -> bool:
    """Tell whether a header asks for an answer in which a credential would not be known again."""
    return name in _READABLE or any(part in name for part in _READABLE_PARTS)


def _plain_name(name: bytes) -> bytes:
    return name.replace(b"_", b"-") if b"_" in name else name


def _written(plain: bytes, line: FieldLine, *, searched: bool) -> bytes:
    """Give a line as it goes on, ``plain`` its name with dashes; nothing where none of it may."""
    if plain == b"sec-websocket-protocol":
        offered = _without_credentials(line.value)
        return line.name + b": " + offered if offered else b""
    if searched and _asks_unreadable(plain):
        return b""
    if searched and plain == b"accept" and b"charset" in line.line.lower():
        return b"Accept: " + _CHARSET_WANTED.sub(b"", line.value)
    return line.line


def head_tail(
    *,
    authority: bytes,
    facts: RequestHeaders,
    injection: Injection | None = None,
    searched: bool = False,
    cookies: bool = True,
    websocket: bool = False,
) -> bytes:
    """Write the head of the request that goes upstream, from behind its target on.

    What is ``searched``, as any answer to an ``injection`` is, is asked for whole and unencoded. Without
    ``cookies`` the client's are left out. With ``websocket`` the upgrade is asked for, without extensions, so
    that frames stay readable.
    """
    lines = [b"HTTP/1.1\r\nHost: " + authority]
    own = b""
    searched = searched or injection is not None
    if injection is not None and injection.header:
        lines.append(injection.line)
        own = injection.header
    for line in facts.kept:
        plain = _plain_name(line.name)
        if plain == own or _stays(plain, cookies=cookies):
            continue
        if websocket and line.name == b"sec-websocket-extensions":
            continue
        if written := _written(plain, line, searched=searched):
            lines.append(written)
    if searched:
        lines.append(b"Accept-Encoding: identity")
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
    """What a response's headers say; ``kept`` are whole lines that go on to the client.

    ``idle_seconds`` is how long the server keeps the connection.
    """

    kept: list[bytes]
    keep_alive: bool = True
    content_length: int | None = None
    chunked: bool = False
    upgrade: bytes = b""
    idle_seconds: float | None = None


def read_response_headers(block: bytes, *, http_1_0: bool) -> ResponseHeaders:
    """Sort a response's header lines; raises :class:`BadMessageError` where they cannot be trusted."""
    kept: list[bytes] = []
    facts = ResponseHeaders(kept, not http_1_0)
    named: set[bytes] | None = None
    fate_of = _response_fate
    for line in split_lines(block):
        name, colon, value = line.partition(b":")
        if not colon or len(name) > _LONGEST_NAME:
            raise _untrusted("a response header is not 'Name: value'")
        fate = fate_of(name)
        if fate is _KEEP:
            kept.append(line)
        elif fate is _CONSUME:
            low, value = name.lower(), value.strip(b" \t")
            if low == b"connection":
                named = (named or set()) | {token.strip(b" \t") for token in value.lower().split(b",")}
            else:
                _consume_response(facts, low, value)
    if facts.chunked and (facts.content_length is not None or http_1_0):
        raise _untrusted("the response is framed in two ways")
    if named is not None:
        if b"close" in named:
            facts.keep_alive = False
        elif b"keep-alive" in named:
            facts.keep_alive = True
        extra = named - {b"close", b"keep-alive", b"upgrade", b""}
        if extra:
            facts.kept = [line for line in kept if line.partition(b":")[0].lower() not in extra]
    if facts.upgrade and b"upgrade" not in (named or ()):
        facts.upgrade = b""
    return facts


@lru_cache(maxsize=1024)
def _response_fate(name: bytes) -> _Fate:
    if not is_token(name):
        # RFC 9112, 5.1: a space before the colon, or a line that goes on with the one before it.
        raise _untrusted("a response header is not 'Name: value'")
    low = name.lower()
    if low in _RESPONSE_CONSUMED:
        return _CONSUME
    return _DROP if low.startswith(b"x-bot-bottle-") else _KEEP  # only our own refusals carry these


def _consume_response(facts: ResponseHeaders, low: bytes, value: bytes) -> None:
    if low == b"content-length":
        if not value.isdigit() or len(value) > _MOST_DIGITS:
            raise _untrusted("the response's Content-Length is not one number")
        length = int(value)
        if facts.content_length is not None and facts.content_length != length:
            raise _untrusted("the response has two Content-Lengths")
        facts.content_length = length
    elif low == b"transfer-encoding":
        if value.lower() != b"chunked" or facts.chunked:
            raise _untrusted("the response's Transfer-Encoding is unknown")
        facts.chunked = True
    elif low == b"upgrade":
        facts.upgrade = value.lower()
    elif low == b"keep-alive" and (match := _KEEP_ALIVE_TIMEOUT.search(value)):
        facts.idle_seconds = float(match[1])


def _untrusted(message: str) -> BadMessageError:
    return BadMessageError(message, reason="upstream_protocol", status=502)
