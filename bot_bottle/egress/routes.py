"""The effective egress routes of one bottle, from its manifest and from its provider.

Everything here is pure. No provider is known by name: a provider's needs arrive as
:class:`EgressRoute` values in its ``AgentProvisionPlan``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from bot_bottle.errors import UsageError
from bot_bottle.pipelock.selection import DETECTORS
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bot_bottle.manifest.model import ManifestAuth, ManifestBottle, ManifestRoute
    from bot_bottle.pipelock.finding import Kind

Network: TypeAlias = IPv4Network | IPv6Network

#: ``ask`` refuses as ``block`` does, and asks a human whether the same may pass when it comes again;
#: ``redact`` overwrites what is found where that is safe, and refuses elsewhere.
OnMatch: TypeAlias = Literal["block", "redact", "ask"]
OnOpaque: TypeAlias = Literal["deny", "allow"]
#: What becomes of an answer that orders an agent about.
Responses: TypeAlias = Literal["off", "warn", "block"]

#: By which API a host answers whose answers are read for what they used of a model (``egress/usage.py``).
UsageApiName: TypeAlias = Literal["messages", "responses", "chat-completions", "generate-content"]
USAGE_API_NAMES: tuple[UsageApiName, ...] = get_args(UsageApiName)

#: What a route is for, in place of methods: ``git-read`` lets git fetch, ``forge-api-read`` an API be read.
Preset: TypeAlias = Literal["git-read", "forge-api-read"]
PRESET_METHODS: dict[Preset, tuple[str, ...]] = {
    "git-read": ("GET", "POST"),
    "forge-api-read": ("GET", "HEAD"),
}

#: Ports a route opens when it does not say: 443 always, 80 only where no credential is injected.
DEFAULT_PORTS = (443, 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteAuth:
    """Which credential egress adds on a route, and how.

    ``scheme`` is ``Bearer`` or ``token`` (``Authorization: <scheme> <value of token_ref>``), ``Basic``,
    ``header`` or ``query``. ``name`` is the user of ``Basic`` (empty: the value is user:password), the header
    or the query's parameter. ``placeholders`` are texts that stand for the credential inside the bottle.
    """

    scheme: str
    token_ref: str
    name: str = ""
    placeholders: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The form in words for people: the scheme, and what it names."""
        return f"{self.scheme} {self.name}" if self.name else self.scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRoute:
    """One permitted destination.

    ``host`` is a normalised host name (lower case, no trailing dot, A-label) or, with a leading ``*.``,
    every name below one. Empty ``path_allowlist`` or ``methods`` means all. ``tls_passthrough`` switches
    content rules off for the host; the connection is still intercepted, and the bottle's own secrets are
    refused all the same. ``detectors`` are the rules that are on otherwise, ``on_match`` what becomes of a
    request they find something in, ``on_opaque`` of one that cannot be read (``None``: what says that it is
    text must be readable), ``max_body`` the most bytes of a body, ``responses`` what becomes of answers that
    order an agent about. ``ssrf_ip_allowlist`` names the otherwise
    refused networks this host may resolve to. ``strip_cookies`` keeps the bottle's cookies from it, and its
    own from the bottle.
    ``http2`` offers HTTP/2 to its clients and to its server, by ALPN. ``usage`` names the API by which the
    host's answers say how much of a model they used. ``git_read`` lets git's fetches pass and nothing else.
    ``origin`` says where the route was declared.
    """

    host: str
    path_allowlist: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    auth: RouteAuth | None = None
    tls_passthrough: bool = False
    ssrf_ip_allowlist: tuple[Network, ...] = ()
    strip_cookies: bool = False
    detectors: tuple[Kind, ...] = DETECTORS
    on_match: OnMatch = "block"
    on_opaque: OnOpaque | None = None
    max_body: int | None = None
    responses: Responses = "warn"
    http2: bool = False
    usage: UsageApiName | None = None
    git_read: bool = False
    origin: str = "manifest"

    @property
    def answers(self) -> Responses:
        """What becomes of an answer that orders an agent about; content rules that are off look at none."""
        return "off" if self.tls_passthrough else self.responses

    @property
    def effective_ports(self) -> tuple[int, ...]:
        """The TCP ports this route opens."""
        if self.ports:
            return self.ports
        return (443,) if self.auth else DEFAULT_PORTS

    def to_wire(self) -> dict[str, object]:
        """Give the JSON form for the sidecar's config; it holds names, never values."""
        return {
            "host": self.host,
            "path_allowlist": list(self.path_allowlist),
            "methods": list(self.methods),
            "ports": list(self.ports),
            "auth": _auth_to_wire(self.auth) if self.auth else None,
            "tls_passthrough": self.tls_passthrough,
            "ssrf_ip_allowlist": [str(network) for network in self.ssrf_ip_allowlist],
            "strip_cookies": self.strip_cookies,
            "detectors": list(self.detectors),
            "on_match": self.on_match,
            "on_opaque": self.on_opaque,
            "max_body": self.max_body,
            "responses": self.responses,
            "http2": self.http2,
            "usage": self.usage,
            "git_read": self.git_read,
            "origin": self.origin,
        }

    @classmethod
    def from_wire(cls, obj: Mapping[str, object]) -> EgressRoute:
        """Read what :meth:`to_wire` wrote; raises ``KeyError``, ``TypeError`` or ``ValueError`` otherwise."""
        auth = obj["auth"]
        return cls(
            host=_text(obj["host"]),
            path_allowlist=_texts(obj["path_allowlist"]),
            methods=_texts(obj["methods"]),
            ports=_ints(obj["ports"]),
            auth=_auth_from_wire(auth),
            tls_passthrough=obj["tls_passthrough"] is True,
            ssrf_ip_allowlist=tuple(ip_network(text) for text in _texts(obj["ssrf_ip_allowlist"])),
            strip_cookies=obj["strip_cookies"] is True,
            detectors=tuple(kind for kind in DETECTORS if kind in _texts(obj["detectors"])),
            on_match=on_match(_text(obj["on_match"])),
            on_opaque=_on_opaque(obj["on_opaque"]),
            max_body=_count(obj["max_body"]),
            responses=_responses(obj["responses"]),
            http2=obj["http2"] is True,
            usage=usage_api(obj["usage"]),
            git_read=obj["git_read"] is True,
            origin=_text(obj["origin"]),
        )


def egress_manifest_routes(bottle: ManifestBottle) -> tuple[EgressRoute, ...]:
    """Lift the manifest's routes, including each one's ``pipelock`` block, into egress routes."""
    return tuple(_lift(route, f"egress.routes[{index}]") for index, route in enumerate(bottle.egress.routes))


def egress_routes_for_bottle(
    bottle: ManifestBottle, provider_routes: Sequence[EgressRoute] = ()
) -> tuple[EgressRoute, ...]:
    """Give the bottle's effective routes: the manifest's, with the provider's merged in."""
    routes = egress_manifest_routes(bottle)
    for provider_route in provider_routes:
        routes = _merge_provider_route(routes, provider_route)
    return routes


def pipelock_effective_tls_passthrough(routes: Iterable[EgressRoute]) -> tuple[str, ...]:
    """List the hosts whose content rules are off, read from the merged routes alone."""
    return tuple(sorted({route.host for route in routes if route.tls_passthrough}))


def egress_token_refs(routes: Iterable[EgressRoute]) -> tuple[str, ...]:
    """List the variable names whose values the routes inject, each once, in route order."""
    return tuple(dict.fromkeys(route.auth.token_ref for route in routes if route.auth))


def egress_resolve_token_values(
    routes: Iterable[EgressRoute], env: Mapping[str, str], *, places: Mapping[str, str] | None = None
) -> dict[str, Secret]:
    """Look up each route's credential in ``env``; ``places`` says of some where their names are written.

    Raises ``UsageError`` naming every variable that is unset or empty, never a value. A value with
    control characters is refused too, since it could not be sent in one header line (RFC 9110, 5.5).
    """
    routes = tuple(routes)
    refs = egress_token_refs(routes)
    missing = [
        (route.auth.token_ref, route)
        for route in routes
        if route.auth and not env.get(route.auth.token_ref, "").strip()
    ]
    if missing:
        told = ", ".join(
            f"{ref} (the credential for {route.host}, declared in {(places or {}).get(ref, route.origin)})"
            for ref, route in missing
        )
        write = " ".join(f"{ref}=..." for ref in dict.fromkeys(ref for ref, _route in missing))
        raise UsageError(
            f"not set (or empty) in the environment: {told}; "
            f"write export {write} before starting, or remove that credential from the bottle"
        )
    values: dict[str, Secret] = {}
    for ref in refs:
        value = env[ref].strip()
        if not value.isascii() or not value.isprintable():
            raise UsageError(f"token_ref: the value of {ref} has characters that no HTTP header may carry")
        values[ref] = Secret(value)
    for route in routes:
        auth = route.auth
        if auth and auth.scheme == "Basic" and not auth.name and ":" not in values[auth.token_ref].reveal():
            raise UsageError(
                f"token_ref: the value of {auth.token_ref} (the credential for {route.host}, declared in "
                f"{route.origin}) is not user:password; write the user as name beside scheme: Basic"
            )
    return values


def _merge_provider_route(routes: tuple[EgressRoute, ...], provided: EgressRoute) -> tuple[EgressRoute, ...]:
    """Fold one provider route into ``routes``.

    The provider owns its host's credential and passthrough. Where the operator wrote the same host, the
    operator's narrower paths, methods and ports stay, so that declaring a route can only restrict.
    """
    for index, route in enumerate(routes):
        if route.host == provided.host:
            merged = replace(
                route,
                auth=provided.auth or route.auth,
                tls_passthrough=provided.tls_passthrough or route.tls_passthrough,
                http2=provided.http2 or route.http2,
                usage=route.usage or provided.usage,
                path_allowlist=route.path_allowlist or provided.path_allowlist,
                methods=route.methods or provided.methods,
                ports=route.ports or provided.ports,
                strip_cookies=provided.strip_cookies or route.strip_cookies,
                origin=f"{route.origin} + {provided.origin}",
            )
            return (*routes[:index], merged, *routes[index + 1 :])
    return (*routes, provided)


def _lift(route: ManifestRoute, origin: str) -> EgressRoute:
    return EgressRoute(
        host=route.host,
        path_allowlist=tuple(route.path_allowlist),
        methods=PRESET_METHODS[route.preset] if route.preset else tuple(route.methods),
        ports=tuple(route.ports),
        auth=_lift_auth(route.auth) if route.auth else None,
        tls_passthrough=route.pipelock.tls_passthrough,
        http2=route.http2,
        usage=route.usage,
        git_read=route.preset == "git-read",
        ssrf_ip_allowlist=tuple(ip_network(text) for text in route.pipelock.ssrf_ip_allowlist),
        strip_cookies=route.strip_cookies,
        detectors=route.pipelock.detectors,
        on_match=route.pipelock.on_match,
        on_opaque=route.pipelock.on_opaque,
        max_body=route.pipelock.max_body,
        responses=route.pipelock.responses,
        origin=origin,
    )


def _lift_auth(auth: ManifestAuth) -> RouteAuth:
    return RouteAuth(
        scheme=auth.scheme,
        token_ref=auth.token_ref,
        name=auth.name,
        placeholders=(auth.placeholder,) if auth.placeholder else (),
    )


def _auth_to_wire(auth: RouteAuth) -> dict[str, object]:
    return {
        "scheme": auth.scheme,
        "token_ref": auth.token_ref,
        "name": auth.name,
        "placeholders": list(auth.placeholders),
    }


def _auth_from_wire(obj: object) -> RouteAuth | None:
    if obj is None:
        return None
    if not isinstance(obj, dict):
        raise TypeError("auth must be an object")
    return RouteAuth(
        scheme=_text(obj["scheme"]),
        token_ref=_text(obj["token_ref"]),
        name=_text(obj["name"]),
        placeholders=_texts(obj["placeholders"]),
    )


def on_match(text: str) -> OnMatch:
    """Read what becomes of a match; whatever is not known refuses."""
    return "ask" if text == "ask" else "redact" if text == "redact" else "block"


def _on_opaque(value: object) -> OnOpaque | None:
    if value is None:
        return None
    return "allow" if _text(value) == "allow" else "deny"


def preset_named(value: str) -> Preset | None:
    """Read a preset's name; ``None`` for none. Raises ``ValueError`` for one that is not known."""
    for name in PRESET_METHODS:
        if name == value:
            return name
    if value:
        raise ValueError("expected the name of a preset")
    return None


def usage_api(value: object) -> UsageApiName | None:
    """Read the name of an API; ``None`` for none. Raises ``ValueError`` for one that is not known."""
    if value in {None, ""}:
        return None
    for name in USAGE_API_NAMES:
        if name == value:
            return name
    raise ValueError("expected the name of an API")


def _responses(value: object) -> Responses:
    match _text(value):
        case "off":
            return "off"
        case "warn":
            return "warn"
    return "block"


def _count(value: object) -> int | None:
    if value is not None and type(value) is not int:
        raise TypeError("expected a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("expected a list of texts")
    return tuple(_text(item) for item in value)


def _ints(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise TypeError("expected a list of whole numbers")
    return tuple(value)
