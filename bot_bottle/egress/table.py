"""What one bottle's requests are decided by: its routes and their credentials, looked up by host; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.decision import Allow
from bot_bottle.egress.hosts import host_matches
from bot_bottle.egress.injection import injection
from bot_bottle.egress.placeholders import Placeholders
from bot_bottle.egress.sent import sent_on

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bot_bottle.decision import Deny
    from bot_bottle.egress.injection import Injection
    from bot_bottle.egress.notice import Changed
    from bot_bottle.egress.redact import Needles
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.egress.sent import Sent
    from bot_bottle.secret import Secret


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and, where it is ``Allow``, the route that allowed it; ``changed``: what goes on instead."""

    decision: Allow | Deny
    route: EgressRoute | None = None
    changed: Changed | None = None


class RouteTable:
    """The bottle's routes and credentials, looked up by host."""

    __slots__ = (
        "_by_host",
        "_former",
        "_injections",
        "_needles",
        "_permits",
        "_secrets",
        "ended",
        "halt",
        "placeholders",
        "routes",
        "sent",
    )

    def __init__(
        self,
        routes: Sequence[EgressRoute],
        secrets: Mapping[str, Secret],
        *,
        halt: Deny | None = None,
        ended: Collection[str] = (),
        former: Mapping[str, Sequence[Secret]] | None = None,
        sent: Sent | None = None,
    ) -> None:
        """Index ``routes``; with ``halt`` every request is refused in its words, whatever the routes say.

        ``ended`` names those of ``secrets`` that are good no more. ``former`` are earlier values of theirs,
        which are sent no more and shown as little. ``sent`` is what hosts got besides.
        """
        self.routes = tuple(routes)
        self.halt = halt
        self.ended = frozenset(ended)
        self._by_host: dict[str, tuple[EgressRoute, ...]] = {}
        # By the route object itself: what a request needs of its route is made once.
        self._permits = {id(route): Verdict(Allow(rule=route.origin), route) for route in self.routes}
        self._injections = {id(route): injection(route.auth, secrets) for route in self.routes}
        self._secrets = secrets
        self._former = former or {}
        self._needles: Needles | None = None
        #: What the hosts get by these routes, or got by others before.
        self.sent = sent_on(self.routes, secrets)
        if sent is not None:
            self.sent = self.sent.and_also(sent)
        self.placeholders = Placeholders(self.routes)

    def candidates(self, host: str) -> tuple[EgressRoute, ...]:
        """Give the routes that cover ``host``: those that name it exactly, or else the longest wildcard's."""
        held = self._by_host.get(host)
        if held is None:
            held = self._find(host)
            if held:  # only names that are routed are kept, so a guessing agent cannot grow this
                if len(self._by_host) >= 1024:
                    self._by_host.clear()
                self._by_host[host] = held
        return held

    def opens(self, host: str, port: int) -> bool:
        """Tell whether any route opens ``port`` on ``host``."""
        return any(port in route.effective_ports for route in self.candidates(host))

    def injection(self, route: EgressRoute) -> Injection | None:
        """Give what ``route`` adds to a request; ``None`` where it has no credential."""
        return self._injections[id(route)]

    def follow(self, earlier: RouteTable) -> None:
        """Take the place of ``earlier``: what hosts got by its routes is looked for on."""
        self.sent, self._needles = self.sent.and_also(earlier.sent), None

    def sent_to(self, host: str) -> frozenset[Injection]:
        """Give every credential, in its form, that ``host`` gets on any route, or got."""
        return self.sent.to(host, self._secrets)

    def needles_for(self, host: str) -> Needles | None:
        """Give what is taken out of the answers of ``host``; ``None`` where it never got a credential."""
        return self.needles() if host in self.sent.forms else None

    def needles(self) -> Needles:
        """Give what is taken out of the answers of hosts with a credential: every one of the table's.

        Servers show what came with an earlier request too, so the former values are among them.
        """
        if self._needles is None:
            from bot_bottle.egress.redact import Needles  # noqa: PLC0415 - only where a credential is in use

            held = [*self._secrets.items(), *self.sent.beside.items()]
            held += [(name, secret) for name, those in self._former.items() for secret in those]
            values = [secret.reveal().strip().encode("utf-8", "surrogateescape") for _name, secret in held]
            self._needles = Needles(values + self.sent.derived(held))
        return self._needles

    def permit(self, route: EgressRoute) -> Verdict:
        """Give the verdict that ``route`` allows a request."""
        return self._permits[id(route)]

    def _find(self, host: str) -> tuple[EgressRoute, ...]:
        matching = [route for route in self.routes if host_matches(route.host, host)]
        best = max((len(route.host) for route in matching), default=0)
        exact = tuple(route for route in matching if route.host == host)
        return exact or tuple(route for route in matching if len(route.host) == best)
