"""What launches that are gone left on an engine, this installation's only."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from bot_bottle import bottle_state, paths
from bot_bottle.backend.base import Leftover
from bot_bottle.backend.docker.engine import engine_errors
from bot_bottle.backend.docker.labels import IDENTITY, ROLE, label_filter
from bot_bottle.backend.docker.removal import remove_container, remove_volume
from bot_bottle.backend.docker.salvage import salvage
from bot_bottle.backend.docker.volumes import remove_home

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from docker import APIClient

NAME = "docker"
CONTAINER, AUDIT, HOME, VOLUME = "container", "audit", "home", "volume"


def find(api: APIClient) -> tuple[Leftover, ...]:
    """List containers and volumes of dead launches; a kept bottle's home is none. Raises ``LaunchError``."""
    with engine_errors("the engine could not be looked over"):
        containers = [one for one in api.containers(all=True, filters=label_filter()) if not _ghost(api, one)]
        volumes = api.volumes(filters=label_filter()).get("Volumes") or []
    found: list[Leftover] = []
    for identity, items in _dead(containers):
        names = ", ".join(sorted(str(name).lstrip("/") for one in items for name in one.get("Names") or ()))
        found.append(_leftover(identity, CONTAINER, f"container {names or items[0]['Id'][:12]}"))
    for identity, items in _dead(volumes):
        for volume in items:
            found += _volume(identity, volume["Name"], (volume.get("Labels") or {}).get(ROLE))
    return tuple(found)


def remove(api: APIClient, leftover: Leftover) -> None:
    """Remove one leftover, its record first brought home; twice is no error. Raises ``LaunchError``."""
    identity = leftover.identity
    with contextlib.ExitStack() as stack, engine_errors(f"{leftover.describe} could not be removed"):
        if bottle_state.bottle_state_dir(identity).is_dir():
            stack.enter_context(bottle_state.hold_lock(identity))
        if leftover.kind == AUDIT:
            salvage(api, identity, paths.audit_path(identity))
        elif leftover.kind == HOME:
            remove_home(api, identity)
        elif leftover.kind == CONTAINER:
            for container in api.containers(all=True, filters=label_filter(identity=identity)):
                remove_container(api, container["Id"])
        else:
            for volume in api.volumes(filters=label_filter("sidecar", identity)).get("Volumes") or []:
                remove_volume(api, volume["Name"])


def _ghost(api: APIClient, container: Mapping[str, Any]) -> bool:
    """Tell whether an engine only remembers a container: once killed itself, it may until it restarts."""
    from docker import errors  # noqa: PLC0415 - the SDK is imported late

    if container.get("State") != "dead":
        return False
    try:
        api.inspect_container(container["Id"])
    except errors.NotFound:
        return True
    return False


def _volume(identity: str, name: str, role: str | None) -> Iterator[Leftover]:
    if role == "audit":
        log = paths.audit_path(identity)
        yield _leftover(identity, AUDIT, f"volume {name}, after what it holds is added to {log}")
    elif role == "home" and not bottle_state.bottle_state_dir(identity).is_dir():
        yield _leftover(identity, HOME, f"volume {name}, the home of a bottle without a state folder")
    elif role == "sidecar":
        yield _leftover(identity, VOLUME, f"volume {name[:12]} of a sidecar")


def _dead(items: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Group what bears an identity that no launcher holds."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        identity = str((item.get("Labels") or {}).get(IDENTITY, ""))
        if bottle_state.IDENTITY_PATTERN.fullmatch(identity):
            groups.setdefault(identity, []).append(item)
    for identity in sorted(groups):
        if not bottle_state.is_running(identity):
            yield identity, groups[identity]


def _leftover(identity: str, kind: str, describe: str) -> Leftover:
    return Leftover(backend=NAME, identity=identity, kind=kind, describe=describe)
