"""What an engine says of itself, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.backend.docker.runtimes import Runtime

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """An engine's own account of itself (``GET /version`` and ``GET /info``).

    ``holds_memory``, ``holds_cpu`` and ``holds_pids`` say which limits it can enforce. ``system`` is the
    operating system it runs on (``Docker Desktop`` where that is a virtual machine).
    """

    product: str
    version: str
    api_version: str
    os_type: str
    architecture: str
    system: str = ""
    runtimes: tuple[Runtime, ...] = ()
    default_runtime: str = ""
    security: frozenset[str] = frozenset()
    cgroup_version: str = ""
    holds_memory: bool = False
    holds_cpu: bool = False
    holds_pids: bool = False
    memory: int = 0
    cpus: int = 0

    @property
    def rootless(self) -> bool:
        """Tell whether the engine runs without root's rights."""
        return "rootless" in self.security

    @property
    def remaps_users(self) -> bool:
        """Tell whether root inside a container is an ordinary user outside (userns-remap)."""
        return "userns" in self.security

    @property
    def standing(self) -> str:
        """Say whose rights the engine's containers have."""
        if self.rootless:
            return "rootless"
        return "users remapped" if self.remaps_users else "runs as root"

    @property
    def lacking(self) -> tuple[str, ...]:
        """Say what of a bottle's boundary this engine cannot give."""
        limits = (("memory", self.holds_memory), ("cpu", self.holds_cpu), ("processes", self.holds_pids))
        unheld = [name for name, held in limits if not held]
        found = [f"not bounded here: {' and '.join(unheld)}"] if unheld else []
        if "seccomp" not in self.security:
            found.append("no system-call filter: the engine has no seccomp")
        return tuple(found)


def read_facts(version: Mapping[str, object], info: Mapping[str, object]) -> EngineFacts:
    """Read both answers; what an engine leaves out is empty, and a limit it does not name is not held."""
    return EngineFacts(
        product=_product(version),
        version=_text(version, "Version"),
        api_version=_text(version, "ApiVersion"),
        os_type=_text(info, "OSType") or _text(version, "Os"),
        architecture=_text(info, "Architecture") or _text(version, "Arch"),
        system=_text(info, "OperatingSystem"),
        runtimes=tuple(_runtimes(info.get("Runtimes"))),
        default_runtime=_text(info, "DefaultRuntime"),
        security=frozenset(_security(info.get("SecurityOptions"))),
        cgroup_version=_text(info, "CgroupVersion"),
        holds_memory=info.get("MemoryLimit") is True,
        holds_cpu=info.get("CpuCfsQuota") is True,
        holds_pids=info.get("PidsLimit") is True,
        memory=_number(info, "MemTotal"),
        cpus=_number(info, "NCPU"),
    )


def _product(version: Mapping[str, object]) -> str:
    components = version.get("Components")
    if isinstance(components, list):
        for component in components:
            if isinstance(component, dict) and "podman" in str(component.get("Name", "")).lower():
                return "Podman"
    return "Docker"


def _runtimes(found: object) -> list[Runtime]:
    """Read the runtimes, in the order of their names."""
    read = []
    for name, told in sorted(found.items()) if isinstance(found, dict) else ():
        said = told if isinstance(told, dict) else {}
        args = said.get("runtimeArgs")
        read.append(
            Runtime(
                name=str(name),
                program=_text(said, "path"),
                args=tuple(map(str, args)) if isinstance(args, list) else (),
                shim=_text(said, "runtimeType"),
            )
        )
    return read


def _security(options: object) -> list[str]:
    """Read ``name=seccomp,profile=default`` (the engine's form) down to its names."""
    if not isinstance(options, list):
        return []
    fields = [str(option).split(",") for option in options]
    return [one.removeprefix("name=") for parts in fields for one in parts if one.startswith("name=")]


def _text(data: Mapping[str, object], key: str) -> str:
    value = data.get(key, "")
    return value if isinstance(value, str) else ""


def _number(data: Mapping[str, object], key: str) -> int:
    value = data.get(key, 0)
    return value if isinstance(value, int) else 0
