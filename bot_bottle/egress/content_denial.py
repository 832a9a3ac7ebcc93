"""How a refusal of content reads: what was found where, never the value, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bot_bottle.decision import Deny
from bot_bottle.pipelock.selection import is_askable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.pipelock.finding import Finding, Kind

#: How the rules about host names begin.
HOST_RULE = "pipelock.host"

REASONS: dict[Kind, str] = {
    "own_secret": "own_secret",
    "credential": "credential_found",
    "financial": "financial_data_found",
    "opaque_token": "opaque_token",
    "opaque": "content_unreadable",
    "error": "scan_failed",
}

_WHAT: dict[Kind, str] = {
    "own_secret": "a secret of this bottle's operator",
    "credential": "a credential",
    "financial": "an account's number or key",
    "opaque_token": "a long unreadable token",
    "opaque": "content that cannot be read",
    "error": "content that could not be judged",
}

_OPERATOR = "the operator can change pipelock of this route in the bottle's manifest"
_NEXT: dict[Kind, str] = {
    "own_secret": "Leave it out: where a route has a credential, the sidecar adds it by itself",
    "credential": f"Take the credential out of what is sent; where this host must get such, {_OPERATOR}",
    "financial": f"Take the number out of what is sent; where this host must get such, {_OPERATOR}",
    "opaque_token": f"Use a name that can be read; where this host needs such tokens, {_OPERATOR}",
    "opaque": f"Send it in a form that can be read; where this host must get it as it is, {_OPERATOR}",
    "error": "Send less at once or in a plainer form; tell the operator where this comes again",
}

#: What weighs most comes first: a refusal names one thing.
_ORDER: tuple[Kind, ...] = ("own_secret", "credential", "financial", "opaque_token", "opaque", "error")


class Human(Protocol):
    """Who is asked where a route says ``on_match: ask``."""

    def claim(self, host: str, value_id: str) -> tuple[str, ...]:
        """Take a use of what was approved of a value for ``host``; gives all values approved with it."""

    def ask(self, host: str, found: Sequence[Finding]) -> str:
        """Ask whether what was found may go to ``host``; gives what came of asking, for the agent."""


def denial(found: tuple[Finding, ...], host: str, route: EgressRoute, human: Human | None = None) -> Deny:
    """Refuse what was found in a request to ``host``, and ask a human where the route says so."""
    worst = min(found, key=lambda one: _ORDER.index(one.kind))
    detail = worst.message or worst.excerpt
    message = f"{_WHAT[worst.kind]} ({worst.rule}) stands in the {worst.where}, so nothing is sent to {host}"
    next_step = _NEXT[worst.kind]
    if route.on_match == "ask" and all(map(is_askable, found)):
        said = (
            human.ask(host, found) if human else "this bottle has nobody to ask (supervise: true is not set)"
        )
        next_step += f". This route asks a human (on_match: ask): {said}"
    if route.on_match == "redact":
        next_step += (
            ". This route overwrites what it finds (on_match: redact) in a query, a header's value or text, "
            "where it stands as it is; this could not be, or never is"
        )
    return Deny(
        reason=REASONS[worst.kind],
        rule=f"pipelock.{worst.rule}",
        message=f"{message}: {detail}" if detail else message,
        next_step=next_step,
    )


def host_denial(found: Finding, route: EgressRoute | None) -> Deny:
    """Refuse a host name before anyone looks it up; ``route`` is the wildcard's, if any covers it."""
    rule = found.rule if found.rule.startswith("host") else f"host-{found.rule}"
    below = f" below {route.host}" if route else ""
    return Deny(
        reason=REASONS[found.kind],
        rule=f"pipelock.{rule}",
        message=f"the host name{below} carries {_WHAT[found.kind]}, and it was not looked up"
        + (f": {found.message}" if found.message else ""),
        next_step="Use the host's plain name; where such names are real, the operator can give each a route",
    )


def too_large(host: str, route: EgressRoute) -> Deny:
    """Refuse a body over the route's bound."""
    return Deny(
        reason="body_too_large",
        rule=f"{route.origin}.pipelock.max_body",
        message=f"the body is larger than the {route.max_body} bytes that this route sends to {host} at once",
        next_step="Send less at once, or ask the operator to raise max_body of this route",
    )


def unavailable(failure: str) -> Deny:
    """Refuse everything, since there is nothing to judge it with."""
    why = f" ({failure})" if failure else ""
    return Deny(
        reason="scanner_unavailable",
        rule="pipelock",
        message=f"content scanning could not be loaded{why}, so nothing is passed on",
        next_step="Have the operator install bot-bottle again with its dependencies, then start anew",
    )
