"""Control groups, where this user may make them: the only way to bound a whole bottle's memory and CPU time.

Version 2 is used at its top as root, beside one's own group where that is delegated to an ordinary user, or
through the user's systemd where it is not; version 1 (and the hybrid of both) as root. One group a bottle and
hierarchy, named ``bot-bottle-<identity>``.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.backend.bubblewrap import scope

if TYPE_CHECKING:
    from collections.abc import Callable

PREFIX = "bot-bottle-"
_CONTROLLERS = ("memory", "pids", "cpu")
_PERIOD_US = 100_000
_REMOVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupPlace:
    """Where groups can be made: controller -> parent folder. ``version`` is 1, 2, or 0 for nowhere.

    ``scope`` tells that the user's systemd makes them, in a place of its own.
    """

    version: int
    parents: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    scope: bool = False

    def can(self, controller: str) -> bool:
        """Tell whether ``memory``, ``pids`` or ``cpu`` can be bounded."""
        return any(name == controller for name, _parent in self.parents)


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """Bounds for one bottle: bytes, processors, processes; None for no bound."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None


class Cgroup:
    """The groups of one bottle; ``enter``, where there is one, puts a process into them from outside."""

    def __init__(self, folders: tuple[str, ...], enter: Callable[[int], None] | None = None) -> None:
        self.folders = folders
        self.enter = enter

    @property
    def procs(self) -> tuple[str, ...]:
        """The files through which a process enters."""
        return tuple(f"{folder}/cgroup.procs" for folder in self.folders)

    def remove(self) -> None:
        """Remove the groups once their last process is gone; what will not go is left to ``cleanup``."""
        for folder in self.folders:
            remove_folder(folder)


def find_place(proc: Path = Path("/proc/self")) -> CgroupPlace:
    """Find out where this process may make groups; as root, switches the controllers on at the top."""
    mounts = _mounts(proc)
    own = _own_paths(proc)
    if not mounts:
        return CgroupPlace(version=0, reason="no control groups are mounted")
    unified = [(point, root) for kind, point, root, _options in mounts if kind == "cgroup2"]
    for point, root in unified:
        parents = _v2_parents(point, _inside(point, root, own.get("", "/")))
        if parents:
            return CgroupPlace(version=2, parents=parents)
    legacy: list[tuple[str, str]] = []
    for controller in _CONTROLLERS:
        for kind, point, root, options in mounts:
            if kind == "cgroup" and controller in options:
                folder = _inside(point, root, own.get(controller, "/"))
                if os.access(folder, os.W_OK):
                    legacy.append((controller, folder))
                break
    if legacy:
        return CgroupPlace(version=1, parents=tuple(legacy))
    if os.geteuid() == 0:
        return CgroupPlace(version=0, reason="control groups are read-only here")
    for point, _root in unified:
        controllers = scope.manager_controllers(point)
        parents = tuple((name, point) for name in _CONTROLLERS if name in controllers)
        if parents:
            return CgroupPlace(version=2, parents=parents, scope=True)
    return CgroupPlace(
        version=0,
        reason="this session's control group is not delegated to you; `systemd-run --user --scope` gives one",
    )


def make_cgroup(place: CgroupPlace, identity: str, limits: CgroupLimits) -> Cgroup:
    """Make the bottle's groups and set their bounds; raises ``OSError`` with nothing left behind."""
    if place.scope:
        return Cgroup((), enter=lambda pid: scope.enter_scope(pid, identity, limits))
    made: list[str] = []
    try:
        for parent in dict.fromkeys(parent for _controller, parent in place.parents):
            folder = f"{parent}/{PREFIX}{identity}"
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o755)
            made.append(folder)
        settings = _v2_settings(limits) if place.version == 2 else _v1_settings(limits)
        for controller, name, value, required in settings:
            for controlled, parent in place.parents:
                if controlled == controller:
                    _set(f"{parent}/{PREFIX}{identity}/{name}", value, required=required)
    except OSError:
        for folder in made:
            remove_folder(folder)
        raise
    return Cgroup(tuple(made))


def leftover_folders(proc: Path = Path("/proc/self")) -> dict[str, list[str]]:
    """List groups with our name and no process in them: identity -> folders."""
    found: dict[str, list[str]] = {}
    points = {point for _kind, point, _root, _options in _mounts(proc)}
    for point in sorted(points):
        for parent, folders, _files in os.walk(point):
            for name in [name for name in folders if name.startswith(PREFIX)]:
                folders.remove(name)
                folder = f"{parent}/{name}"
                if not _has_processes(folder) and os.access(parent, os.W_OK):
                    found.setdefault(name.removeprefix(PREFIX), []).append(folder)
    return found


def remove_folder(folder: str) -> None:
    """Remove one group; the kernel takes a moment to forget the last process."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    while True:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                return
            time.sleep(0.002)
        else:
            return


def _v2_settings(limits: CgroupLimits) -> list[tuple[str, str, str, bool]]:
    settings = []
    if limits.memory is not None:
        settings += [
            ("memory", "memory.max", str(limits.memory), True),
            ("memory", "memory.swap.max", "0", False),
        ]
    if limits.pids is not None:
        settings.append(("pids", "pids.max", str(limits.pids), True))
    if limits.cpus is not None:
        settings.append(("cpu", "cpu.max", f"{int(limits.cpus * _PERIOD_US)} {_PERIOD_US}", True))
    return settings


def _v1_settings(limits: CgroupLimits) -> list[tuple[str, str, str, bool]]:
    settings = []
    if limits.memory is not None:
        settings += [
            ("memory", "memory.limit_in_bytes", str(limits.memory), True),
            ("memory", "memory.memsw.limit_in_bytes", str(limits.memory), False),
        ]
    if limits.pids is not None:
        settings.append(("pids", "pids.max", str(limits.pids), True))
    if limits.cpus is not None:
        settings += [
            ("cpu", "cpu.cfs_period_us", str(_PERIOD_US), True),
            ("cpu", "cpu.cfs_quota_us", str(int(limits.cpus * _PERIOD_US)), True),
        ]
    return settings


def _v2_parents(point: str, own: str) -> tuple[tuple[str, str], ...]:
    """Give the folder whose children have controllers and into which this process can move children."""
    # Root makes groups at the top: below its own group none may be made that has processes and controllers.
    # An ordinary user's delegated part begins at the parent of the own group.
    parent = point if os.geteuid() == 0 else os.path.dirname(own.rstrip("/"))
    if not os.access(parent, os.W_OK) or not os.access(f"{parent}/cgroup.procs", os.W_OK):
        return ()
    enabled = _words(f"{parent}/cgroup.subtree_control")
    for controller in _words(f"{parent}/cgroup.controllers") & set(_CONTROLLERS) - enabled:
        with contextlib.suppress(OSError):  # a container's top group has processes: there the kernel refuses
            _set(f"{parent}/cgroup.subtree_control", f"+{controller}", required=True)
    enabled = _words(f"{parent}/cgroup.subtree_control")
    return tuple((controller, parent) for controller in _CONTROLLERS if controller in enabled)


def _mounts(proc: Path) -> list[tuple[str, str, str, frozenset[str]]]:
    """Read the cgroup mounts as (type, mount point, root, options); see proc_pid_mountinfo(5)."""
    found = []
    with contextlib.suppress(OSError):
        for line in (proc / "mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            fields, tail = left.split(), right.split()
            if tail and tail[0] in {"cgroup", "cgroup2"}:
                found.append((tail[0], fields[4], fields[3], frozenset(tail[2].split(","))))
    return found


def _own_paths(proc: Path) -> dict[str, str]:
    """Read this process's groups: controller (empty for version 2) -> path; see cgroups(7)."""
    paths: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in (proc / "cgroup").read_text().splitlines():
            _number, controllers, path = line.split(":", 2)
            for controller in controllers.split(","):
                paths[controller] = path
    return paths


def _inside(point: str, root: str, path: str) -> str:
    """Give the folder of group ``path`` in a mount that shows the hierarchy from ``root`` on."""
    if root != "/" and (path == root or path.startswith(f"{root}/")):
        path = path[len(root) :]
    folder = f"{point}{path}".rstrip("/")
    return folder if os.path.isdir(folder) else point


def _words(path: str) -> set[str]:
    try:
        return set(Path(path).read_text().split())
    except OSError:
        return set()


def _set(path: str, value: str, *, required: bool) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)
    except OSError:
        if required:
            raise


def _has_processes(folder: str) -> bool:
    for parent, _folders, _files in os.walk(folder):
        try:
            if Path(parent, "cgroup.procs").read_text():
                return True
        except OSError:
            return True
    return False
