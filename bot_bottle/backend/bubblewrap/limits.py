"""How much a bottle may use, and what of it this machine can hold."""

from __future__ import annotations

import resource
from dataclasses import replace
from typing import TYPE_CHECKING

from bot_bottle.backend import limits as limits_module
from bot_bottle.backend.bubblewrap.cgroup import CgroupLimits
from bot_bottle.backend.limits import EffectiveLimits, effective_limits, machine_memory

if TYPE_CHECKING:
    from bot_bottle.backend.bubblewrap.cgroup import CgroupPlace
    from bot_bottle.backend.limits import Held
    from bot_bottle.backend.plan import LimitStatus
    from bot_bottle.manifest.model import ManifestLimits

#: bubblewrap's monitor and PID 1 count as processes of the bottle but are none of the agent's.
_OWN_PROCESSES = 2


def limits_here(asked: ManifestLimits) -> EffectiveLimits:
    """Give a bottle's limits on this machine, within what this process may set."""
    limits = effective_limits(asked, machine_memory())
    hard_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard_files == resource.RLIM_INFINITY:
        return limits
    return replace(limits, open_files=min(limits.open_files, hard_files))


def for_cgroup(limits: EffectiveLimits) -> CgroupLimits:
    """Give the bounds for the bottle's control group."""
    return CgroupLimits(memory=limits.memory, cpus=limits.cpus, pids=limits.processes + _OWN_PROCESSES)


def rlimits(limits: EffectiveLimits) -> tuple[tuple[int, int], ...]:
    """Give the bounds that each process carries; memory images never touch the disk."""
    return ((resource.RLIMIT_NOFILE, limits.open_files), (resource.RLIMIT_CORE, 0))


def process_rlimit(limits: EffectiveLimits) -> tuple[int, int]:
    """Give the bound on the number of processes of the bottle's account."""
    return resource.RLIMIT_NPROC, limits.processes + _OWN_PROCESSES


def limit_statuses(limits: EffectiveLimits, place: CgroupPlace) -> tuple[LimitStatus, ...]:
    """Say of each limit whether it holds here, and through what or why not."""
    by_cgroup = f"cgroup v{place.version}{', by systemd' if place.scope else ''}"

    def held(name: str) -> Held:
        can = place.can(name)
        return can, by_cgroup if can else place.reason or f"no {name} controller"

    return limits_module.limit_statuses(
        limits,
        memory=held("memory"),
        processes=(True, f"rlimit and {by_cgroup}" if place.can("pids") else "rlimit"),
        open_files=(True, "rlimit"),
        cpu=held("cpu"),
        disk="home and workspace are folders of this disk",
    )
