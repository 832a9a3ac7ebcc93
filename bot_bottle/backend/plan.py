"""What the operator asked for, and the launch that was decided of it: data between prepare and launch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bot_bottle.agent_provider.plan import AgentProvisionPlan
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.git_gate.remote import GateRemote
    from bot_bottle.manifest.model import Manifest, ManifestBottle
    from bot_bottle.secret import Secret
    from bot_bottle.sidecar.config import Pin, UpstreamProxy


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleSpec:
    """What the operator asked for. ``identity`` is empty for a new launch and set for a resumed one.

    ``prompt`` is set for a headless run; ``copy_cwd`` puts a private copy of ``user_cwd`` in the bottle;
    ``keep`` keeps home and workspace after exit code 0 too; ``repo`` is a URL that the bottle clones through
    the git gate.
    """

    manifest: Manifest
    agent_name: str
    user_cwd: Path
    copy_cwd: bool = False
    identity: str = ""
    headless: bool = False
    prompt: str = ""
    keep: bool = False
    repo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitStatus:
    """One resource limit as this machine will hold it.

    ``name`` is ``memory``, ``processes``, ``open files``, ``cpu`` or ``disk``; ``value`` a readable amount,
    empty where there is none; ``holds`` whether this machine can enforce it, with ``how`` (``cgroup v2``,
    ``rlimit``) or the reason it cannot.
    """

    name: str
    value: str
    holds: bool
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BottlePlan:
    """A launch, decided in full and without any runtime resource: safe to print, safe to throw away.

    ``guest_env`` is the whole environment of the agent (placeholders, proxy and CA variables, the
    manifest's ``env``) and is not printed by value. ``secrets`` and ``git_remotes`` are for the sidecar
    alone. ``marked`` are the operator's values that must not leave (the bottle's ``guard``) and that are not
    in ``guest_env``. ``on_request`` and ``notify`` say how the operator is told of what the agent asks for,
    and of credentials that ended.
    ``second_hop`` is the path of the external pipelock program, where the bottle has it behind its egress.
    ``lenders`` are the folders of objects that the copied repository borrows from.
    """

    spec: BottleSpec
    identity: str
    backend_name: str
    bottle: ManifestBottle
    provision: AgentProvisionPlan
    routes: tuple[EgressRoute, ...]
    state_dir: Path
    audit_path: Path
    guest_env: Mapping[str, str] = field(repr=False)
    secrets: Mapping[str, Secret] = field(repr=False)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    upstream_ca_pem: str = field(default="", repr=False)
    upstream_proxy: UpstreamProxy | None = None
    git_remotes: tuple[GateRemote, ...] = field(default=(), repr=False)
    marked: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    limits: tuple[LimitStatus, ...] = ()
    notes: tuple[str, ...] = ()
    on_request: tuple[str, ...] = ()
    notify: bool = False
    second_hop: str = ""
    lenders: tuple[Path, ...] = ()

    def print(self) -> None:
        """Show the preflight on stderr: names, never values."""
        from bot_bottle.preflight import print_preflight  # noqa: PLC0415 - brings the renderer, late

        print_preflight(self)
