"""What the launcher tells a sidecar, over an inherited pipe and never any other way.

This is the only place where credential values cross from the operator's process to the sidecar. The JSON
is written to a pipe, read once to its end and held in memory only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bot_bottle.audit_chain import ChainEnd
from bot_bottle.egress.routes import EgressRoute
from bot_bottle.git_gate.remote import GateConfig
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bot_bottle.supervise.record import Past

#: How many values of one credential are guarded on after they were renewed.
MOST_FORMER = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """An operator's explicit address for a host: egress dials it instead of asking DNS.

    ``port`` replaces the port dialled, the name that is checked and verified stays the host's.
    """

    address: str
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamProxy:
    """The operator's HTTP proxy, which every upstream connection goes through by CONNECT.

    ``bypass`` lists what is reached without it: host names, ``*.name`` patterns, networks. With ``resolves``
    it is told names in place of checked addresses. ``password_ref`` is the name of the password's variable;
    the password itself is there from a launch on. ``vouch`` is asked, once a connection stands and before it
    says anything, whether what answers there is the proxy; where it says no, nothing is said.
    """

    host: str
    port: int
    user: str = ""
    password: Secret | None = field(default=None, repr=False)
    password_ref: str = ""
    resolves: bool = False
    bypass: tuple[str, ...] = ()
    vouch: Callable[[], bool] | None = field(default=None, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """Say in one line what is used, by name."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        parts = [f"http://{host}:{self.port} (config.toml)"]
        if self.user:
            parts.append(f"as {self.user}")
        if self.password_ref:
            parts.append(f"with the password in {self.password_ref}")
        if self.resolves:
            parts.append("resolves names itself: WHERE A NAME LEADS IS NOT CHECKED")
        if self.bypass:
            parts.append(f"not for {' '.join(self.bypass)}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interception:
    """What a machine's engine needs to hand connections over: its token, and the one address it may name.

    ``token`` is 32 random bytes in hexadecimal, drawn for one launch; ``address`` is IPv4.
    """

    token: Secret = field(repr=False)
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Certificates (PEM) in place of the system's file of roots, its folder, or both; None keeps it."""

    file: str | None = None
    folder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondHopSettings:
    """The external pipelock program: its path, and a folder for its config and certificate authority."""

    program: str
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarConfig:
    """Everything one sidecar knows.

    ``audit_path`` is as the sidecar sees it; with ``audit_after`` its log there continues one that ended so
    elsewhere. ``upstream_ca_pem`` is trusted in addition to the system's roots, or to ``roots`` where given.
    ``interception`` goes with a listener of that role. ``marked`` are the operator's values that are no
    credential of the sidecar's and must not leave either. ``cache`` is a folder, as the sidecar sees it, for
    what can be made again; empty for none. Without ``upstream_proxy`` upstreams are dialled directly.
    With ``supervise``, what was asked and answered in earlier sessions, the agent may ask for more. With
    ``second_hop`` a program stands between egress and the network.
    ``former`` are values that were renewed since, by name, the latest first; they arise in the sidecar and
    are on no wire.
    """

    identity: str
    routes: tuple[EgressRoute, ...]
    audit_path: str
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    upstream_ca_pem: str = ""
    roots: Roots | None = None
    audit_after: ChainEnd | None = None
    interception: Interception | None = None
    git: GateConfig | None = None
    marked: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    cache: str = ""
    upstream_proxy: UpstreamProxy | None = None
    supervise: Past | None = None
    second_hop: SecondHopSettings | None = None
    former: Mapping[str, tuple[Secret, ...]] = field(default_factory=dict, repr=False)

    def guarded(self) -> dict[str, Secret]:
        """Give every value that must not leave, by name: the sidecar's credentials and the marked ones.

        What was renewed may be good still, and servers go on showing it: it stands beside them as
        ``NAME.former1`` (the latest) and so on, which can be no variable's name.
        """
        proxy = self.upstream_proxy
        password = {proxy.password_ref: proxy.password} if proxy and proxy.password else {}
        former = {
            f"{name}.former{number}": value
            for name, values in self.former.items()
            for number, value in enumerate(values, start=1)
        }
        held = {**self.secrets, **(self.git.secrets() if self.git else {})}
        return {**self.marked, **password, **held, **former}

    def holding(self, new: Mapping[str, Secret]) -> SidecarConfig:
        """Give the same with ``new`` credentials; what they take the place of is kept as ``former``."""
        former = dict(self.former)
        for name, value in new.items():
            held = self.secrets.get(name)
            if held is not None and held != value:
                kept = (one for one in former.get(name, ()) if one not in (held, value))
                former[name] = (held, *kept)[:MOST_FORMER]
        return replace(self, secrets={**self.secrets, **new}, former=former)

    def forgotten(self, later: SidecarConfig) -> tuple[str, ...]:
        """Name the credentials of which ``later`` no longer keeps a value that this one has."""
        return tuple(
            sorted(
                name
                for name, values in self.former.items()
                if not set(values) <= {*later.former.get(name, ()), later.secrets.get(name)}
            )
        )

    def to_wire(self) -> bytes:
        """Serialise for the pipe; the bytes hold the credentials in clear, so write them nowhere else."""
        obj = {
            "identity": self.identity,
            "routes": [route.to_wire() for route in self.routes],
            "audit_path": self.audit_path,
            "secrets": {name: secret.reveal() for name, secret in self.secrets.items()},
            "pins": {host: {"address": pin.address, "port": pin.port} for host, pin in self.pins.items()},
            "upstream_ca_pem": self.upstream_ca_pem,
            "roots": [self.roots.file, self.roots.folder] if self.roots else None,
            "audit_after": self.audit_after.to_wire() if self.audit_after else None,
            "interception": _interception_to_wire(self.interception),
            "git": self.git.to_wire() if self.git else None,
            "marked": {name: secret.reveal() for name, secret in self.marked.items()},
            "cache": self.cache,
            "upstream_proxy": _proxy_to_wire(self.upstream_proxy),
            "supervise": self.supervise.to_wire() if self.supervise else None,
            "second_hop": [self.second_hop.program, self.second_hop.folder] if self.second_hop else None,
        }
        return json.dumps(obj).encode()

    @classmethod
    def from_wire(cls, data: bytes) -> SidecarConfig:
        """Read what :meth:`to_wire` wrote; raises ``ValueError``, ``KeyError`` or ``TypeError`` otherwise."""
        obj = json.loads(data)
        return cls(
            identity=obj["identity"],
            routes=tuple(EgressRoute.from_wire(route) for route in obj["routes"]),
            audit_path=obj["audit_path"],
            secrets={name: Secret(value) for name, value in obj["secrets"].items()},
            pins={host: Pin(address=pin["address"], port=pin["port"]) for host, pin in obj["pins"].items()},
            upstream_ca_pem=obj["upstream_ca_pem"],
            roots=Roots(file=obj["roots"][0], folder=obj["roots"][1]) if obj["roots"] else None,
            audit_after=ChainEnd.from_wire(obj["audit_after"]) if obj["audit_after"] else None,
            interception=_interception_from_wire(obj["interception"]),
            git=GateConfig.from_wire(obj["git"]) if obj["git"] else None,
            marked={name: Secret(value) for name, value in obj["marked"].items()},
            cache=obj["cache"],
            upstream_proxy=_proxy_from_wire(obj["upstream_proxy"]),
            supervise=_past_from_wire(obj["supervise"]),
            second_hop=SecondHopSettings(program=obj["second_hop"][0], folder=obj["second_hop"][1])
            if obj["second_hop"]
            else None,
        )


def _proxy_to_wire(proxy: UpstreamProxy | None) -> dict[str, object] | None:
    if proxy is None:
        return None
    return {
        "host": proxy.host,
        "port": proxy.port,
        "user": proxy.user,
        "password": proxy.password.reveal() if proxy.password else "",
        "password_ref": proxy.password_ref,
        "resolves": proxy.resolves,
        "bypass": list(proxy.bypass),
    }


def _proxy_from_wire(obj: dict[str, Any] | None) -> UpstreamProxy | None:
    if obj is None:
        return None
    password = Secret(obj["password"]) if obj["password"] else None
    return UpstreamProxy(**{**obj, "password": password, "bypass": tuple(obj["bypass"])})


def _interception_to_wire(settings: Interception | None) -> dict[str, str] | None:
    return {"token": settings.token.reveal(), "address": settings.address} if settings else None


def _interception_from_wire(obj: dict[str, str] | None) -> Interception | None:
    return Interception(token=Secret(obj["token"]), address=obj["address"]) if obj else None


def _past_from_wire(obj: dict[str, object] | None) -> Past | None:
    if obj is None:
        return None
    from bot_bottle.supervise.record import Past  # noqa: PLC0415 - for bottles that may ask

    return Past.from_wire(obj)
