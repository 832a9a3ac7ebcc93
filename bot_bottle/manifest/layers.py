"""What one bottle file says, and how a child's words are laid over its parents'.

A :class:`Layer` holds only what was written, each with its place. :func:`fold` is associative and has
``Layer()`` as its neutral element, so a chain of parents means the same however it is grouped:

* ``env`` by name, ``git.user`` and ``limits`` by field, ``git.remotes`` by host; the child's wins.
* ``guard`` is what any of them guards.
* ``egress``: ``routes`` replaces everything inherited; ``add_routes`` keeps it and adds, and a host that was
  there already gets the child's route, which must open no more (see ``clashes.py``).
* every other key as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from bot_bottle.manifest.model import (
    ManifestBottle,
    ManifestEgress,
    ManifestGit,
    ManifestGitUser,
    ManifestLimits,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bot_bottle.manifest.model import (
        ContentEngine,
        ManifestAgentProvider,
        ManifestGitRemote,
        ManifestRoute,
        ManifestSource,
        Workspace,
    )

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Said(Generic[Value]):
    """A value and where it was written; ``over`` are those it was laid over, the oldest first, each once."""

    value: Value
    source: ManifestSource
    over: tuple[Said[Value], ...] = field(default=(), compare=False)

    def laid_over(self, base: Said[Value]) -> Said[Value]:
        """Give this value with ``base``, which it takes the place of, remembered."""
        older = dict.fromkeys((*base.over, Said(base.value, base.source), *self.over))
        return Said(self.value, self.source, tuple(said for said in older if said != self))


@dataclass(frozen=True, slots=True)
class Named(Generic[Value]):
    """Values by name. ``alone`` drops everything inherited; the order is that of first appearance."""

    entries: Mapping[str, Said[Value]] = field(default_factory=dict)
    alone: bool = False

    def over(self, base: Named[Value]) -> Named[Value]:
        """Lay these over ``base``."""
        if self.alone:
            return self
        if not self.entries:
            return base
        own = {
            name: said.laid_over(base.entries[name]) if name in base.entries else said
            for name, said in self.entries.items()
        }
        return Named({**base.entries, **own}, alone=base.alone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What was written, in one file or in several folded; None is what nobody wrote."""

    env: Named[str] = field(default_factory=Named)
    routes: Named[ManifestRoute] = field(default_factory=Named)
    remotes: Named[ManifestGitRemote] = field(default_factory=Named)
    user_name: Said[str] | None = None
    user_email: Said[str] | None = None
    provider: Said[ManifestAgentProvider] | None = None
    limits: Named[float] = field(default_factory=Named)
    guard: Named[str] = field(default_factory=Named)
    pipelock: Said[ContentEngine] | None = None
    supervise: Said[bool] | None = None
    workspace: Said[Workspace] | None = None


def fold(base: Layer, child: Layer) -> Layer:
    """Lay ``child`` over ``base``."""
    return Layer(
        env=child.env.over(base.env),
        routes=child.routes.over(base.routes),
        remotes=child.remotes.over(base.remotes),
        user_name=child.user_name or base.user_name,
        user_email=child.user_email or base.user_email,
        provider=child.provider or base.provider,
        limits=child.limits.over(base.limits),
        guard=child.guard.over(base.guard),
        pipelock=child.pipelock or base.pipelock,
        supervise=child.supervise or base.supervise,
        workspace=child.workspace or base.workspace,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleFile:
    """One bottle file, read: the bottles it extends and what it says itself."""

    name: str
    path: Path
    extends: Sequence[Said[str]]
    layer: Layer


def effective_bottle(
    file: BottleFile, layer: Layer, default_provider: ManifestAgentProvider
) -> ManifestBottle:
    """Give the bottle that ``layer``, the fold of ``file`` over all it extends, stands for."""
    sources: dict[str, ManifestSource] = {}

    def taken(key: str, said: Said[Value] | None, default: Value) -> Value:
        if said is None:
            return default
        sources[key] = said.source
        return said.value

    env = {name: taken(f"env.{name}", said, "") for name, said in layer.env.entries.items()}
    routes = [said.value for said in layer.routes.entries.values()]
    sources.update(
        (f"egress.routes[{index}]", said.source) for index, said in enumerate(layer.routes.entries.values())
    )
    remotes = [said.value for said in layer.remotes.entries.values()]
    sources.update((f"git.remotes.{host}", said.source) for host, said in layer.remotes.entries.items())
    sources.update((f"limits.{name}", said.source) for name, said in layer.limits.entries.items())
    sources.update((f"guard.{name}", said.source) for name, said in layer.guard.entries.items())
    empty: Workspace = "empty"
    builtin: ContentEngine = "builtin"
    return ManifestBottle(
        name=file.name,
        path=file.path,
        extends=tuple(said.value for said in file.extends),
        env=env,
        agent_provider=taken("agent_provider", layer.provider, default_provider),
        egress=ManifestEgress(routes=tuple(routes)),
        limits=_limits(layer.limits),
        git=ManifestGit(
            user=ManifestGitUser(
                name=taken("git.user.name", layer.user_name, ""),
                email=taken("git.user.email", layer.user_email, ""),
            ),
            remotes=tuple(remotes),
        ),
        guard=tuple(layer.guard.entries),
        pipelock=taken("pipelock", layer.pipelock, builtin),
        supervise=taken("supervise", layer.supervise, default=False),
        workspace=taken("workspace", layer.workspace, empty),
        sources=sources,
    )


def _limits(said: Named[float]) -> ManifestLimits:
    """Give the limits by name their types back; all but ``cpus`` are whole numbers."""
    values = {name: entry.value for name, entry in said.entries.items()}
    return ManifestLimits(
        memory=_whole(values.get("memory")),
        cpus=values.get("cpus"),
        pids=_whole(values.get("pids")),
        open_files=_whole(values.get("open_files")),
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
