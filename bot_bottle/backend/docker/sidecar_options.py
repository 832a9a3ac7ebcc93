"""What the engine is asked to make for a sidecar: names, and the options of its two containers, as data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from bot_bottle.backend.docker import runtimes
from bot_bottle.backend.docker.labels import make_labels
from bot_bottle.sidecar import handover

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docker import APIClient

    from bot_bottle.backend.docker.facts import EngineFacts

#: Where the sidecar writes its log, in a volume of its own.
LOG_INSIDE = PurePosixPath("/var/lib/bot-bottle/audit.jsonl")

_PYTHON = "python3"
# The package is on PYTHONPATH; a site folder would only be read in vain (-S).
_MODULE = ["-S", "-P", "-m"]
_MEMORY_BYTES = 1 << 30
_PROCESSES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarNames:
    """The names of what one identity's sidecar is made of on an engine."""

    identity: str

    @property
    def sidecar(self) -> str:
        """The sidecar's container."""
        return f"bot-bottle-{self.identity}-sidecar"

    @property
    def doorkeeper(self) -> str:
        """The doorkeeper's container."""
        return f"bot-bottle-{self.identity}-doorkeeper"

    @property
    def audit(self) -> str:
        """The volume of the sidecar's log."""
        return f"bot-bottle-{self.identity}-audit"


def sidecar_options(
    api: APIClient, facts: EngineFacts, *, image: str, identity: str, network: str
) -> dict[str, Any]:
    """Give ``create_container``'s arguments for the sidecar; ``network`` is empty for the default one."""
    from docker.types import Mount  # noqa: PLC0415 - the SDK is imported late

    labels = make_labels("sidecar", identity)
    names = SidecarNames(identity=identity)
    mounts = [
        # Without a name: the engine removes it with the container.
        Mount(target=handover.FOLDER, source=None, labels=labels),
        Mount(target=str(LOG_INSIDE.parent), source=names.audit),
    ]
    return {
        "image": image,
        "name": names.sidecar,
        "entrypoint": [_PYTHON],
        "command": [*_MODULE, "bot_bottle.sidecar.contained"],
        "labels": labels,
        "hostname": "sidecar",
        # The engine closes it with the one attachment there is: the launcher's end, however it comes.
        "stdin_open": True,
        "host_config": _host_config(api, facts, network_mode=network or "default", mounts=mounts),
        "use_config_proxy": False,
    }


def doorkeeper_options(
    api: APIClient,
    facts: EngineFacts,
    *,
    image: str,
    identity: str,
    agent: str,
    volume: str,
    switches: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Give the arguments for the doorkeeper: in the agent's network, with the sidecar's private volume.

    ``switches`` are the ones of that network which the agent's own runtime has left as they are. The
    doorkeeper's runtime sets them before the doorkeeper begins, which itself could not.
    """
    from docker.types import Mount  # noqa: PLC0415

    # A socket in a file system mounted read-only can be connected to all the same.
    mounts = [Mount(target=handover.FOLDER, source=volume, read_only=True)]
    return {
        "image": image,
        "name": SidecarNames(identity=identity).doorkeeper,
        "entrypoint": [_PYTHON],
        "command": [*_MODULE, "bot_bottle.sidecar.doorkeeper"],
        "labels": make_labels("doorkeeper", identity),
        "host_config": _host_config(
            api,
            facts,
            network_mode=f"container:{agent}",
            mounts=mounts,
            sysctls=dict(switches) if switches else None,
        ),
        "use_config_proxy": False,
    }


def _host_config(api: APIClient, facts: EngineFacts, **options: object) -> dict[str, Any]:
    from docker.types import LogConfig, Ulimit  # noqa: PLC0415

    config: dict[str, Any] = {
        "auto_remove": True,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "log_config": LogConfig(type="none"),
        "runtime": runtimes.for_our_own(facts) or None,
        "ulimits": [Ulimit(name="core", soft=0, hard=0)],
        **options,
    }
    if facts.holds_pids:
        config["pids_limit"] = _PROCESSES
    if facts.holds_memory:
        # As much with swap as without: credentials do not go to a disk.
        config["mem_limit"] = config["memswap_limit"] = _MEMORY_BYTES
    made: dict[str, Any] = api.create_host_config(**config)
    return made
