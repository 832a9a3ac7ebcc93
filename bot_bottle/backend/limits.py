"""How much a bottle may use where the manifest leaves it open, the same for every backend."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.backend.plan import LimitStatus

if TYPE_CHECKING:
    from bot_bottle.manifest.model import ManifestLimits

_DEFAULT_PROCESSES = 1024
_DEFAULT_OPEN_FILES = 4096
_GIB = 1 << 30
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveLimits:
    """What one bottle gets: bytes, processors (None: all), processes and threads, descriptors a process."""

    memory: int
    cpus: float | None
    processes: int
    open_files: int


# Files in memory count against the bottle's memory and no killed process gives them back, so all places for
# them together take well under it: PID 1 must never be what the kernel finds to kill.


def machine_memory() -> int:
    """Give this machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def tmp_bytes(memory: int) -> int:
    """Give the size of ``/tmp`` for a bottle of ``memory`` bytes."""
    return memory // 2


def shared_memory_bytes(memory: int) -> int:
    """Give the size of ``/dev/shm`` for a bottle of ``memory`` bytes."""
    return min(memory // 16, _GIB)


def run_bytes(memory: int) -> int:
    """Give the size of ``/run`` for a bottle of ``memory`` bytes."""
    return min(memory // 64, 64 * _MIB)


def effective_limits(asked: ManifestLimits, machine_memory: int) -> EffectiveLimits:
    """Fill in what the manifest leaves open: half the memory, all processors, 1024 processes, 4096 files.

    ``machine_memory`` is that of the machine that runs the bottle, in bytes.
    """
    return EffectiveLimits(
        memory=asked.memory or machine_memory // 2,
        cpus=asked.cpus,
        processes=asked.pids or _DEFAULT_PROCESSES,
        open_files=asked.open_files or _DEFAULT_OPEN_FILES,
    )


#: Whether a limit holds, and through what or why not.
Held: TypeAlias = tuple[bool, str]


def limit_statuses(
    limits: EffectiveLimits, *, memory: Held, processes: Held, open_files: Held, cpu: Held, disk: str
) -> tuple[LimitStatus, ...]:
    """Say of each limit whether it holds; ``disk`` says why there is none on it."""
    return (
        _status("memory", amount(limits.memory), memory),
        _status("processes", str(limits.processes), processes),
        _status("open files", f"{limits.open_files} a process", open_files),
        _status("cpu", "all", (True, "no limit asked for"))
        if limits.cpus is None
        else _status("cpu", f"{limits.cpus:g}", cpu),
        _status("disk", "", (False, disk)),
    )


def _status(name: str, value: str, held: Held) -> LimitStatus:
    return LimitStatus(name=name, value=value, holds=held[0], how=held[1])


def amount(count: int) -> str:
    """Write a number of bytes for people."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"
