"""The sockets a sidecar serves inside a bottle: their roles and ports, how they are opened and passed on.

Whoever stands in the bottle's network namespace opens them; the standard library alone is needed for that.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from bot_bottle.sidecar.control import send_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: What a listening socket handed to the sidecar is for.
ListenerRole: TypeAlias = Literal[
    "dns-udp", "dns-tcp", "http", "https", "proxy", "git", "supervise", "interceptor", "control"
]

#: Bound (UDP) or listening (TCP) sockets with what each is for.
Listeners: TypeAlias = "tuple[tuple[ListenerRole, socket.socket], ...]"

#: Role -> TCP or UDP port inside the bottle. Every backend opens the same ones on the bottle's loopback.
LISTENER_PORTS: dict[ListenerRole, int] = {
    "dns-udp": 53,
    "dns-tcp": 53,
    "http": 80,
    "https": 443,
    "proxy": 9099,
    "git": 9420,
    "supervise": 9100,
}

#: What :func:`taken_listeners` accepts. An interceptor listens on the host, for a bottle that is a machine,
#: and so does the operator's control socket.
_ROLES = frozenset({*LISTENER_PORTS, "interceptor", "control"})

#: The port of the explicit proxy inside every bottle.
PROXY_PORT = LISTENER_PORTS["proxy"]

#: The port of the git gate inside every bottle.
GIT_PORT = LISTENER_PORTS["git"]

#: The port inside every bottle where an agent asks for more; closed where the bottle may not ask.
SUPERVISE_PORT = LISTENER_PORTS["supervise"]

_BACKLOG = 512


def open_listeners(again: Callable[[OSError], bool] = lambda _error: False) -> Listeners:
    """Listen on every port of ``127.0.0.1`` and ``::1`` in this process's network namespace.

    ``::1`` is left out where IPv6 is switched off. ``again`` is asked, for each bind that fails, whether to
    try once more. Raises ``OSError`` with nothing left open.
    """
    opened: list[tuple[ListenerRole, socket.socket]] = []
    families = [(socket.AF_INET, "127.0.0.1")]
    if _has_ipv6():
        families.append((socket.AF_INET6, "::1"))
    try:
        for family, address in families:
            for role, port in LISTENER_PORTS.items():
                kind = socket.SOCK_DGRAM if role == "dns-udp" else socket.SOCK_STREAM
                sock = socket.socket(family, kind)
                opened.append((role, sock))
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                _bind(sock, (address, port), again)
                if kind == socket.SOCK_STREAM:
                    sock.listen(_BACKLOG)
    except BaseException:
        close_listeners(tuple(opened))
        raise
    return tuple(opened)


def close_listeners(listeners: Listeners) -> None:
    """Close this process's copies."""
    for _role, sock in listeners:
        sock.close()


def send_listeners(channel: socket.socket, listeners: Sequence[tuple[ListenerRole, socket.socket]]) -> None:
    """Pass sockets on over a ``SOCK_SEQPACKET`` channel; raises ``OSError`` where the other end is gone."""
    message: dict[str, object] = {"event": "listeners", "roles": [role for role, _sock in listeners]}
    send_message(channel, message, [sock.fileno() for _role, sock in listeners])


def taken_listeners(message: Mapping[str, object], fds: Sequence[int]) -> Listeners:
    """Give the sockets of a received message; raises ``ValueError`` with every descriptor closed."""
    sockets = [socket.socket(fileno=fd) for fd in fds]
    roles = message.get("roles")
    try:
        if message.get("event") != "listeners" or not isinstance(roles, list) or len(roles) != len(sockets):
            raise ValueError("a listeners message names one role for each descriptor")
        if not all(role in _ROLES for role in roles):
            raise ValueError("a listener has an unknown role")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return tuple((cast("ListenerRole", role), sock) for role, sock in zip(roles, sockets, strict=True))


def _bind(sock: socket.socket, address: tuple[str, int], again: Callable[[OSError], bool]) -> None:
    while True:
        try:
            sock.bind(address)
        except OSError as error:
            if not again(error):
                raise OSError(error.errno, f"{address[0]} port {address[1]}: {error.strerror}") from error
        else:
            return


def _has_ipv6() -> bool:
    """Read the namespace's own setting: ``/proc/sys/net`` shows that of the process which looks."""
    try:
        with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "rb") as file:  # noqa: PTH123 - as in handover.py
            return file.read().strip() == b"0"
    except OSError:
        return False
