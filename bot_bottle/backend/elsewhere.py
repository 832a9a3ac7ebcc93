"""A running bottle as a process sees it that did not start it: it has a name and can be ended.

What only the launcher holds (descriptors, connections) has a stand-in here, which says so where it is used.
"""

from __future__ import annotations

from typing import Any, NoReturn

from bot_bottle.errors import LaunchError


class HeldElsewhere:
    """Stands where a bottle keeps what its launcher alone holds; ending it ends the launcher's session."""

    def __init__(self, identity: str) -> None:
        self._identity = identity

    def stop(self) -> None:
        """Tell the launcher to end; no error where it has. Raises ``LaunchError`` where it is not found."""
        from bot_bottle.control_client import end_session  # noqa: PLC0415 - few ask for it

        end_session(self._identity)

    close = stop

    def await_ready(self) -> None:
        """Wait for nothing: who started it has done so."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise LaunchError(
            f"the bottle {self._identity} is held by the process that started it, and only that can do this"
        )


def held_elsewhere(identity: str) -> Any:
    """Make a stand-in for any part of a bottle."""
    return HeldElsewhere(identity)
