"""The few kernel calls that Python does not offer: mounting and changing namespaces."""

from __future__ import annotations

import ctypes
import fcntl
import os
from functools import cache

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000

_NS_GET_USERNS = 0xB701


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def load() -> None:
    """Load the C library now, so that nothing has to be loaded after a fork."""
    _libc()


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (unshare(2)); raises ``OSError``."""
    if _libc().unshare(ctypes.c_int(flags)) != 0:
        raise _error("unshare")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace behind ``fd`` (setns(2)); raises ``OSError``."""
    if _libc().setns(ctypes.c_int(fd), ctypes.c_int(kind)) != 0:
        raise _error("setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount (mount(2)); raises ``OSError`` that names ``target``."""
    result = _libc().mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )
    if result != 0:
        raise _error(target)


def owning_userns(fd: int) -> int:
    """Open the user namespace that owns the namespace behind ``fd`` (ioctl_ns(2)); raises ``OSError``."""
    return fcntl.ioctl(fd, _NS_GET_USERNS)


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
