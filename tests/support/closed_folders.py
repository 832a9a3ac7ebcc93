"""Let every account of a test pass a folder that is closed to others, in this mount namespace alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bot_bottle.verify.namespaces import MS_BIND, MS_REC, mount

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def open_to_everyone(paths: Iterable[Path]) -> None:
    """Make ``paths`` reachable for any uid where a closed folder (a 0700 home) stands above them.

    The closed folder is covered by an empty one, for this mount namespace only, that holds nothing but the
    named paths; nothing on disk changes.
    """
    behind: dict[Path, list[Path]] = {}
    for path in paths:
        closed = next((p for p in reversed(path.parents) if not p.stat().st_mode & 0o001), None)
        if closed is not None:
            behind.setdefault(closed, []).append(path)
    for closed, hidden in behind.items():
        handles = [(path, os.open(path, os.O_PATH)) for path in hidden]
        mount("none", str(closed), "tmpfs", 0, "mode=0755")
        for path, handle in handles:
            path.mkdir(parents=True, exist_ok=True)
            mount(f"/proc/self/fd/{handle}", str(path), "", MS_BIND | MS_REC)
            os.close(handle)
