"""What summaries show of a bottle: names, never values, each with the file it was written in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bot_bottle.env import entry_kind
from bot_bottle.guard_notes import guard_notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bot_bottle.manifest.model import ManifestBottle, ManifestGitRemote, ManifestSource

#: No literal shorter than this is looked at as a possible credential.
_SHORTEST_CREDENTIAL = 12


def visible_agent_env_names(env_names: Iterable[str], hidden_env_names: frozenset[str]) -> tuple[str, ...]:
    """Give the variable names a summary shows, sorted; placeholders of a provider are left out."""
    return tuple(sorted({name for name in env_names if name not in hidden_env_names}))


def sourced(text: str, *sources: ManifestSource | str | None) -> str:
    """Say after ``text`` where it was written; nothing where nobody wrote it."""
    named = dict.fromkeys(str(source) for source in sources if source)
    return f"{text}  <- {', '.join(named)}" if named else text


def env_lines(
    bottle: ManifestBottle, provider_env: Iterable[str], hidden_env_names: frozenset[str], provider: str
) -> tuple[str, ...]:
    """Give the visible variable names, one line for each place they come from."""
    places: dict[str, list[str]] = {}
    for name in visible_agent_env_names(bottle.env, hidden_env_names):
        source = bottle.sources.get(f"env.{name}")
        file = f"{source.path.parent.name}/{source.path.name}" if source else ""
        places.setdefault(file, []).append(name)
    for name in visible_agent_env_names(provider_env, hidden_env_names | set(bottle.env)):
        places.setdefault(f"provider {provider}", []).append(name)
    return tuple(sourced(", ".join(names), place) for place, names in places.items()) or ("(none)",)


def origin_text(origin: str, sources: Mapping[str, ManifestSource]) -> str:
    """Say in which files a route was written, from its ``origin`` (see ``EgressRoute``)."""
    parts: list[str] = []
    for part in origin.split(" + "):
        key, _, provider = part.partition(".") if part.startswith("agent_provider.") else (part, "", "")
        source = sources.get(key)
        own = f"provider {provider}" if provider else part
        parts.append(own if source is None else f"{own} ({source})" if provider else str(source))
    return " + ".join(parts)


def remote_text(remote: ManifestGitRemote) -> str:
    """Say in one line which upstream a git remote leads to, with what, and what may be pushed to it."""
    if remote.scheme == "https":
        means = f" [token {remote.token_ref}]" if remote.token_ref else " [no token]"
    else:
        means = " [host key pinned]" if remote.known_host_key else " [NO HOST KEY: closed]"
    push = remote.push
    may = [" ".join(push.branches)] if push.branches else []
    more = {
        "the DEFAULT BRANCH": push.default_branch,
        "tags": push.tags,
        "FORCE": push.force,
        "DELETE": push.delete,
    }
    may += [word for word, allowed in more.items() if allowed]
    if push.paths:
        may.append(f"CI files {' '.join(push.paths)}")
    return f"{remote.name} -> {remote.upstream}{means}, push: {', '.join(may) or 'nothing'}"


def declared_limits(bottle: ManifestBottle) -> tuple[str, ...]:
    """Give the limits a bottle declares, one a line, in the units that manifests use."""
    limits = bottle.limits
    memory = None if limits.memory is None else _memory_text(limits.memory)
    named = (
        ("memory", memory),
        ("cpus", None if limits.cpus is None else f"{limits.cpus:g}"),
        ("pids", limits.pids),
        ("open_files", limits.open_files),
    )
    return tuple(
        sourced(f"{key} {value}", bottle.sources.get(f"limits.{key}"))
        for key, value in named
        if value is not None
    )


def _memory_text(amount: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if amount % size == 0:
            return f"{amount // size}{unit}"
    return f"{amount} bytes"


def env_notes(bottle: ManifestBottle) -> tuple[tuple[str, ManifestSource | None], ...]:
    """Say which variables of the bottle are better not there, each with the place where it was written.

    Those that take the place of what leads programs to egress harm the bottle's own programs alone: nothing
    is protected by these variables, since there is no other way out. A literal that looks like a credential
    could be read by the agent, and egress exists so that none has to be.
    """
    if not bottle.env:
        return ()
    from bot_bottle.backend.util import network_env  # noqa: PLC0415 - brings ssl, which few summaries need

    ours = network_env()
    harm = (
        "replaces what leads programs to egress and lets them trust it; "
        "what reads it will most likely reach nothing"
    )
    notes: list[tuple[str, ManifestSource | None]] = []
    for name, entry in bottle.env.items():
        if name in ours and entry != ours[name]:
            notes.append((f"env.{name}: {harm}", bottle.sources.get(f"env.{name}")))
        elif rule := _credential_rule(name, entry):
            said = (
                f"env.{name}: looks like a credential ({rule}), and the agent can read it; "
                "let egress add it on the way out instead (auth: {scheme, token_ref} of a route)"
            )
            notes.append((said, bottle.sources.get(f"env.{name}")))
    return tuple(notes)


def _credential_rule(name: str, entry: str) -> str:
    if len(entry) < _SHORTEST_CREDENTIAL or entry_kind(entry) != "literal":
        return ""
    from bot_bottle.pipelock.literals import credential_rule  # noqa: PLC0415 - brings every rule

    return credential_rule(name, entry)


def bottle_notes(bottle: ManifestBottle) -> tuple[str, ...]:
    """Give all that a summary says of a bottle besides its settings."""
    notes = (*env_notes(bottle), *guard_notes(bottle, os.environ), *asking_notes(bottle))
    return (*unmet_notes(bottle), *(sourced(note, source) for note, source in notes))


def asking_notes(bottle: ManifestBottle) -> tuple[tuple[str, ManifestSource | None], ...]:
    """Say which routes ask a human whom this bottle does not have, with the place where each was written."""
    if bottle.supervise:
        return ()
    said = (
        "asks a human (on_match: ask), and without supervise: true there is none, so that it only refuses; "
        "write supervise: true, or block or redact here"
    )
    return tuple(
        (f"egress.routes[{index}]: {route.host} {said}", bottle.sources.get(f"egress.routes[{index}]"))
        for index, route in enumerate(bottle.egress.routes)
        if route.pipelock.on_match == "ask"
    )


def unmet_notes(bottle: ManifestBottle) -> tuple[str, ...]:
    """Say what the bottle declares and may not get, so that nothing is ignored in silence."""
    notes: list[str] = []
    if bottle.agent_provider.dockerfile:
        notes.append(
            "agent_provider.dockerfile: for backends that build images (docker); "
            "the others run this machine's programs"
        )
    return tuple(notes)
