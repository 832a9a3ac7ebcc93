"""A machine's workspace as an archive.

Root's own ``tar`` writes it, since an agent may have closed its folders.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from bot_bottle import bottle_state
from bot_bottle.agent_account import AGENT_WORKSPACE
from bot_bottle.backend.smolmachines import disk, freezing, guest, machine, replacing
from bot_bottle.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLACE = PurePosixPath(AGENT_WORKSPACE)
_COPY = ("/bin/sh", "-c", f"exec tar -cf - -C {_PLACE.parent} -- {_PLACE.name}")


@contextlib.contextmanager
def open_workspace(identity: str) -> Iterator[BinaryIO]:
    """Give the archive of a bottle's workspace; raises ``UnavailableError`` and ``LaunchError``."""
    running = bottle_state.is_running(identity)
    if not running:
        replacing.require_whole(identity)
    machine.require_kept(identity)
    with tempfile.TemporaryFile() as file:
        if running:
            _require_awake(identity)
            _copy_out(identity, file.fileno())
        else:
            with bottle_state.hold_lock(identity), disk.awake(identity):
                _copy_out(identity, file.fileno())
        file.seek(0)
        yield cast("BinaryIO", file)


def _require_awake(identity: str) -> None:
    launcher = bottle_state.launcher_of(identity)
    if launcher is not None and freezing.is_frozen(launcher):
        raise UnavailableError(
            f"the machine of {identity} is held still and reads nothing; let it go on with: "
            f"bot-bottle panic {identity} --lift"
        )


def _copy_out(identity: str, sink: int) -> None:
    failed = f"the workspace of {identity} could not be read from its machine"
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        disk.stream(identity, _COPY, user=guest.ROOT, source=nothing.fileno(), sink=sink, failed=failed)
