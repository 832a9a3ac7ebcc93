"""Which backends exist, and which one a launch takes."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from bot_bottle import bottle_state
from bot_bottle.errors import UnavailableError, UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.backend.base import BottleBackend

#: Name -> where its class lives; imported only when it is used. The first that works is the default.
_BACKENDS = {
    "bubblewrap": "bot_bottle.backend.bubblewrap.backend:BubblewrapBackend",
    "docker": "bot_bottle.backend.docker.backend:DockerBackend",
    "smolmachines": "bot_bottle.backend.smolmachines.backend:SmolmachinesBackend",
}

#: Never the default: what a machine starts from is the operator's to choose.
_ONLY_WHEN_ASKED = frozenset({"smolmachines"})

#: The backend that builds images, for those that only start from them.
IMAGE_BUILDER = "docker"

#: Metadata older than its ``backend`` field belongs to this one.
LEGACY_BACKEND = "docker"

ENV_BACKEND = "BOT_BOTTLE_BACKEND"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveAgent:
    """One running bottle, whatever isolates it."""

    backend_name: str
    slug: str
    agent_name: str
    started_at: str


def known_backend_names() -> tuple[str, ...]:
    """List the backends of this version, the preferred one first."""
    return tuple(_BACKENDS)


def get_bottle_backend(name: str) -> BottleBackend:
    """Load a backend by name; raises ``UsageError`` that lists those that exist."""
    place = _BACKENDS.get(name)
    if place is None:
        known = ", ".join(known_backend_names())
        raise UsageError(f"backend {legible(name)!r} is not in this version; choose one of: {known}")
    module, _, attribute = place.partition(":")
    backend: BottleBackend = getattr(import_module(module), attribute)()
    return backend


def likely_backend(flag: str, env: Mapping[str, str], configured: str = "") -> BottleBackend:
    """Give the backend that :func:`choose_backend` tries first, without trying it.

    Raises ``UsageError`` for an unknown name.
    """
    name, _why = _asked_for(flag, env, configured)
    return get_bottle_backend(name or known_backend_names()[0])


def choose_backend(
    flag: str, env: Mapping[str, str], configured: str = "", *, likely: BottleBackend | None = None
) -> tuple[BottleBackend, str]:
    """Choose by ``--backend``, then ``BOT_BOTTLE_BACKEND``, then the config file, then what works here.

    ``likely`` is :func:`likely_backend`'s, where it is at hand; it is let go where it does not work.

    Gives the backend and why it was taken. Raises ``UsageError`` for an unknown name and
    ``UnavailableError`` with each backend's own sentence where none works.
    """

    def backend_named(name: str) -> BottleBackend:
        return likely if likely is not None and likely.name == name else get_bottle_backend(name)

    name, why = _asked_for(flag, env, configured)
    if name:
        return backend_named(name), f"asked for by {why}"
    refusals: list[str] = []
    for name in known_backend_names():
        if name in _ONLY_WHEN_ASKED:
            continue
        backend = backend_named(name)
        result = backend.probe()
        if result.level != "unavailable":
            why = "the default" if not refusals else "; ".join(refusals)
            return backend, why
        if backend is likely:
            backend.end_ahead()
        refusals.append(f"{name}: {result.detail}" + (f"; {result.remedy}" if result.remedy else ""))
    raise UnavailableError("no backend works on this machine. " + "; ".join(refusals))


def _asked_for(flag: str, env: Mapping[str, str], configured: str) -> tuple[str, str]:
    """Name the backend that was asked for and where; two empty texts where none was."""
    asked = (flag, "--backend"), (env.get(ENV_BACKEND, ""), ENV_BACKEND), (configured, "config.toml")
    return next((one for one in asked if one[0]), ("", ""))


def enumerate_active_agents() -> tuple[ActiveAgent, ...]:
    """List the bottles whose launcher lives, over all backends."""
    return tuple(
        ActiveAgent(
            backend_name=state.metadata.backend or LEGACY_BACKEND,
            slug=state.identity,
            agent_name=state.metadata.agent_name,
            started_at=state.metadata.started_at,
        )
        for state in bottle_state.list_states()
        if state.status == "running" and state.metadata is not None
    )
