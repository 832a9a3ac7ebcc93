"""What a running bottle was launched with, kept in its state for a later manifest to be held against.

Names and plain settings only: a variable's value and the prompt stand as digests that are salted with the
identity. Routes stand beside it; what holds in a running bottle, its sidecar tells.
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
    from collections.abc import Iterator, Mapping, Sequence

    from bot_bottle.backend.plan import BottlePlan
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.manifest.model import ManifestAgent, ManifestBottle

_FILE = "declared.json"
_ROUTES = "routes.json"
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
    write_routes(plan.identity, plan.routes)


def write_routes(identity: str, routes: Sequence[EgressRoute]) -> None:
    """Keep the manifest's routes as they hold now; raises ``OSError``."""
    data = json.dumps([route.to_wire() for route in routes], indent=2, sort_keys=True)
    write_atomic(bottle_state.bottle_state_dir(identity) / _ROUTES, data.encode() + b"\n")


def since_last_session(plan: BottlePlan) -> tuple[str, ...]:
    """Say how a resumed bottle's manifest differs from what it last ran with, a line for each difference.

    Routes begin with ``-`` and ``+``. Nothing where that was not kept (by an older version).
    """
    agent = plan.spec.manifest.require_agent(plan.spec.agent_name)
    before, routes = read_declared(plan.identity), read_routes(plan.identity)
    lines: list[str] = []
    if routes is not None:
        from bot_bottle.egress.reload import change  # noqa: PLC0415 - only a resumed bottle has changed

        changed = change(routes, plan.routes)
        lines += [f"- {line}" for line in changed.before]
        lines += [f"+ {line}" for line in changed.after]
    if before is not None:
        lines += differences(before, declared(agent, plan.bottle, plan.identity))
    return tuple(lines)


def read_declared(identity: str) -> dict[str, str] | None:
    """Give what a bottle was launched with; None where that was not kept (by an older version)."""
    obj = _read(identity, _FILE)
    return {str(key): str(value) for key, value in obj.items()} if isinstance(obj, dict) else None


def read_routes(identity: str) -> tuple[EgressRoute, ...] | None:
    """Give the manifest's routes as they held last; None where that was not kept (by another version)."""
    from bot_bottle.egress.routes import EgressRoute  # noqa: PLC0415 - as above

    obj = _read(identity, _ROUTES)
    try:
        return tuple(EgressRoute.from_wire(one) for one in obj) if isinstance(obj, list) else None
    except (KeyError, TypeError, ValueError):  # another version's
        return None


def _read(identity: str, name: str) -> object:
    try:
        with (bottle_state.bottle_state_dir(identity) / name).open("rb") as file:
            found: object = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return None
    return found


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
