"""One route table in place of another: what is read, what differs, what may go on. Pure.

A table is taken whole or not at all. What was under way goes on only where the new table would allow it in
the same way: the same credential, the same rules on content and addresses.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.decision import Deny
from bot_bottle.egress.hosts import HostError, normalise_host
from bot_bottle.egress.policy import decide
from bot_bottle.egress.routes import EgressRoute, egress_token_refs
from bot_bottle.egress.table import RouteTable
from bot_bottle.pipelock.selection import DETECTORS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bot_bottle.egress.policy import Policy
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.routes import RouteAuth
    from bot_bottle.secret import Secret

#: Gives the route by which a request under way may go on that the given one allowed, if there is any.
Successor: TypeAlias = "Callable[[EgressRequest, EgressRoute], EgressRoute | None]"

MAX_ROUTES = 4096
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_PATH = re.compile(r"/[\x21-\x7e\x80-\xff]{0,2047}")
_SCHEME = re.compile(r"[A-Za-z]{1,32}", re.ASCII)
_NAME = re.compile(r"[\x21-\x7e]{1,256}")


class TableError(ValueError):
    """The routes make no table; the text names the route and what is wrong, and no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """How one table differs from another, a line for each route that is only in one of them.

    The digests are of both tables in full (SHA-256 of their JSON).
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    before_sha256: str
    after_sha256: str


def read_table(objects: object, secrets: Mapping[str, Secret]) -> RouteTable:
    """Read a table from its routes' JSON form, with credentials from ``secrets``; raises ``TableError``."""
    if not isinstance(objects, list):
        raise TableError("routes: expected a list of routes")
    if len(objects) > MAX_ROUTES:
        raise TableError(f"routes: {len(objects)} routes are more than the {MAX_ROUTES} a bottle may have")
    routes = tuple(_read_route(obj, f"routes[{number}]") for number, obj in enumerate(objects))
    missing = [ref for ref in egress_token_refs(routes) if ref not in secrets]
    if missing:
        raise TableError(f"routes: the sidecar holds no credential named {', '.join(missing)}")
    table = RouteTable(routes, secrets)
    for route in routes:
        if route.auth and table.injection(route) is None:
            raise TableError(f"routes: the credential {route.auth.token_ref} of {route.host} has no value")
    return table


def change(old: Sequence[EgressRoute], new: Sequence[EgressRoute]) -> TableChange:
    """Say how ``new`` differs from ``old``, in the order of each."""
    # Where a route was declared is no part of what it permits.
    lines_old, lines_new = [describe_route(one) for one in old], [describe_route(one) for one in new]
    return TableChange(
        before=tuple(line for line in lines_old if line not in set(lines_new)),
        after=tuple(line for line in lines_new if line not in set(lines_old)),
        before_sha256=_digest(old),
        after_sha256=_digest(new),
    )


def describe_route(route: EgressRoute) -> str:
    """Write everything that a route permits on one line: names, never values."""
    obj = route.to_wire()
    said = [route.host, ",".join(route.methods) or "any method", " ".join(route.path_allowlist) or "any path"]
    said.append("ports " + ",".join(map(str, route.effective_ports)))
    if route.auth:
        stands = "".join(f", {json.dumps(one)} stands for it inside" for one in route.auth.placeholders)
        said.append(f"credential {route.auth.token_ref} ({route.auth.shown}{stands})")
    if route.tls_passthrough:
        said.append("tls_passthrough")
    if route.detectors != DETECTORS:
        said.append("detectors " + (",".join(route.detectors) or "none"))
    if route.on_match != "block":
        said.append(f"on_match {route.on_match}")
    if route.responses != "warn":
        said.append(f"responses {route.responses}")
    if route.ssrf_ip_allowlist:
        said.append("addresses " + ",".join(map(str, route.ssrf_ip_allowlist)))
    # What is added to routes later is said too, plainly, rather than forgotten.
    rest = {name: value for name, value in obj.items() if name not in _SAID and value not in (None, [], "")}
    said += [f"{name} {json.dumps(value, sort_keys=True)}" for name, value in rest.items() if value]
    return "; ".join(said)


def successor(
    request: EgressRequest, route: EgressRoute, old: RouteTable, new: RouteTable, policies: Sequence[Policy]
) -> EgressRoute | None:
    """Give the route of ``new`` by which a request may go on that ``route`` of ``old`` allowed, if any."""
    verdict = decide(request, new, policies)
    if isinstance(verdict.decision, Deny) or verdict.route is None:
        return None
    same = _bare(verdict.route) == _bare(route) and old.injection(route) == new.injection(verdict.route)
    # Its answer is searched for what its host got when it began, and may show what comes with others now.
    return verdict.route if same and new.sent_to(request.host) <= old.sent_to(request.host) else None


def host_changed(host: str, old: RouteTable, new: RouteTable) -> bool:
    """Tell whether anything about ``host`` differs between two tables, a credential's value included."""
    before, after = old.candidates(host), new.candidates(host)
    return [_whole(one) for one in before] != [_whole(one) for one in after] or [
        old.injection(one) for one in before
    ] != [new.injection(one) for one in after]


_SAID = frozenset(
    [
        "host",
        "path_allowlist",
        "methods",
        "ports",
        "auth",
        "tls_passthrough",
        "ssrf_ip_allowlist",
        "detectors",
        "on_match",
        "responses",
        "origin",
    ]
)


def _whole(route: EgressRoute) -> EgressRoute:
    """Give a route without the place it was declared at."""
    return replace(route, origin="")


def _bare(route: EgressRoute) -> EgressRoute:
    """Give a route without what :func:`decide` has just judged by, and what decides nothing."""
    judged = replace(route, path_allowlist=(), methods=(), git_read=False, ports=route.effective_ports)
    return replace(judged, origin="", usage=None)


def _digest(routes: Sequence[EgressRoute]) -> str:
    text = json.dumps([route.to_wire() for route in routes], sort_keys=True)
    return hashlib.sha256(text.encode(), usedforsecurity=True).hexdigest()


def _is_sound(auth: RouteAuth) -> bool:
    names = _METHOD if auth.scheme == "header" else _NAME  # a header's name is a token, as a method is
    needs_name = auth.scheme in {"header", "query"}
    named = names.fullmatch(auth.name) is not None if auth.name or needs_name else True
    return named and bool(_NAME.fullmatch(auth.token_ref) and _SCHEME.fullmatch(auth.scheme))


def _read_route(obj: object, where: str) -> EgressRoute:
    """Read one route and judge what a manifest's reader would have judged; raises ``TableError``."""
    if not isinstance(obj, dict):
        raise TableError(f"{where}: a route is an object")
    try:
        route = EgressRoute.from_wire(obj)
    except KeyError as error:
        raise TableError(f"{where}: {error.args[0]} is missing") from None
    except (TypeError, ValueError) as error:
        raise TableError(f"{where}: is no route ({error})") from None
    try:
        name = route.host.removeprefix("*.")
        known = normalise_host(name) == name
    except HostError as error:
        raise TableError(f"{where}.host: {error}") from None
    if not known:
        raise TableError(f"{where}.host: is not in its one spelling (lower case, no trailing dot)")
    if not all(_METHOD.fullmatch(method) for method in route.methods):
        raise TableError(f"{where}.methods: holds something that is no method")
    if not all(_PATH.fullmatch(path) for path in route.path_allowlist):
        raise TableError(f"{where}.path_allowlist: a path begins with / and has no space in it")
    if not all(0 < port < 65536 for port in route.ports):
        raise TableError(f"{where}.ports: a port is a number from 1 to 65535")
    if route.auth and not _is_sound(route.auth):
        raise TableError(f"{where}.auth: names no credential, or nothing that it could be sent as")
    if route.auth and name != route.host:
        raise TableError(f"{where}.auth: a credential goes to one host only, not to a wildcard")
    return route
