"""The sidecar of a bottle that has it as a process of this host, perhaps begun before there was a plan."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from bot_bottle.errors import LaunchError
from bot_bottle.sidecar.client import SidecarProcess

if TYPE_CHECKING:
    from bot_bottle.sidecar.config import SidecarConfig


class HostSidecar:
    """What a backend keeps of one between ``begin_ahead`` and its launch."""

    def __init__(self) -> None:
        self._ahead: SidecarProcess | None = None

    def begin_ahead(self) -> None:
        """Have one load what it is made of; that it cannot be started is for :meth:`start` to say."""
        if self._ahead is None:
            with contextlib.suppress(LaunchError):
                self._ahead = SidecarProcess.start_ahead()

    def end_ahead(self) -> None:
        """End one that was never told anything; safe to call again."""
        sidecar, self._ahead = self._ahead, None
        if sidecar is not None:
            sidecar.close()

    def start(self, config: SidecarConfig) -> SidecarProcess:
        """Give one its config, which is the caller's to close; raises ``LaunchError``."""
        ahead, self._ahead = self._ahead, None
        return SidecarProcess.start(config, ahead)
