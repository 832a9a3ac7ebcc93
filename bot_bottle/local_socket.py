"""Unix sockets in a bottle's state folder: made private, found again, however long the folder's name is."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import time
from typing import TYPE_CHECKING

from bot_bottle.files import PRIVATE_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BACKLOG = 128
_AGAIN_SECONDS = 0.01
#: struct ucred: pid, uid, gid (unix(7), SO_PEERCRED).
_CREDENTIALS = struct.Struct("iII")


@contextlib.contextmanager
def listening(folder: Path, name: str, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """Listen at ``folder/name`` while the body runs, for this user alone; what was there is replaced.

    ``folder`` is private and its lock is the caller's. Raises ``OSError``.
    """
    listener = socket.socket(socket.AF_UNIX, kind)
    place = folder / name
    try:
        place.unlink(missing_ok=True)  # what a killed launcher left
        with _short_name(folder) as short:
            listener.bind(f"{short}/{name}")
        place.chmod(PRIVATE_FILE)  # before anybody can connect
        listener.listen(_BACKLOG)
        yield listener
    finally:
        listener.close()
        with contextlib.suppress(OSError):
            place.unlink(missing_ok=True)


def connect(folder: Path, name: str, kind: socket.SocketKind, seconds: float) -> socket.socket:
    """Connect to a socket of this user's; calls on it then take up to ``seconds`` each.

    Trying on while the queue is full: with a bound on waiting the kernel says so at once. Raises ``OSError``.
    """
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.settimeout(seconds)
    deadline = time.monotonic() + seconds
    try:
        status = (folder / name).lstat()
        if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
            raise OSError("it is no socket of this user")
        with _short_name(folder) as short:
            while True:
                try:
                    sock.connect(f"{short}/{name}")
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_AGAIN_SECONDS)
                else:
                    return sock
    except BaseException:
        sock.close()
        raise


def peer_uid(connection: socket.socket) -> int:
    """Give the user at the other end, as the kernel noted it when it connected. Raises ``OSError``."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


@contextlib.contextmanager
def _short_name(path: Path) -> Iterator[str]:
    """Give a short name of a folder: a socket's address holds 107 bytes (unix(7)), a home may have more."""
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
