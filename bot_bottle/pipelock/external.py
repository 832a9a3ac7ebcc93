"""The config of the external pipelock program as a second hop behind egress. Pure.

It holds host names, networks and paths, never a value: what egress adds to a request passes the program
unread, since the hosts that get a credential are on its list of those whose TLS it does not open (its own
rules would call every credential that is sent where it belongs a leak). The keys are those of its
documentation (``docs/configuration.md`` of github.com/luckyPipewrench/pipelock); it refuses ones it does not
know. YAML is a superset of JSON, so the file is JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.egress.routes import pipelock_effective_tls_passthrough

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.egress.routes import EgressRoute

#: Egress has its own bounds; the program's are for agents that reach it themselves.
_NO_BOUND = 1_000_000
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HopPlace:
    """Where the program listens on loopback, and the files of the pair by which it opens TLS."""

    port: int
    ca_cert: str
    ca_key: str


def external_config(routes: Sequence[EgressRoute], place: HopPlace) -> str:
    """Render the program's config for ``routes``, the effective ones."""
    networks = sorted({str(network) for route in routes for network in route.ssrf_ip_allowlist})
    config: dict[str, object] = {
        "version": 1,
        "mode": "strict",
        "enforce": True,
        "api_allowlist": sorted({route.host for route in routes}),
        "fetch_proxy": {
            "listen": f"127.0.0.1:{place.port}",
            "monitoring": {
                "max_requests_per_minute": _NO_BOUND,
                "max_url_length": 64 * 1024,
                "blocklist": [],
            },
        },
        "forward_proxy": {"enabled": True, "sni_verification": True},
        "tls_interception": {
            "enabled": True,
            "ca_cert": place.ca_cert,
            "ca_key": place.ca_key,
            "passthrough_domains": list(external_passthrough(routes)),
            "max_response_bytes": _MAX_BYTES,
        },
        "request_body_scanning": {
            "enabled": True,
            "action": "block",
            "max_body_bytes": _MAX_BYTES,
            "scan_headers": True,
            "header_mode": "all",
        },
    }
    if networks:
        config["ssrf"] = {"ip_allowlist": networks}
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def external_passthrough(routes: Sequence[EgressRoute]) -> tuple[str, ...]:
    """List the hosts whose TLS the program does not open: content rules are off, or a credential is sent."""
    credentials = {route.host for route in routes if route.auth is not None}
    return tuple(sorted({*pipelock_effective_tls_passthrough(routes), *credentials}))
