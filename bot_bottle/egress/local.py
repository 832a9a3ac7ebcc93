"""What egress answers itself, under a name of its own: the routes, for a program that asks what is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.egress.policy import SHOW_ROUTES, Step, names_agree, not_halted, sni_present

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.egress.table import RouteTable


def decide_local(request: EgressRequest, table: RouteTable) -> Deny | None:
    """Decide a request for ``_egress.local``: one path, read only, under one name."""
    step = Step(request, None, table)
    if deny := not_halted(step) or names_agree(step) or sni_present(step):
        return deny
    if request.path == "/allowlist" and request.method in {"GET", "HEAD"}:
        return None
    return Deny(
        reason="not_found",
        rule="egress.local",
        message=f"egress answers no {request.method} of this path",
        next_step=SHOW_ROUTES,
    )


def allowlist(identity: str, routes: Sequence[EgressRoute]) -> dict[str, object]:
    """Give the routes as the bottle may see them, ready for JSON: names of credentials, never values."""
    return {"identity": identity, "routes": [_shown(route) for route in routes]}


def _shown(route: EgressRoute) -> dict[str, object]:
    auth = route.auth
    return {
        "host": route.host,
        "path_allowlist": list(route.path_allowlist),
        "methods": list(route.methods),
        "ports": list(route.effective_ports),
        "auth": {
            "scheme": auth.scheme,
            "token_ref": auth.token_ref,
            **({"name": auth.name} if auth.name else {}),
        }
        if auth
        else None,
        "tls_passthrough": route.tls_passthrough,
        "http2": route.http2,
    }
