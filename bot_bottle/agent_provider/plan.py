"""The provision plan: the only thing a backend sees of a provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.manifest.model import ManifestAgentProvider
    from bot_bottle.renewal import Renewal


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionFile:
    """One file to place in the bottle. ``path`` is absolute as seen inside; ``mode`` a POSIX mode."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentProvisionPlan:
    """Everything one provider wants for one launch, as data.

    ``argv`` starts the agent inside the bottle; ``program`` is the name that is looked up on the host and
    bound read-only (``""``: nothing beyond the system). ``guest_env`` enters the bottle and holds
    placeholders only; ``provisioned_env`` holds real values for the sidecar and never enters the bottle.
    ``hidden_env_names`` are names of ``guest_env`` that summaries leave out. ``renewals`` are those of the
    values in ``provisioned_env`` that can be had anew while the bottle runs.
    """

    template: str
    program: str
    argv: tuple[str, ...]
    dirs: tuple[str, ...] = ()
    files: tuple[ProvisionFile, ...] = ()
    guest_env: dict[str, str] = field(default_factory=dict)
    egress_routes: tuple[EgressRoute, ...] = ()
    hidden_env_names: frozenset[str] = frozenset()
    provisioned_env: dict[str, str] = field(default_factory=dict, repr=False)
    renewals: tuple[Renewal, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionRequest:
    """What a provider is told of one launch.

    ``agent_prompt`` is the agent's declared prompt, ``prompt`` a headless run's task, ``resume`` asks to go
    on with the preserved session. ``host_env`` is the operator's environment and is never copied as it is;
    ``bottle_env`` holds the literal variables that the bottle declares.
    ``supervise_url`` is where the agent may ask for more (MCP, streamable HTTP), ``""`` where it may not.
    With ``preview`` the plan is only shown: nothing of the host is read for it.
    """

    provider: ManifestAgentProvider
    agent_prompt: str = ""
    headless: bool = False
    prompt: str = ""
    resume: bool = False
    preview: bool = False
    supervise_url: str = ""
    host_env: Mapping[str, str] = field(default_factory=dict, repr=False)
    bottle_env: Mapping[str, str] = field(default_factory=dict)
