"""Which hosts get or got a credential, whatever route is taken to them: their answers are searched. Pure.

A server may show on one path what came with a request to another, and to another port. So it is the host
that counts, for as long as its sidecar lives: a route that is granted beside one with a credential, or that
lost its ``auth`` since, opens answers that may hold it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot_bottle.egress.hosts import HostError, normalise_host
from bot_bottle.egress.injection import injection
from bot_bottle.egress.routes import RouteAuth

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bot_bottle.egress.injection import Injection
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.git_gate.remote import GateConfig
    from bot_bottle.secret import Secret


@dataclass(frozen=True, slots=True)
class Sent:
    """In what forms each host gets or got credentials; ``beside`` holds those that are no route's."""

    forms: Mapping[str, frozenset[RouteAuth]] = field(default_factory=dict)
    beside: Mapping[str, Secret] = field(default_factory=dict, repr=False)

    def and_also(self, other: Sent) -> Sent:
        """Give what holds of either."""
        if other == self or not other.forms:
            return self
        forms = dict(self.forms)
        for host, auths in other.forms.items():
            forms[host] = forms.get(host, frozenset()) | auths
        return Sent(forms, {**other.beside, **self.beside})

    def to(self, host: str, secrets: Mapping[str, Secret]) -> frozenset[Injection]:
        """Give what a request to ``host`` may have been given of ``secrets``, its name normalised."""
        held = {**self.beside, **secrets}
        added = (injection(auth, held) for auth in self.forms.get(host, ()))
        return frozenset(one for one in added if one is not None)

    def derived(self, values: Iterable[tuple[str, Secret]]) -> list[bytes]:
        """Give the texts made of ``values``, by the name of each, that open as much as they do."""
        auths = frozenset[RouteAuth]().union(*self.forms.values())
        added = (injection(auth, {name: value}) for name, value in values for auth in auths)
        return [text for one in added if one is not None for text in one.derived]


def sent_on(routes: Iterable[EgressRoute], secrets: Mapping[str, Secret]) -> Sent:
    """Say what the hosts of ``routes`` get; one whose credential is missing gets none."""
    forms: dict[str, frozenset[RouteAuth]] = {}
    for route in routes:
        if route.auth is not None and route.auth.token_ref in secrets:
            forms[route.host] = forms.get(route.host, frozenset()) | {route.auth}
    return Sent(forms)


def sent_by_git(settings: GateConfig | None) -> Sent:
    """Say what the git gate sends its upstreams over https."""
    forms: dict[str, frozenset[RouteAuth]] = {}
    beside: dict[str, Secret] = {}
    for name, remote in settings.tokens().items() if settings else ():
        try:
            host = normalise_host(remote.upstream_host)
        except HostError:
            continue  # no request of the bottle's names it either
        forms.setdefault(host, frozenset())
        if remote.token.reveal().isascii():
            forms[host] |= {RouteAuth(scheme="Basic", token_ref=name, name=remote.token_user)}
        beside[name] = remote.token
    return Sent(forms, beside)
