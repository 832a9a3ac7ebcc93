"""The scripted outside as an operator's proxy: a CONNECT leads to the address it names."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from bot_bottle.demo.upstreams import Answer
from bot_bottle.egress.hosts import parse_authority

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.demo.upstreams import Seen

_SECONDS = 60.0


def tunnel(seen: Seen) -> Answer:
    """Open the way a CONNECT asks for, or say that its target is no address and port."""
    target = parse_authority(seen.target)

    def serve(connection: socket.socket, _record: Callable[[bytes], None]) -> None:
        with socket.create_connection((target.host, target.port or 443), _SECONDS) as far:
            back = threading.Thread(target=_pump, args=(far, connection), daemon=True)
            back.start()
            _pump(connection, far)
            back.join(_SECONDS)

    return Answer(upgraded=serve)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
