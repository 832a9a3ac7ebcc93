"""What a human's yes opens: routes for a while, beside those of the manifest. Pure.

A grant carries no credential, whatever the host: a request that needs one needs the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.egress.hosts import host_matches
from bot_bottle.egress.routes import EgressRoute
from bot_bottle.legible import exact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

#: Methods that change nothing on a server (RFC 9110, 9.2.1).
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

#: Hosts where anybody has a place of their own, so that opening them opens everybody's.
_MULTI_TENANT = (
    "github.com", "api.github.com", "gist.github.com", "raw.githubusercontent.com", "gitlab.com",
    "bitbucket.org", "codeberg.org", "huggingface.co", "pastebin.com", "discord.com", "hooks.slack.com",
    "storage.googleapis.com", "dropbox.com", "drive.google.com", "docs.google.com", "t.me",
    "api.telegram.org", "webhook.site", "ngrok.io", "trycloudflare.com", "workers.dev", "pages.dev",
    "vercel.app", "netlify.app", "herokuapp.com", "blogspot.com", "github.io", "githubusercontent.com",
    "amazonaws.com", "blob.core.windows.net", "r2.dev", "web.app", "firebaseio.com", "fly.dev",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One route that a request was granted, until a time and for a number of uses.

    ``until`` is seconds since the epoch; None lasts as long as the bottle. ``uses`` counts requests; None
    is any number. With ``values`` it opens nothing: what they are the ids of may go to the route's host.
    """

    request: str
    route: EgressRoute
    until: int | None = None
    uses: int | None = None
    values: tuple[str, ...] = ()

    def holds(self, now: float) -> bool:
        """Tell whether it still holds at ``now``, seconds since the epoch."""
        return (self.until is None or now < self.until) and self.uses != 0

    @property
    def terms(self) -> str:
        """Say in one line what it opens and for how long."""
        route = self.route
        if self.values:
            return f"what was found may go to {route.host}, {self._how_long()}"
        what = f"{' '.join(route.methods) or 'any method'} {route.host}"
        paths = " ".join(route.path_allowlist) or "(all paths)"
        return f"{what} {paths}, {self._how_long()}"

    @property
    def head(self) -> str:
        """Say what kind of thing it opens and for how long, in a line that no list makes long."""
        if self.values:
            return self.terms
        return f"requests to {self.route.host}, {self._how_long()}, with"

    @property
    def items(self) -> tuple[str, ...]:
        """Say each thing it opens, the widest first."""
        if self.values:
            return ()
        paths = sorted(self.route.path_allowlist, key=len)
        methods = [f"method {exact(one)}" for one in self.route.methods] or ["any method"]
        return (*methods, *([f"path {exact(one)}" for one in paths] or ["all paths"]))

    def _how_long(self) -> str:
        if self.uses is not None:
            return "for one request" if self.uses == 1 else f"for {self.uses} requests"
        if self.until is None:
            return "for as long as this bottle lives"
        from datetime import UTC, datetime  # noqa: PLC0415 - only where there is an end to say

        return f"until {datetime.fromtimestamp(self.until, UTC):%Y-%m-%d %H:%M} UTC"

    def to_wire(self) -> dict[str, object]:
        """Give the JSON form."""
        return {
            "request": self.request,
            "route": self.route.to_wire(),
            "until": self.until,
            "uses": self.uses,
            "values": list(self.values),
        }

    @classmethod
    def from_wire(cls, obj: Mapping[str, object]) -> Grant:
        """Read what :meth:`to_wire` wrote; raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        request, route, until, uses = obj["request"], obj["route"], obj["until"], obj["uses"]
        if not isinstance(request, str) or not isinstance(route, dict):
            raise TypeError("no grant")
        values = obj.get("values", [])
        if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
            raise TypeError("no grant")
        for number in (until, uses):
            if number is not None and type(number) is not int:
                raise TypeError("no grant")
        grant = cls(
            request=request,
            route=EgressRoute.from_wire(route),
            until=until if isinstance(until, int) else None,
            uses=uses if isinstance(uses, int) else None,
            values=tuple(values),
        )
        if grant.route.auth is not None or grant.route.ssrf_ip_allowlist or grant.route.tls_passthrough:
            raise ValueError(
                "a grant opens a plain route: no credential, no internal address, no passthrough"
            )
        return grant


def grant_route(
    request: str, host: str, paths: Iterable[str] = (), methods: Iterable[str] = ()
) -> EgressRoute:
    """Make the route of a grant: HTTPS alone, without a credential."""
    return EgressRoute(
        host=host,
        path_allowlist=tuple(paths),
        methods=tuple(methods),
        ports=(443,),
        origin=f"grant {request}",
    )


def warnings(route: EgressRoute, with_credential: Collection[str] = ()) -> tuple[str, ...]:
    """Say what a human should weigh before a route is opened; some hosts have a credential on another."""
    found: list[str] = []
    if route.host in with_credential:
        found.append(
            f"{route.host} gets a credential on another route; none is sent here, and what it answers is "
            "searched for that one as well"
        )
    elif below := sorted(host for host in with_credential if host_matches(route.host, host)):
        found.append(
            f"{', '.join(below)} keep to routes of their own, with a credential; what other names below "
            f"{route.host[2:]} answer is not searched for it"
        )
    if route.host.startswith("*."):
        found.append(
            f"every name below {route.host[2:]} is opened, and names can carry data to its name servers"
        )
    name = route.host.removeprefix("*.")
    if other := _in_letters(name):
        found.append(
            f"{name} reads {other} where other alphabets are shown: it may only look like a name you know"
        )
    if (owner := _owner(name)) != name and name.count(".") > owner.count(".") + 1:
        found.append(f"it belongs to whoever owns {owner}, whatever stands before that")
    if any(name == tenant or name.endswith(f".{tenant}") for tenant in _MULTI_TENANT):
        found.append(f"{name} serves many owners: what is opened may be an attacker's place on it as well")
    if not route.methods:
        found.append("all methods are opened, those that write included")
    elif writing := [method for method in route.methods if method not in _SAFE]:
        some = f"{', '.join(writing[:3])}{' and others' * (len(writing) > 3)}"
        found.append(f"{some} can send out what the bottle holds")
    if not route.path_allowlist or "/" in route.path_allowlist:
        found.append("all paths are opened")
    return tuple(found)


def _in_letters(name: str) -> str:
    """Give a name with its A-labels decoded (RFC 5890, 2.3.2.1), fit to be shown; empty where it has none."""
    labels = name.split(".")
    if not any(label.startswith("xn--") for label in labels):
        return ""
    shown = []
    for label in labels:
        try:
            text = label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else label
        except UnicodeError:
            text = label
        shown.append("".join(char if char.isprintable() else "?" for char in text))
    return ".".join(shown)


def _owner(name: str) -> str:
    """Give the end of a name that one owner has registered, as far as the list of suffixes knows."""
    from bot_bottle.manifest.suffixes import shared_suffix  # noqa: PLC0415 - a list to read, at a yes only

    labels = name.split(".")
    for count in range(2, len(labels) + 1):
        end = ".".join(labels[-count:])
        if shared_suffix(end) != end:
            return end
    return name
