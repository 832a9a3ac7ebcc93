"""A world of its own for this process, where every address there is ends at a sinkhole.

It takes no privilege where ordinary accounts may make user namespaces (user_namespaces(7)).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Attach a file system or a file; see its manual page. Raises ``OSError``."""
    _check(
        _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()),
        f"mount {source} on {target}",
    )


def leave_the_host() -> None:
    """Give this single-threaded process its own mount and network (and, unless root, user) namespace."""
    flags = CLONE_NEWNS | CLONE_NEWNET
    uid, gid = os.getuid(), os.getgid()
    if uid != 0:
        _check(_libc.unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _check(_libc.unshare(flags), "unshare")
    mount("none", "/", "", MS_REC | MS_PRIVATE)


def cover_file(target: Path, content: str, scratch: Path) -> None:
    """Bind a file with ``content`` over ``target``, if there is one."""
    if target.exists():
        source = scratch / target.name
        source.write_text(content)
        source.chmod(0o644)
        mount(str(source), str(target.resolve()), "", MS_BIND)


def own_every_address() -> None:
    """Bring ``lo`` up and make every IPv4 and IPv6 address this namespace's own (``local default``)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        siocsifflags, iff_up_running = 0x8914, 0x41
        fcntl.ioctl(sock, siocsifflags, struct.pack("16sH14x", b"lo", iff_up_running))
    index = socket.if_nametoindex("lo")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            _add_local_default(netlink, family, index)


def _add_local_default(netlink: socket.socket, family: int, index: int) -> None:
    rtm_newroute, request_ack_create = 24, 0x1 | 0x4 | 0x400
    table_local, proto_boot, scope_host, type_local, rta_oif = 255, 3, 254, 2, 4
    scope = scope_host if family == socket.AF_INET else 0
    route = struct.pack("BBBBBBBBI", family, 0, 0, 0, table_local, proto_boot, scope, type_local, 0)
    payload = route + struct.pack("HHi", 8, rta_oif, index)
    netlink.send(struct.pack("IHHII", 16 + len(payload), rtm_newroute, request_ack_create, 1, 0) + payload)
    error = struct.unpack_from("i", netlink.recv(4096), 16)[0]
    if error:
        raise OSError(-error, f"adding the local default route: {os.strerror(-error)}")
