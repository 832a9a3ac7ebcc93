"""The way between a sidecar and its launcher, as far as serving needs it, and its form on one machine.

Where both share a machine it is an inherited pipe for the config and a ``SOCK_SEQPACKET`` pair for the
rest; in a container it is the container's standard streams (:mod:`bot_bottle.sidecar.stdio`).
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING, Protocol, TypeAlias

from bot_bottle.sidecar.control import receive_or_end, send_message

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from bot_bottle.audit import AuditLog

Message: TypeAlias = dict[str, object]


class Channel(Protocol):
    """What a sidecar hears and says.

    ``private_folder`` is where it may keep files that no bottle sees, ``""`` where the config says so itself.
    """

    private_folder: str

    def config_is_due(self) -> bool:
        """Tell whether the config is still to come, so that there is time to get ready."""
        ...

    def read_config(self) -> bytes:
        """Read the whole config, once; raises ``OSError`` or ``ValueError`` where there is none."""
        ...

    def say(self, message: Message) -> None:
        """Send one message; raises ``OSError`` where nobody can hear it."""
        ...

    def attend(
        self,
        loop: asyncio.AbstractEventLoop,
        audit: AuditLog,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        """Hear, on ``loop``: each message with its descriptors, then, once, that the launcher is done."""
        ...

    def close(self) -> None:
        """Say what is still to be said once the log has ended, within bounds of time, and let go."""
        ...


class SocketChannel:
    """A channel to a launcher on the same machine."""

    private_folder = ""

    def __init__(self, config_fd: int, control_fd: int) -> None:
        self._config_fd = config_fd
        self._control = socket.socket(fileno=control_fd)
        self._control.set_inheritable(False)

    def config_is_due(self) -> bool:
        """Tell whether nothing has come down the pipe yet, its end included."""
        return not select.select([self._config_fd], [], [], 0)[0]

    def read_config(self) -> bytes:
        """Read the pipe to its end and close it."""
        with os.fdopen(self._config_fd, "rb") as pipe:
            return pipe.read()

    def say(self, message: Message) -> None:
        """Send one message."""
        send_message(self._control, message)

    def attend(
        self,
        loop: asyncio.AbstractEventLoop,
        audit: AuditLog,  # noqa: ARG002 - the launcher has the very file
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        """Hear messages until the other end is closed; what is no message counts as an end."""

        def on_readable() -> None:
            try:
                received = receive_or_end(self._control)
            except BlockingIOError:
                return
            if received is None:
                loop.remove_reader(self._control.fileno())
                on_end()
                return
            on_message(*received)

        self._control.setblocking(False)  # noqa: FBT003 - the library's signature
        loop.add_reader(self._control.fileno(), on_readable)

    def close(self) -> None:
        """Let go."""
        self._control.close()
