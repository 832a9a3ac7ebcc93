"""Processes of this machine, as /proc shows them to this account."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def all_processes() -> list[Path]:
    """Give the folder of every process."""
    return [path for path in _PROC.iterdir() if path.name.isdigit()]


def own_sidecars() -> list[Path]:
    """Give those of the sidecars that this process itself started; none where they run in an engine."""
    return [path for path in all_processes() if _is_sidecar_of_ours(path)]


def holds(path: Path, needle: bytes) -> bool:
    """Tell whether a file that can be read has ``needle`` in it."""
    try:
        return needle in path.read_bytes()
    except OSError:  # a process that has ended, or another account's
        return False


def _is_sidecar_of_ours(path: Path) -> bool:
    try:
        parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return False
    return int(parent) == os.getpid() and holds(path / "cmdline", b"bot_bottle.sidecar")
