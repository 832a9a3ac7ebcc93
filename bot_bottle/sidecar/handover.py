"""Hand listening sockets from the bottle's network namespace to a sidecar in a container of its own.

The sidecar waits on a unix socket in a volume that only it and the doorkeeper see; the doorkeeper, which
stands in the bottle's network namespace, connects and passes the descriptors. The first comer is the only
one: the socket's name is gone and nobody listens any more before a word of it is read.
"""

from __future__ import annotations

import os
import socket
import struct
import time

#: Where the private volume is, in both containers; it exists in the image and belongs to the sidecar's user.
#: No ``Path``: that module alone would take the doorkeeper a fifth of its whole start.
FOLDER = "/run/bot-bottle"
PLACE = f"{FOLDER}/doors.sock"

_CREDENTIALS = struct.Struct("3i")
#: The sidecar listens before it does anything else; its container may start after the doorkeeper's.
_PAUSE_SECONDS = 0.005


def wait_for_one(place: str = PLACE) -> socket.socket:
    """Listen at ``place``, for this user alone; raises ``OSError``."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        before = os.umask(0o177)
        try:
            sock.bind(place)
        finally:
            os.umask(before)
        sock.listen(1)
    except BaseException:
        sock.close()
        raise
    return sock


def take_one(listening: socket.socket, place: str = PLACE) -> socket.socket:
    """Accept the one comer and shut the door; raises ``OSError`` where it is another user's process."""
    try:
        comer, _address = listening.accept()
    finally:
        listening.close()
        os.unlink(place)  # noqa: PTH108 - see above
    _pid, uid, _gid = _CREDENTIALS.unpack(
        comer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    if uid != os.geteuid():
        comer.close()
        raise PermissionError("another user's process came with the listeners")
    return comer


def come(place: str = PLACE, *, seconds: float = 20.0) -> socket.socket:
    """Connect to the sidecar, once it waits; raises ``OSError``, a ``TimeoutError`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(place)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            sock.close()
            if time.monotonic() > deadline:
                raise TimeoutError(f"no sidecar waits at {place}") from error
            time.sleep(_PAUSE_SECONDS)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
