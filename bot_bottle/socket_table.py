"""The kernel's table of TCP sockets (proc(5), ``/proc/net/tcp``): whose a connection is, who listens."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

#: (IPv4 address, port)
Place: TypeAlias = tuple[str, int]

_LISTENS: Final = "0A"


def read_table() -> str:
    """Read the table of this network namespace's IPv4 sockets; raises ``OSError``."""
    return Path("/proc/self/net/tcp").read_text()


def owner_of(table: str, local: Place, remote: Place) -> int | None:
    """Find who owns the IPv4 socket that ``local`` and ``remote`` join: an account's number."""
    wanted = [_in_table(local), _in_table(remote)]
    return next((int(fields[7]) for fields in _rows(table) if fields[1:3] == wanted), None)


def listeners(table: str, place: Place) -> tuple[int, ...]:
    """Give the inodes of the sockets that listen at exactly ``place``."""
    wanted = _in_table(place)
    return tuple(int(fields[9]) for fields in _rows(table) if fields[1] == wanted and fields[3] == _LISTENS)


def holds(pid: int, inode: int) -> bool:
    """Tell whether a process has the socket among its descriptors; what cannot be read is told as no."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False
    return any(_target(entry) == f"socket:[{inode}]" for entry in descriptors)


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:  # closed by now
        return ""


def _rows(table: str) -> Iterator[list[str]]:
    return (line.split() for line in table.splitlines()[1:])


def _in_table(place: Place) -> str:
    (address,) = struct.unpack("=I", socket.inet_aton(place[0]))
    return f"{address:08X}:{place[1]:04X}"
