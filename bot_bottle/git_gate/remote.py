"""One upstream as the gate knows it: where it is, what it takes to get in, and what may be pushed to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bot_bottle.git_gate.policy import PushPolicy
from bot_bottle.secret import Secret

_TOKEN_USER = "x-access-token"  # noqa: S105 - a name

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class SshKey:
    """What signs for the gate.

    ``public`` is a line as in ``id_ed25519.pub``. Either ``private`` holds the key without a passphrase
    (PEM or OpenSSH's form), or ``agent`` is the socket of the operator's own ssh agent, which holds it.
    """

    public: str
    private: Secret = field(default=Secret(""), repr=False)
    agent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRemote:
    """One entry of ``git.remotes``; the names are the manifest's.

    ``host`` is the key it is declared under. ``key`` and ``known_host_key`` go with ssh, ``token`` (HTTP's
    password) with https; without the latter an https upstream is read as a stranger.
    """

    host: str
    name: str
    scheme: Literal["ssh", "https"]
    user: str
    upstream_host: str
    port: int | None
    path: str
    known_host_key: str = ""
    key: SshKey | None = field(default=None, repr=False)
    token: Secret = field(default=Secret(""), repr=False)
    policy: PushPolicy = field(default_factory=PushPolicy)

    @property
    def place(self) -> str:
        """Where it stands in the manifest."""
        return f"git.remotes.{self.host}"

    @property
    def token_user(self) -> str:
        """As whom the token is sent, which forges leave open."""
        return _TOKEN_USER

    @property
    def upstream(self) -> str:
        """Its URL, for people; it holds no credential."""
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{user}{bracketed(self.upstream_host)}{port}{self.path}"

    def to_wire(self) -> dict[str, object]:
        """Serialise for the sidecar's config; holds the credentials in clear."""
        key = self.key
        return {
            "host": self.host,
            "name": self.name,
            "scheme": self.scheme,
            "user": self.user,
            "upstream_host": self.upstream_host,
            "port": self.port,
            "path": self.path,
            "known_host_key": self.known_host_key,
            "key": {"public": key.public, "private": key.private.reveal(), "agent": key.agent}
            if key
            else None,
            "token": self.token.reveal(),
            "policy": self.policy.to_wire(),
        }

    @classmethod
    def from_wire(cls, obj: Mapping[str, Any]) -> GateRemote:
        """Read what :meth:`to_wire` wrote; raises ``ValueError``, ``KeyError`` or ``TypeError``."""
        key = obj["key"]
        return cls(
            host=obj["host"],
            name=obj["name"],
            scheme=obj["scheme"],
            user=obj["user"],
            upstream_host=obj["upstream_host"],
            port=obj["port"],
            path=obj["path"],
            known_host_key=obj["known_host_key"],
            key=SshKey(public=key["public"], private=Secret(key["private"]), agent=key["agent"])
            if key
            else None,
            token=Secret(obj["token"]),
            policy=PushPolicy.from_wire(obj["policy"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateConfig:
    """What the sidecar is told about the gate.

    ``folder`` is where mirrors lie, as the sidecar sees it; no bottle sees it.
    """

    remotes: tuple[GateRemote, ...]
    folder: str

    def secrets(self) -> dict[str, Secret]:
        """Give every credential by a name fit for a message."""
        found = {name: remote.token for name, remote in self.tokens().items()}
        for remote in self.remotes:
            if remote.key is not None and remote.key.private:
                found[f"{remote.place}.IdentityFile"] = remote.key.private
        return found

    def tokens(self) -> dict[str, GateRemote]:
        """Give the remotes that a token is sent to, by the name that :meth:`secrets` has for it."""
        return {f"{remote.place}.TokenRef": remote for remote in self.remotes if remote.token}

    def to_wire(self) -> dict[str, object]:
        """Serialise for the sidecar's config; holds the credentials in clear."""
        remotes = [remote.to_wire() for remote in self.remotes]
        return {"remotes": remotes, "folder": self.folder}

    @classmethod
    def from_wire(cls, obj: Mapping[str, Any]) -> GateConfig:
        """Read what :meth:`to_wire` wrote; raises ``ValueError``, ``KeyError`` or ``TypeError``."""
        remotes = tuple(GateRemote.from_wire(one) for one in obj["remotes"])
        return cls(remotes=remotes, folder=obj["folder"])


def bracketed(host: str) -> str:
    """Write an IPv6 literal as URLs need it."""
    return f"[{host}]" if ":" in host else host
