"""Open the sidecar's sockets inside a bottle's network namespace, from outside, and bring them out.

A short-lived child enters the namespace, binds there and passes the descriptors back. Nothing is forwarded
and nothing stays in the namespace but the listening sockets themselves.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING

from bot_bottle.backend.bubblewrap import libc
from bot_bottle.backend.bubblewrap.fork import fork_quietly, reap
from bot_bottle.errors import LaunchError
from bot_bottle.sidecar import listeners
from bot_bottle.sidecar.control import receive_message, send_message
from bot_bottle.sidecar.listeners import send_listeners, taken_listeners

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.sidecar.listeners import Listeners

#: How long the bottle's loopback device may take to come up, in seconds.
_LOOPBACK_SECONDS = 5.0
_MAX_WORDS = 1000
_FAILED = "the sidecar's sockets could not be opened in the bottle: {}"


def open_listeners(pid: int) -> Listeners:
    """Listen on every sidecar port of ``127.0.0.1`` and ``::1`` in the network namespace of ``pid``.

    ``::1`` is left out where IPv6 is switched off. Raises ``LaunchError`` with the kernel's reason.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    libc.load()
    with ours:
        child = fork_quietly()
        if child == 0:
            try:
                _serve(pid, theirs)
            finally:
                os._exit(0)
        theirs.close()
        try:
            received = receive_message(ours)
        except (OSError, ValueError, TypeError) as error:
            raise LaunchError(_FAILED.format(error)) from error
        finally:
            reap(child)
    message, fds = received or ({}, [])
    if not fds:
        raise LaunchError(_FAILED.format(message.get("message", "no answer")))
    try:
        return taken_listeners(message, fds)
    except ValueError as error:
        raise LaunchError(_FAILED.format(error)) from error


def _serve(pid: int, channel: socket.socket) -> None:
    """In the child: enter, bind, send."""
    try:
        _enter(pid)
        send_listeners(channel, listeners.open_listeners(_while_loopback_comes_up(os.pidfd_open(pid))))
    except BaseException as error:  # noqa: BLE001 - this process has no other way to report than these words
        send_message(channel, {"event": "error", "message": str(error)[:_MAX_WORDS]})


def _enter(pid: int) -> None:
    net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    # bubblewrap may nest a second user namespace; the right one is the one that owns the network.
    owner = libc.owning_userns(net)
    own = os.stat("/proc/self/ns/user")
    other = os.fstat(owner)
    if os.path.samestat(os.fstat(net), os.stat("/proc/self/ns/net")):
        raise OSError(errno.EINVAL, "the bottle has no network namespace of its own")
    if not os.path.samestat(own, other) and os.geteuid() != 0:
        libc.setns(owner, libc.CLONE_NEWUSER)
    libc.setns(net, libc.CLONE_NEWNET)


def _while_loopback_comes_up(target: int) -> Callable[[OSError], bool]:
    """Tell which failed binds to try again: bubblewrap brings loopback up while we are on our way."""
    deadline = time.monotonic() + _LOOPBACK_SECONDS
    ended = select.poll()
    ended.register(target, select.POLLIN)

    def again(error: OSError) -> bool:
        if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
            return False
        if ended.poll(1):
            raise OSError(errno.ESRCH, "bubblewrap ended") from error
        return True

    return again
