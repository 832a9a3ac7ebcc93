"""How much a bottle may use, and what of it this machine can hold."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.backend.base import LimitStatus
from bot_bottle.backend.bubblewrap.cgroup import CgroupLimits

if TYPE_CHECKING:
    from bot_bottle.backend.bubblewrap.cgroup import CgroupPlace
    from bot_bottle.manifest.model import ManifestLimits

_DEFAULT_PROCESSES = 1024
_DEFAULT_OPEN_FILES = 4096
#: bubblewrap's monitor and PID 1 count as processes of the bottle but are none of the agent's.
_OWN_PROCESSES = 2
_GIB = 1 << 30
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveLimits:
    """What one bottle gets: bytes, processors (None: all), processes and threads, descriptors a process."""

    memory: int
    cpus: float | None
    processes: int
    open_files: int

    def for_cgroup(self) -> CgroupLimits:
        """Give the bounds for the bottle's control group."""
        return CgroupLimits(memory=self.memory, cpus=self.cpus, pids=self.processes + _OWN_PROCESSES)

    def rlimits(self) -> tuple[tuple[int, int], ...]:
        """Give the bounds that each process carries; memory images never touch the disk."""
        return ((resource.RLIMIT_NOFILE, self.open_files), (resource.RLIMIT_CORE, 0))

    def process_rlimit(self) -> tuple[int, int]:
        """Give the bound on the number of processes of the bottle's account."""
        return resource.RLIMIT_NPROC, self.processes + _OWN_PROCESSES


def effective_limits(asked: ManifestLimits) -> EffectiveLimits:
    """Fill in what the manifest leaves open: half the memory, all processors, 1024 processes, 4096 files."""
    hard_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    open_files = asked.open_files or _DEFAULT_OPEN_FILES
    return EffectiveLimits(
        memory=asked.memory or machine_memory() // 2,
        cpus=asked.cpus,
        processes=asked.pids or _DEFAULT_PROCESSES,
        open_files=open_files if hard_files == resource.RLIM_INFINITY else min(open_files, hard_files),
    )


def machine_memory() -> int:
    """Give this machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def limit_statuses(limits: EffectiveLimits, place: CgroupPlace) -> tuple[LimitStatus, ...]:
    """Say of each limit whether it holds here, and through what or why not."""
    by_cgroup = f"cgroup v{place.version}{', by systemd' if place.scope else ''}"
    return (
        LimitStatus(
            name="memory",
            value=_amount(limits.memory),
            holds=place.can("memory"),
            how=by_cgroup if place.can("memory") else place.reason or "no memory controller",
        ),
        LimitStatus(
            name="processes",
            value=str(limits.processes),
            holds=True,
            how=f"rlimit and {by_cgroup}" if place.can("pids") else "rlimit",
        ),
        LimitStatus(name="open files", value=f"{limits.open_files} a process", holds=True, how="rlimit"),
        _cpu_status(limits, place, by_cgroup),
        LimitStatus(name="disk", value="", holds=False, how="home and workspace are folders of this disk"),
    )


def _cpu_status(limits: EffectiveLimits, place: CgroupPlace, by_cgroup: str) -> LimitStatus:
    can = place.can("cpu")
    if limits.cpus is None:
        return LimitStatus(name="cpu", value="all", holds=True, how="no limit asked for")
    return LimitStatus(
        name="cpu",
        value=f"{limits.cpus:g}",
        holds=can,
        how=by_cgroup if can else place.reason or "no cpu controller",
    )


def _amount(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
