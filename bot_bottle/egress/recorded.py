"""What the record of a decision on a request holds, and what is said where it cannot be made; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.decision import Allow, Deny

if TYPE_CHECKING:
    from bot_bottle.audit import AuditValue
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.routes import EgressRoute

#: How many characters of a request's path are put on record.
_MAX_PATH = 1024
_PATH_END = 320


def record_fields(
    request: EgressRequest,
    decision: Allow | Deny,
    *,
    kind: str = "deny",
    via: str = "",
    injected: str | None = None,
) -> dict[str, AuditValue]:
    """List what the record of a decision holds; ``kind`` is ``deny`` or ``error`` for what is refused."""
    denied = decision if isinstance(decision, Deny) else None
    return {
        "decision": kind if denied else "allow",
        "reason": denied.reason if denied else None,
        "rule": decision.rule,
        "message": denied.message if denied else None,
        "scheme": request.scheme,
        "method": request.method,
        "host": request.host,
        "port": request.port,
        "path": shown_path(request.path),
        "via": via or request.via,
        "injected": injected,
    }


def shown_path(path: str) -> str:
    """Give a path as it is recorded: of a long one its end too, which may lead back out of its beginning."""
    if len(path) <= _MAX_PATH:
        return path
    start = _MAX_PATH - _PATH_END
    left_out = f"...({len(path) - _MAX_PATH} characters)..."
    return f"{path[:start]}{left_out}{path[-_PATH_END:]}"


def credential_name(route: EgressRoute) -> str | None:
    """Give the name under which a credential that ``route`` adds is recorded; None where it adds none."""
    return route.auth.token_ref if route.auth else None


def grant_used_up(route: EgressRoute) -> Deny:
    """Refuse what was granted for a number of requests, all of which have been made."""
    return Deny(
        reason="grant_used_up",
        rule=route.origin,
        message=f"what was granted for {route.host} has been used",
        next_step="Ask again with request_egress where the supervise server is at hand, or ask the operator",
    )


def audit_failed() -> Deny:
    """Refuse what could not be put on record."""
    return Deny(
        reason="audit_failed",
        rule="egress.audit",
        message="the decision could not be put on record, so the request is refused",
        next_step="Have the operator free disk space or move a full audit log away, then start again",
    )
