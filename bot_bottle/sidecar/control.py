"""The control channel between a launcher and its sidecar: JSON messages and descriptors over one socketpair.

The pair is ``SOCK_SEQPACKET``, so each message stands alone and descriptors (``SCM_RIGHTS``) arrive with the
message that names them. Nothing secret crosses it; the config has its own pipe.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_MESSAGE = 64 * 1024
_MAX_FDS = 32


def control_pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends; neither is inheritable until it is passed on by name."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_message(sock: socket.socket, message: dict[str, object], fds: Sequence[int] = ()) -> None:
    """Send one message with ``fds``; raises ``OSError`` when the other end is gone."""
    socket.send_fds(sock, [json.dumps(message).encode()], list(fds))


def receive_or_end(sock: socket.socket) -> tuple[dict[str, object], list[int]] | None:
    """Receive as :func:`receive_message`, where what is no message is the channel's end too.

    Raises ``BlockingIOError`` where nothing has come yet.
    """
    try:
        return receive_message(sock)
    except BlockingIOError:
        raise
    except (OSError, ValueError, TypeError):
        return None


def receive_message(sock: socket.socket) -> tuple[dict[str, object], list[int]] | None:
    """Receive one message and its descriptors, or ``None`` at the end of the channel.

    Raises ``OSError`` (``BlockingIOError``, ``TimeoutError`` included), ``ValueError`` or ``TypeError`` for
    what is no message.
    """
    data, fds, flags, _address = socket.recv_fds(sock, _MAX_MESSAGE, _MAX_FDS)
    if not data and not fds:
        return None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ValueError("a control message was cut short")
    message = json.loads(data)
    if not isinstance(message, dict):
        raise TypeError("a control message is an object")
    return message, fds
