"""What a running bottle was launched with, kept in its state for a later manifest to be held against.

Names and plain settings only: a variable's value and the prompt stand as digests that are salted with the
identity. Routes are not among it, since a running sidecar tells its own.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from bot_bottle import bottle_state
from bot_bottle.env import entry_kind
from bot_bottle.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bot_bottle.backend.base import BottlePlan
    from bot_bottle.manifest.model import ManifestAgent, ManifestBottle

_FILE = "declared.json"
_MAX_BYTES = 4 * 1024 * 1024
_DIGEST = "sha256:"
#: Where a setting was written is none, and routes are compared with those that hold.
_LEFT_OUT = frozenset({"name", "path", "extends", "sources", "egress", "env"})


def declared(agent: ManifestAgent, bottle: ManifestBottle, identity: str) -> dict[str, str]:
    """List an agent's settings in its effective bottle as dotted key and JSON text, without empty ones."""
    found = {
        f"env.{name}": kind if (kind := entry_kind(entry)) != "literal" else _digest(identity, name, entry)
        for name, entry in bottle.env.items()
    }
    found["agent.bottle"] = bottle.name
    if agent.prompt:
        found["agent.prompt"] = _digest(identity, "prompt", agent.prompt)
    found.update(_flat("agent.skills", list(agent.skills)))
    settings = json.loads(json.dumps(asdict(bottle), default=str))  # plain data, whatever is added to bottles
    for name in (field.name for field in fields(bottle)):
        if name not in _LEFT_OUT:
            found.update(_flat(name, settings[name]))
    return found


def write_declared(plan: BottlePlan) -> None:
    """Keep what ``plan`` launches with; raises ``OSError``."""
    agent = plan.spec.manifest.require_agent(plan.spec.agent_name)
    data = json.dumps(declared(agent, plan.bottle, plan.identity), indent=2, sort_keys=True)
    write_atomic(plan.state_dir / _FILE, data.encode() + b"\n")


def read_declared(identity: str) -> dict[str, str] | None:
    """Give what a bottle was launched with; None where that was not kept (by an older version)."""
    try:
        with (bottle_state.bottle_state_dir(identity) / _FILE).open("rb") as file:
            obj = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return None
    return {str(key): str(value) for key, value in obj.items()} if isinstance(obj, dict) else None


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[str, ...]:
    """Say what differs, a line for each setting."""
    return tuple(
        f"{key}: {_said(old.get(key), new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    )


def _said(old: str | None, new: str | None) -> str:
    hidden = any(value is not None and value.startswith(_DIGEST) for value in (old, new))
    if old is None:
        return "added" if hidden else f"added, {new}"
    if new is None:
        return "removed"
    return "changed" if hidden else f"{old} -> {new}"


def _flat(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(f"{key}.{name}", item)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            host = item.get("host") if isinstance(item, dict) else None
            yield from _flat(f"{key}.{host or number}", item)
    elif value not in (None, "", [], False):
        yield key, json.dumps(value, ensure_ascii=True)


def _digest(identity: str, name: str, value: str) -> str:
    text = json.dumps([identity, name, value])
    return _DIGEST + hashlib.sha256(text.encode(), usedforsecurity=True).hexdigest()[:32]
