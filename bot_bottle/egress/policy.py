"""Whether a request may leave: pure functions over one parsed request and the route table.

:data:`POLICIES` is the order of all checks and the only place that knows it. Every one of them runs before
a name is resolved or a connection made; what is decided later (the address guard) can only refuse more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from bot_bottle.decision import Deny
from bot_bottle.egress.addresses import METADATA_NAMES
from bot_bottle.egress.git_push import is_git_fetch, is_git_push
from bot_bottle.egress.hosts import EGRESS_LOCAL_HOST, is_ip_literal
from bot_bottle.egress.injection import plain_name
from bot_bottle.egress.paths import AmbiguousPathError, fully_decoded, path_allowed, paths_named
from bot_bottle.egress.table import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.egress.table import RouteTable

#: Rails, Laravel, Symfony and others take the method from here, Salesforce from the second.
_METHOD_PARAMETERS = frozenset(("_method", "_httpmethod"))
_PARTS = re.compile(r"[?&;]")

#: What a denial tells of where the open routes can be seen.
SHOW_ROUTES = f"GET http://{EGRESS_LOCAL_HOST}/allowlist shows what is open"
_ASK_OPERATOR = f"Ask the operator to widen egress.routes in the bottle's manifest; {SHOW_ROUTES}"


class Step(NamedTuple):
    """What one policy is asked: a request, the route it would take (``None``: no route) and the table."""

    request: EgressRequest
    route: EgressRoute | None
    table: RouteTable


Policy: TypeAlias = "Callable[[Step], Deny | None]"


def not_halted(step: Step) -> Deny | None:
    """The operator may have stopped everything."""
    return step.table.halt


def names_agree(step: Step) -> Deny | None:
    """Every layer must name the same host (domain fronting, Host confusion)."""
    request = step.request
    for where, name in request.claims:
        if name != request.host:
            return Deny(
                reason="names_disagree",
                rule="egress.names_agree",
                message=f"the {where} names {name}, but the request is for {request.host}",
                next_step="Send CONNECT, SNI and Host for one and the same host",
            )
    return None


def sni_present(step: Step) -> Deny | None:
    """A TLS client must say which name it wants; only an IP literal cannot be named (RFC 6066, 3)."""
    if step.request.sni_missing and not is_ip_literal(step.request.host):
        return Deny(
            reason="sni_missing",
            rule="egress.sni_present",
            message=f"the TLS client for {step.request.host} sent no server name (SNI)",
            next_step="Use a client that sends SNI and does not encrypt it (no ECH)",
        )
    return None


def no_metadata_name(step: Step) -> Deny | None:
    """Metadata services hand out the machine's own credentials; no route can open one."""
    if step.request.host in METADATA_NAMES:
        return Deny(
            reason="metadata_denied",
            rule="egress.no_metadata",
            message=f"{step.request.host} is a cloud metadata service, never reachable from a bottle",
            next_step="Have the operator give the bottle the credential it needs through a route's auth",
        )
    return None


def no_git_push(step: Step) -> Deny | None:
    """A push goes through the git gate or not at all, whatever the host."""
    if is_git_push(step.request.path, step.request.query):
        return Deny(
            reason="git_push_denied",
            rule="egress.no_git_push",
            message=f"git push over HTTP to {step.request.host} is refused on every host",
            next_step="Push to a remote that the bottle's manifest declares; commits stay in the workspace",
        )
    return None


def no_trace(step: Step) -> Deny | None:
    """TRACE echoes the request, with the credential that was added to it (RFC 9110, 9.3.8)."""
    if step.request.method == "TRACE":
        return Deny(
            reason="method_denied",
            rule="egress.no_trace",
            message="TRACE is refused on every host, since its answer would echo injected credentials",
            next_step="Use another method",
        )
    return None


def host_routed(step: Step) -> Deny | None:
    """Only declared hosts exist."""
    if step.route is None:
        return Deny(
            reason="host_not_allowed",
            rule="egress.routes",
            message=f"{step.request.host} is not in this bottle's egress routes",
            next_step=_ASK_OPERATOR,
        )
    return None


def no_stray_placeholder(step: Step) -> Deny | None:
    """What stands for a credential goes to that credential's host or nowhere."""
    table, request, auth = step.table, step.request, step.route.auth if step.route else None
    if not table.placeholders:
        return None
    seen = request.placeholders | table.placeholders.seen(f"{request.path}?{request.query}".encode())
    strays = seen - {auth.token_ref} if auth else seen
    if strays:
        ref = min(strays)
        hosts = ", ".join(sorted(one.host for one in table.routes if one.auth and one.auth.token_ref == ref))
        return Deny(
            reason="placeholder_misplaced",
            rule="egress.placeholders",
            message=f"the placeholder of {ref} was sent to {request.host}, which that credential is not for",
            next_step=f"It stands for a credential that is added for {hosts} alone; leave it out here",
        )
    return None


def no_plaintext_credential(step: Step) -> Deny | None:
    """A credential is only ever added over TLS."""
    route = step.route
    if route and route.auth and step.request.scheme != "https":
        return Deny(
            reason="plaintext_credential",
            rule=f"{route.origin}.auth",
            message=f"{step.request.host} has a credential, which is never sent over plain HTTP",
            next_step=f"Use https://{step.request.host}",
        )
    return None


def port_open(step: Step) -> Deny | None:
    """Only the route's ports exist."""
    route = step.route
    if route and step.request.port not in route.effective_ports:
        ports = ", ".join(str(port) for port in route.effective_ports)
        return Deny(
            reason="port_not_allowed",
            rule=f"{route.origin}.ports",
            message=f"port {step.request.port} of {step.request.host} is not open (open: {ports})",
            next_step=_ASK_OPERATOR,
        )
    return None


def method_allowed(step: Step) -> Deny | None:
    """Only the route's methods; where it has some, headers that would change the method are refused too."""
    route = step.route
    if route is None or not route.methods:
        return None
    if step.request.method not in route.methods:
        return Deny(
            reason="method_not_allowed",
            rule=f"{route.origin}.methods",
            message=f"{step.request.method} is not allowed on {step.request.host}",
            next_step=f"Allowed here: {', '.join(route.methods)}. {_ASK_OPERATOR}",
        )
    if step.request.override:
        return Deny(
            reason="method_override",
            rule=f"{route.origin}.methods",
            message=f"the methods of {step.request.host} are limited, so none may be overridden by a header",
            next_step="Send the method itself, without an X-HTTP-Method-Override header",
        )
    return None


def no_method_in_query(step: Step) -> Deny | None:
    """Where a route has methods, no query may name another one, as several web frameworks let it."""
    route, query = step.route, step.request.query
    if route and route.methods and query and _names_method(query):
        return Deny(
            reason="method_override",
            rule=f"{route.origin}.methods",
            message=f"the methods of {step.request.host} are limited, so none may be overridden by the query",
            next_step="Send the method itself, without a _method parameter",
        )
    return None


def _names_method(query: str) -> bool:
    """Tell whether the most generous server reads a method out of a query: PHP reads ``.method`` so, too."""
    if "method" not in (clear := fully_decoded(query) if "%" in query else query.lower()):
        return False
    return any(plain_name(part.partition("=")[0]) in _METHOD_PARAMETERS for part in _PARTS.split(clear))


def path_open(step: Step) -> Deny | None:
    """Only the route's paths, in every way the path can be read."""
    route = step.route
    if route and not path_allowed(step.request.path, route.path_allowlist):
        return Deny(
            reason="path_not_allowed",
            rule=f"{route.origin}.path_allowlist",
            message=f"this path of {step.request.host} is not under an allowed prefix in every reading of it",
            next_step=f"Allowed here: {', '.join(route.path_allowlist)}. {_ASK_OPERATOR}",
        )
    return None


def other_paths_open(step: Step) -> Deny | None:
    """What a header names beside the path, to copy from or to move to, is held to the same rule."""
    route, host = step.route, step.request.host
    if not (route and route.path_allowlist and step.request.elsewhere):
        return None
    named = [paths_named(value, host) for value in step.request.elsewhere]
    if all(named) and all(path_allowed(path, route.path_allowlist) for paths in named for path in paths):
        return None
    return Deny(
        reason="path_not_allowed",
        rule=f"{route.origin}.path_allowlist",
        message=f"a header names a place that is not under an allowed prefix of {host}",
        next_step=f"Allowed here: {', '.join(route.path_allowlist)}. {_ASK_OPERATOR}",
    )


def git_reads_only(step: Step) -> Deny | None:
    """A route for fetching takes git's own two requests; whatever else a forge answers there stays closed."""
    route, request = step.route, step.request
    if route and route.git_read and not is_git_fetch(request.method, request.path, request.query):
        return Deny(
            reason="git_read_only",
            rule=f"{route.origin}.preset",
            message=f"only git's fetches pass to {request.host}, and this is none",
            next_step=f"Use git clone, fetch or ls-remote over https. {_ASK_OPERATOR}",
        )
    return None


def credential_present(step: Step) -> Deny | None:
    """A route with auth is never used without its credential, or with one that is known to have ended."""
    route = step.route
    if route and route.auth and route.auth.token_ref in step.table.ended:
        name = route.auth.token_ref
        return Deny(
            reason="credential_expired",
            rule=f"{route.origin}.auth",
            message=f"the credential {name} of {step.request.host} has ended, and there is no newer one yet",
            next_step="Try again in some minutes: the operator was told, and nothing in here can renew it",
        )
    if route and route.auth and step.table.injection(route) is None:
        return Deny(
            reason="credential_missing",
            rule=f"{route.origin}.auth",
            message=f"the credential {route.auth.token_ref} of {step.request.host} is not set",
            next_step=f"Have the operator export {route.auth.token_ref} and start the bottle again",
        )
    return None


#: Every check on a request, in order; the first that objects decides. All stand before name resolution.
POLICIES: tuple[Policy, ...] = (
    not_halted,
    names_agree,
    sni_present,
    no_metadata_name,
    no_git_push,
    no_trace,
    host_routed,
    no_stray_placeholder,
    no_plaintext_credential,
    port_open,
    method_allowed,
    no_method_in_query,
    path_open,
    other_paths_open,
    git_reads_only,
    credential_present,
)

#: Those of them that look at the path or the query. The others say the same for any target, so that where
#: they had no objection once they have none to the same request for another target.
TARGET_POLICIES: frozenset[Policy] = frozenset(
    (no_git_push, no_stray_placeholder, no_method_in_query, path_open, git_reads_only)
)

#: What can be said of a CONNECT before anything is known of the request inside it.
CONNECT_POLICIES: tuple[Policy, ...] = (not_halted, no_metadata_name, host_routed, port_open)


def may_object(policy: Policy, route: EgressRoute) -> bool:
    """Tell whether a policy ever objects on ``route``; some look only where it has rules of their kind."""
    if policy is no_method_in_query:
        return bool(route.methods)
    if policy is git_reads_only:
        return route.git_read
    return policy is not path_open or bool(route.path_allowlist)


def decide(request: EgressRequest, table: RouteTable, policies: Sequence[Policy] = POLICIES) -> Verdict:
    """Decide one request: ``Allow`` by the first route all of ``policies`` accept, or the best ``Deny``.

    A policy that raises denies; nothing is passed on because a check broke.
    """
    verdict: Verdict | None = None
    for route in table.candidates(request.host) or (None,):
        deny = first_objection(Step(request, route, table), policies)
        if deny is None and route is not None:
            return table.permit(route)
        verdict = verdict or Verdict(deny or _broken_policy("egress.routes"))
    return verdict or Verdict(_broken_policy("egress.routes"))


def first_objection(step: Step, policies: Sequence[Policy]) -> Deny | None:
    """Give what the first of ``policies`` that objects says, or ``None``; one that raises objects."""
    for policy in policies:
        try:
            deny = policy(step)
        except AmbiguousPathError as error:
            return Deny(
                reason="path_ambiguous",
                rule=f"egress.{_name(policy)}",
                message=f"{error}",
                next_step="Send the path plainly, percent-encoded at most once",
            )
        except Exception:  # noqa: BLE001 - fail closed: a check that breaks denies
            return _broken_policy(f"egress.{_name(policy)}")
        if deny is not None:
            return deny
    return None


def _name(policy: Policy) -> str:
    return getattr(policy, "__name__", "policy")


def _broken_policy(rule: str) -> Deny:
    return Deny(
        reason="policy_error",
        rule=rule,
        message="a policy check failed, so the request is refused",
        next_step="Tell the operator; this is a fault in bot-bottle",
    )
