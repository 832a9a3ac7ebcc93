"""A changed manifest and the bottle that runs by the old one: what can be changed in it, and what cannot."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot_bottle.agent_provider.registry import agent_provision_plan
from bot_bottle.control_client import ControlClient
from bot_bottle.declared import declared, differences, read_declared, write_routes
from bot_bottle.egress import reload
from bot_bottle.egress.routes import (
    EgressRoute,
    egress_resolve_token_values,
    egress_routes_for_bottle,
    egress_token_refs,
)
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.bottle_state import BottleMetadata
    from bot_bottle.manifest.model import Manifest, ManifestAgent, ManifestBottle
    from bot_bottle.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the manifest as it is now would change in a running bottle.

    ``change`` is what can be applied live; ``restart`` says in words what holds from the next start on only.
    ``secrets`` are the credentials that the bottle does not hold yet.
    """

    identity: str
    routes: tuple[EgressRoute, ...]
    change: reload.TableChange
    restart: tuple[str, ...] = ()
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)

    @property
    def is_live(self) -> bool:
        """Tell whether there is anything to apply."""
        return bool(self.change.before or self.change.after)


def propose(metadata: BottleMetadata, manifest: Manifest, host_env: Mapping[str, str]) -> Proposal:
    """Hold the manifest against the running bottle.

    Credentials that the bottle holds stay as they are; others are read as a launch reads them. Raises
    ``UsageError`` (a bad manifest, a credential that is not set) and ``LaunchError`` where the sidecar does
    not answer.
    """
    identity = metadata.identity
    agent = manifest.require_agent(metadata.agent_name)
    bottle = manifest.bottle_for(metadata.agent_name)
    provision = agent_provision_plan(bottle, agent, env={}, preview=True)
    routes = egress_routes_for_bottle(bottle, provision.egress_routes)
    with ControlClient.connect(identity) as client:
        status = client.order("status")
    held = status.get("credentials")
    known = frozenset(map(str, held)) if isinstance(held, list) else frozenset()
    before = read_declared(identity)
    return Proposal(
        identity=identity,
        routes=routes,
        change=reload.change(_running_routes(status), routes),
        restart=() if before is None else differences(before, declared(agent, bottle, identity)),
        secrets=_new_secrets(routes, known, agent, bottle, host_env),
    )


def apply(proposal: Proposal) -> int:
    """Let the proposal's routes hold; gives how many connections were closed. Raises ``LaunchError``."""
    with ControlClient.connect(proposal.identity) as client:
        answer = client.order(
            "reload",
            routes=[route.to_wire() for route in proposal.routes],
            secrets={name: secret.reveal() for name, secret in proposal.secrets.items()},
        )
    with contextlib.suppress(OSError):  # a full disk: `resume` then shows the change once more
        write_routes(proposal.identity, proposal.routes)
    closed = answer.get("closed")
    return closed if isinstance(closed, int) else 0


def _running_routes(status: Mapping[str, object]) -> tuple[EgressRoute, ...]:
    routes = status.get("routes")
    try:
        return tuple(EgressRoute.from_wire(one) for one in routes) if isinstance(routes, list) else ()
    except (KeyError, TypeError, ValueError) as error:
        raise LaunchError(
            "the bottle's sidecar is of another version than this program; stop the bottle and resume it"
        ) from error


def _new_secrets(
    routes: tuple[EgressRoute, ...],
    held: frozenset[str],
    agent: ManifestAgent,
    bottle: ManifestBottle,
    host_env: Mapping[str, str],
) -> dict[str, Secret]:
    """Read the credentials that the bottle does not hold, by the launcher's own rules."""
    needing = [route for route in routes if route.auth and route.auth.token_ref not in held]
    if not needing:
        return {}
    env = dict(host_env)
    if not set(egress_token_refs(needing)) <= env.keys():
        # Only the provider's own credentials are not variables of the host's.
        provision = agent_provision_plan(bottle, agent, env=host_env, headless=True, resume=True)
        env.update(provision.provisioned_env)
    return egress_resolve_token_values(needing, env)
