"""Open the sidecar's sockets inside a bottle's network namespace, from outside, and bring them out.

A short-lived child enters the namespace, binds there and passes the descriptors back. Nothing is forwarded
and nothing stays in the namespace but the listening sockets themselves.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import time
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.backend.bubblewrap import libc
from bot_bottle.backend.bubblewrap.fork import fork_quietly, reap
from bot_bottle.errors import LaunchError
from bot_bottle.sidecar.config import LISTENER_PORTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.sidecar.config import ListenerRole

Listeners: TypeAlias = "tuple[tuple[ListenerRole, socket.socket], ...]"

_BACKLOG = 512
#: How long the bottle's loopback device may take to come up, in seconds.
_LOOPBACK_SECONDS = 5.0
_MAX_WORDS = 1000


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
            words, fds = _receive(ours)
        finally:
            reap(child)
    sockets = [socket.socket(fileno=fd) for fd in fds]
    roles = words.split(",") if words and not words.startswith("!") else []
    if not roles or len(roles) != len(sockets):
        for sock in sockets:
            sock.close()
        raise LaunchError(
            f"the sidecar's sockets could not be opened in the bottle: {words[1:] or 'no answer'}"
        )
    known = {role: role for role in LISTENER_PORTS}
    return tuple((known[role], sock) for role, sock in zip(roles, sockets, strict=True))  # type: ignore[index]


def _serve(pid: int, channel: socket.socket) -> None:
    """In the child: enter, bind, send; the first character ``!`` marks a failure's words."""
    try:
        _enter(pid)
        bound = list(_bind_all(os.pidfd_open(pid)))
        words = ",".join(role for role, _sock in bound)
        fds = array.array("i", [sock.fileno() for _role, sock in bound])
        channel.sendmsg([words.encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    except BaseException as error:  # noqa: BLE001 - this process has no other way to report than these words
        channel.send(f"!{error}"[:_MAX_WORDS].encode())


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


def _bind_all(target: int) -> Iterator[tuple[ListenerRole, socket.socket]]:
    deadline = time.monotonic() + _LOOPBACK_SECONDS
    families = [(socket.AF_INET, "127.0.0.1")]
    if _has_ipv6():
        families.append((socket.AF_INET6, "::1"))
    for family, address in families:
        for role, port in LISTENER_PORTS.items():
            kind = socket.SOCK_DGRAM if role == "dns-udp" else socket.SOCK_STREAM
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _bind(sock, (address, port), deadline, target)
            if kind == socket.SOCK_STREAM:
                sock.listen(_BACKLOG)
            yield role, sock


def _bind(sock: socket.socket, address: tuple[str, int], deadline: float, target: int) -> None:
    ended = select.poll()
    ended.register(target, select.POLLIN)
    while True:
        try:
            sock.bind(address)
        except OSError as error:
            # bubblewrap brings loopback up while we are on our way; until then the address does not exist.
            if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                raise
            if ended.poll(1):
                raise OSError(errno.ESRCH, "bubblewrap ended") from error
        else:
            return


def _has_ipv6() -> bool:
    """Read the namespace's own setting: ``/proc/sys/net`` shows that of the process which looks."""
    try:
        with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "rb") as file:
            return file.read().strip() == b"0"
    except OSError:
        return False


def _receive(channel: socket.socket) -> tuple[str, list[int]]:
    fds = array.array("i")
    space = socket.CMSG_SPACE(2 * len(LISTENER_PORTS) * fds.itemsize)
    data, ancillary, _flags, _address = channel.recvmsg(_MAX_WORDS + 4, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data.decode("utf-8", "replace"), list(fds)
