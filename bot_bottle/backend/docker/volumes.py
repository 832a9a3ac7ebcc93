"""What of a bottle lies on an engine: its containers while it runs, its home for as long as it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bot_bottle import bottle_state, paths
from bot_bottle.backend.docker.engine import engine_errors
from bot_bottle.backend.docker.labels import INSTALLATION, installation_id, label_filter, make_labels
from bot_bottle.backend.docker.removal import remove_container, remove_volume
from bot_bottle.errors import LaunchError, UnavailableError
from bot_bottle.files import write_atomic
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from docker import APIClient

    from bot_bottle.backend.docker.labels import Role

_ENGINE_FILE = "engine"
_EVER_FILE = "docker-used"
_MAX_URL = 4096


def agent_name(identity: str) -> str:
    """Name an identity's agent container."""
    return f"bot-bottle-{identity}"


def home_name(identity: str) -> str:
    """Name the volume of an identity's home, its workspace in it."""
    return f"bot-bottle-{identity}-home"


def note_engine(identity: str, url: str) -> None:
    """Write down, in the bottle's state folder, on which engine its home lies."""
    write_atomic(paths.home_dir() / _EVER_FILE, b"")
    write_atomic(bottle_state.bottle_state_dir(identity) / _ENGINE_FILE, f"{url}\n".encode())


def has_used_an_engine() -> bool:
    """Tell whether this installation has ever launched a bottle on an engine."""
    return (paths.home_dir() / _EVER_FILE).exists()


def noted_engine(identity: str) -> str:
    """Give the address of the engine a bottle's home lies on; empty where it never came to one."""
    try:
        with (bottle_state.bottle_state_dir(identity) / _ENGINE_FILE).open("rb") as file:
            return file.read(_MAX_URL).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""


def require_same_engine(identity: str, url: str) -> None:
    """Raise ``UnavailableError`` where the bottle lies on another engine than the one at ``url``."""
    noted = noted_engine(identity)
    if noted and noted != url:
        raise UnavailableError(
            f"{identity} lies on the engine at {legible(noted)}, and this is {url}; "
            f"go back to it with: export DOCKER_HOST={legible(noted)}"
        )


def make_home(api: APIClient, identity: str) -> str:
    """Make a new, empty home; gives its name. What a dead launch left under the name goes first.

    Raises ``LaunchError`` where the name belongs to somebody else.
    """
    name = home_name(identity)
    with engine_errors("the bottle's home could not be made"):
        if _ours(api, name):
            remove_volume(api, name)
        api.create_volume(name, labels=make_labels("home", identity))
        _ours(
            api, name
        )  # creating a volume that somebody made in this very moment is no error of the engine's
    return name


def require_home(api: APIClient, identity: str) -> str:
    """Give the name of a kept home; raises ``LaunchError`` where it is gone or somebody else's."""
    name = home_name(identity)
    with engine_errors("the bottle's home could not be looked at"):
        if not _ours(api, name):
            raise LaunchError(
                f"the volume {name} with the home of {identity} is gone from this engine; "
                f"forget the bottle with: bot-bottle cleanup {identity}"
            )
    return name


def remove_home(api: APIClient, identity: str) -> None:
    """Remove a home of ours; gone is no error. Raises ``LaunchError``."""
    name = home_name(identity)
    with engine_errors(f"the volume {name} could not be removed"):
        if _ours(api, name):
            remove_volume(api, name)


def remove_containers(api: APIClient, role: Role, identity: str) -> None:
    """Remove this installation's containers of one role and identity. Raises the SDK's errors."""
    for container in api.containers(all=True, filters=label_filter(role, identity)):
        remove_container(api, container["Id"])


def agent_containers(api: APIClient, identity: str) -> list[dict[str, Any]]:
    """List the running container of a bottle's agent, paused or not. Raises ``LaunchError``."""
    with engine_errors(f"the container of {identity} could not be looked for"):
        found: list[dict[str, Any]] = api.containers(filters=label_filter("agent", identity))
    return found


def _ours(api: APIClient, name: str) -> bool:
    """Tell whether a volume is there; raises ``LaunchError`` where it is another installation's."""
    from docker import errors  # noqa: PLC0415 - the SDK is imported late

    try:
        labels = api.inspect_volume(name).get("Labels") or {}
    except errors.NotFound:
        return False
    if labels.get(INSTALLATION) != installation_id():
        raise LaunchError(f"the volume {name} on this engine is not this installation's; it is left alone")
    return True
