"""Messages of HTTP/2 as the lines of HTTP/1.1, and back (RFC 9113, 8.2 to 8.4).

A request that comes over HTTP/2 is read into the method, target and header lines that HTTP/1.1 would have,
so that everything decided about it is decided by the code that decides those; what goes out over HTTP/2 is
written from the head that would have gone out over HTTP/1.1. What cannot be said in both is refused.
"""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hpack import HeaderTuple, NeverIndexedHeaderTuple

from bot_bottle.egress.grammar import (
    METHODS,
    BadMessageError,
    StatusLine,
    good_target,
    is_token,
    read_field_line,
)
from bot_bottle.egress.grpc import is_grpc
from bot_bottle.egress.headers import ResponseHeaders, read_response_headers
from bot_bottle.egress.hosts import Authority, HostError, parse_authority
from bot_bottle.egress.target import DEFAULT_PORTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Field: TypeAlias = tuple[bytes, bytes]

#: Fields about one connection, which HTTP/2 has frames for (RFC 9113, 8.2.2).
_CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
#: Fields that must stand in the head (RFC 9110, 6.5.1), and what only our own refusals say.
_NO_TRAILERS = frozenset((b"content-length", b"host", b"transfer-encoding", b"te", b"trailer"))
#: Parts of the names of fields whose values go into no compression table (RFC 7541, 7.1.3).
_SECRET = (b"auth", b"cookie", b"key", b"secret", b"token", b"password", b"credential")

_VALUE_BYTES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))


class RequestParts(NamedTuple):
    """A request as HTTP/1.1 has it: ``block`` is its header lines, ``grpc`` says that gRPC is spoken."""

    method: bytes
    target: bytes
    block: bytes
    grpc: bool


def malformed(message: str, *, reason: str = "bad_request", status: int = 400) -> BadMessageError:
    """Give the refusal of a message that HTTP/2 does not allow or that HTTP/1.1 could not say."""
    error = BadMessageError(message, reason=reason, status=status)
    if status < 500:
        error.deny = replace(error.deny, next_step="Send one well-formed HTTP/2 request (RFC 9113)")
    return error


def read_request_fields(fields: Sequence[Field], *, scheme: str, ended: bool) -> RequestParts:
    """Read a request's fields; ``scheme`` is the connection's, ``ended`` says that no body follows.

    Raises :class:`BadMessageError`.
    """
    pseudo, rest = _split(fields)
    if b":protocol" in pseudo or pseudo.get(b":method") == b"CONNECT":
        raise malformed("CONNECT is not taken over HTTP/2", reason="connect_denied", status=403)
    if not pseudo.keys() <= _REQUEST_PSEUDO:
        raise malformed("the request has a pseudo-header that no request has")
    method, target = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if method not in METHODS:
        raise malformed("the :method is no registered method")
    if not good_target(target) or not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")):
        raise malformed("the :path is no path that begins with '/'")
    if pseudo.get(b":scheme", b"").lower() != scheme.encode("ascii"):
        raise malformed(
            f"the :scheme is not {scheme}, as the connection is", reason="names_disagree", status=403
        )
    lines = [b"Host: " + _host(pseudo.get(b":authority"), rest, scheme)]
    cookies: list[bytes] = []
    grpc = sized = False
    for name, value in rest:
        if name == b"cookie":
            cookies.append(value)  # RFC 9113, 8.2.3: crumbs of one field
        elif name == b"te":
            if value.lower() != b"trailers":
                raise malformed("the only TE of HTTP/2 is 'trailers'")
        elif name != b"host":
            sized = sized or name == b"content-length"
            grpc = grpc or (name == b"content-type" and is_grpc(value))
            lines.append(name + b": " + value)
    if cookies:
        lines.append(b"cookie: " + b"; ".join(cookies))
    if not (ended or sized):
        lines.append(b"Transfer-Encoding: chunked")
    return RequestParts(method, target, b"\r\n".join(lines), grpc)


def write_request_fields(head: bytes) -> list[HeaderTuple]:
    """Write the fields of a request whose HTTP/1.1 head we made ourselves."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _version = first.split(b" ")
    authority = b""
    fields: list[HeaderTuple] = []
    for line in lines:
        name, value, _line = read_field_line(line)
        if name == b"host":
            authority = value
        elif name not in _CONNECTION:
            fields.append(_field(name, value))
    return [
        HeaderTuple(b":method", method),
        HeaderTuple(b":scheme", b"https"),
        HeaderTuple(b":authority", authority),
        HeaderTuple(b":path", target),
        *fields,
        HeaderTuple(b"te", b"trailers"),  # a field of this hop: we do pass them on
    ]


def read_response_fields(fields: Sequence[Field]) -> tuple[StatusLine, ResponseHeaders]:
    """Read a response's fields; raises :class:`BadMessageError`."""
    try:
        pseudo, rest = _split(fields)
    except BadMessageError as error:
        raise _untrusted(str(error).replace("request", "response")) from error
    status = pseudo.get(b":status", b"")
    if len(pseudo) != 1 or len(status) != 3 or not status.isdigit() or not b"100" <= status <= b"599":
        raise _untrusted("the response has no one :status")
    if status == b"101":
        raise _untrusted("HTTP/2 has no 101 response")
    block = b"\r\n".join(name + b": " + value for name, value in rest)
    code = int(status)
    line = StatusLine(code, b"HTTP/1.1 %b %b" % (status, _phrase(code)), http_1_0=False)
    return line, read_response_headers(block, http_1_0=False)


def read_trailer_fields(fields: Sequence[Field]) -> tuple[bytes, ...]:
    """Read the lines of a response's trailers; raises :class:`BadMessageError`."""
    pseudo, rest = _split(fields)
    if pseudo:
        raise _untrusted("trailers have no pseudo-headers")
    return tuple(
        name + b": " + value
        for name, value in rest
        if name not in _NO_TRAILERS and not name.startswith(b"x-bot-bottle-")
    )


def write_response_fields(
    status: int, lines: Iterable[bytes], length: int | None = None
) -> list[HeaderTuple]:
    """Write the fields of a response; ``length`` is its Content-Length in bytes."""
    fields = [HeaderTuple(b":status", b"%d" % status), *write_lines(lines)]
    if length is not None:
        fields.append(HeaderTuple(b"content-length", b"%d" % length))
    return fields


def write_lines(lines: Iterable[bytes]) -> list[HeaderTuple]:
    """Write header lines as fields."""
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append(_field(name.lower(), value.strip(b" \t")))
    return fields


def _field(name: bytes, value: bytes) -> HeaderTuple:
    secret = any(part in name for part in _SECRET)
    return NeverIndexedHeaderTuple(name, value) if secret else HeaderTuple(name, value)


def _split(fields: Sequence[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    """Tell pseudo-headers from the rest, each of a form that both protocols read in one way only."""
    pseudo: dict[bytes, bytes] = {}
    rest: list[Field] = []
    for name, value in fields:
        if value.translate(None, _VALUE_BYTES):
            raise malformed("a header value has control characters")
        if value[:1] in {b" ", b"\t"} or value[-1:] in {b" ", b"\t"}:
            raise malformed("a header value begins or ends with white space")
        if name.startswith(b":"):
            if rest or name in pseudo:
                raise malformed("a pseudo-header is out of place or comes twice")
            pseudo[name] = value
        elif not is_token(name) or name != name.lower():
            raise malformed("a header name is no token in lower case")
        elif name in _CONNECTION:
            raise malformed("a header of the connection has no place in HTTP/2")
        else:
            rest.append((name, value))
    return pseudo, rest


def _host(authority: bytes | None, rest: Sequence[Field], scheme: str) -> bytes:
    """Give what the Host header would say; where both are there they must name one host and port."""
    hosts = [value for name, value in rest if name == b"host"]
    if len(hosts) > 1:
        raise malformed("the request has more than one Host header", reason="duplicate_host")
    if authority is None:
        if not hosts:
            raise malformed("the request has neither :authority nor Host", reason="host_missing")
        return hosts[0]
    if hosts and hosts[0] != authority and _named(hosts[0], scheme) != _named(authority, scheme):
        raise malformed(
            "the Host header names another host than :authority", reason="names_disagree", status=403
        )
    return authority


def _named(text: bytes, scheme: str) -> Authority:
    try:
        named = parse_authority(text.decode("ascii"))
    except (UnicodeDecodeError, HostError) as error:
        raise malformed(
            "the :authority or the Host header names no host", reason="bad_host", status=403
        ) from error
    return Authority(named.host, named.port or DEFAULT_PORTS[scheme])


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""


def _untrusted(message: str) -> BadMessageError:
    return BadMessageError(message, reason="upstream_protocol", status=502)
