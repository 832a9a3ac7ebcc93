"""From a request line and headers to the one :class:`EgressRequest` that policy judges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bot_bottle.egress.grammar import BadMessageError
from bot_bottle.egress.hosts import Authority, HostError, format_authority, normalise_host, parse_authority
from bot_bottle.egress.request import EgressRequest, Scheme, Via

if TYPE_CHECKING:
    from bot_bottle.egress.headers import RequestHeaders

DEFAULT_PORTS: dict[str, int] = {"http": 80, "https": 443}
_UNREADABLE_NAME = "(not a host name)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """How a connection came to the sidecar.

    ``port`` is the port its client wanted to reach (0 on the proxy port, where each request says it).
    ``claims`` are the names given before HTTP began, as (where, name).
    """

    via: Via
    scheme: Scheme
    port: int = 0
    claims: tuple[tuple[str, str], ...] = ()
    sni_missing: bool = False


def with_sni(arrival: Arrival, sni: str | None) -> Arrival:
    """Give ``arrival`` as it is known once its TLS client has named a server, or has not."""
    claims = arrival.claims
    if sni is not None:
        try:
            claims = (*claims, ("SNI", normalise_host(sni)))
        except HostError:
            claims = (*claims, ("SNI", _UNREADABLE_NAME))
    return Arrival(via=arrival.via, scheme="https", port=arrival.port, claims=claims, sni_missing=sni is None)


def read_request(
    arrival: Arrival, *, method: str, target: str, headers: RequestHeaders, http_1_0: bool = False
) -> EgressRequest:
    """Read what a request asks for; raises :class:`BadMessageError` where that is not one clear thing."""
    if "#" in target:
        raise BadMessageError("a request target has no fragment")
    host_header = _host_header(headers, required=not http_1_0)
    claims = arrival.claims
    if target.startswith("/") or (target == "*" and method == "OPTIONS"):
        if not arrival.port:
            raise BadMessageError("a proxy request has an absolute URI (http://host/path) or is a CONNECT")
        if host_header is None:
            raise BadMessageError("the request has no Host header", reason="host_missing")
        authority, path = host_header, target
        port = arrival.port
    else:
        uri, path = _absolute(arrival, target)
        port = arrival.port or uri.port or 80
        if uri.port not in {None, port}:
            raise BadMessageError(
                "the request URI names another port than the connection", reason="names_disagree"
            )
        authority = host_header or uri
        claims = (*claims, ("request URI", uri.host))
    if authority.port not in {None, port}:
        raise BadMessageError(
            "the Host header names another port than the connection", reason="names_disagree"
        )
    path, _, query = path.partition("?")
    return EgressRequest(
        via=arrival.via,
        scheme=arrival.scheme,
        method=method,
        host=authority.host,
        port=port,
        path=path,
        query=query,
        claims=claims,
        sni_missing=arrival.sni_missing,
        override=headers.override,
        elsewhere=headers.elsewhere,
    )


def origin_target(target: str) -> str:
    """Give the origin form of a target that :func:`read_request` has accepted."""
    if target.startswith("/") or target == "*":
        return target
    rest = target.partition("://")[2]
    start = _authority_end(rest)
    path = rest[start:]
    return path if path.startswith("/") else f"/{path}"


@lru_cache(maxsize=1024)
def upstream_authority(scheme: Scheme, host: str, port: int) -> bytes:
    """Give the Host header that goes upstream."""
    return format_authority(host, None if port == DEFAULT_PORTS[scheme] else port).encode("ascii")


def _host_header(headers: RequestHeaders, *, required: bool) -> Authority | None:
    if headers.host is None:
        if required:
            raise BadMessageError("the request has no Host header", reason="host_missing")
        return None
    try:
        return _parse_host(headers.host)
    except (UnicodeDecodeError, HostError) as error:
        raise BadMessageError("the Host header names no host", reason="bad_host", status=403) from error


@lru_cache(maxsize=1024)
def _parse_host(value: bytes) -> Authority:
    return parse_authority(value.decode("ascii"))


def _absolute(arrival: Arrival, target: str) -> tuple[Authority, str]:
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in DEFAULT_PORTS:
        raise BadMessageError("the request target is neither a path nor an http:// URI")
    if scheme.lower() != arrival.scheme:
        raise BadMessageError(
            "an https:// URI is fetched through CONNECT"
            if arrival.scheme == "http"
            else "the request URI names another scheme than the connection",
            reason="names_disagree",
            status=403,
        )
    try:
        authority = parse_authority(rest[: _authority_end(rest)])
    except HostError as error:
        raise BadMessageError("the request URI names no host", reason="bad_host", status=403) from error
    return authority, origin_target(target)


def _authority_end(rest: str) -> int:
    ends = [index for mark in "/?" if (index := rest.find(mark)) >= 0]
    return min(ends, default=len(rest))
