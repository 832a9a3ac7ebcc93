"""The streams of an attached container or of a running exec, over the one connection the engine gives up.

Without a terminal the engine puts each piece of output into a frame: the stream's number (1 is stdout, 2 is
stderr), three zero bytes, the payload's length (32 bits, big endian), the payload. Source: the engine's API,
"ContainerAttach". Input goes the other way as it is.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT, STDERR = 1, 2

#: A stream's number and some of its bytes.
Piece: TypeAlias = tuple[int, bytes]

_HEADER_BYTES = 8
_CHUNK = 1 << 16
#: How much is sent in one go: what TLS puts into one record.
_SEND_BYTES = 1 << 14
_NOTICE_SECONDS = 10.0


class FrameDecoder:
    """Take frames apart without ever holding one whole: a payload is given on as its bytes arrive."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> list[Piece]:
        """Give the pieces in ``data``; raises ``ValueError`` for what is no frame."""
        pieces: list[Piece] = []
        view = memoryview(data)
        while view:
            if self._left:
                taken = bytes(view[: self._left])
                pieces.append((self._stream, taken))
                self._left -= len(taken)
                view = view[len(taken) :]
                continue
            missing = _HEADER_BYTES - len(self._header)
            self._header += bytes(view[:missing])
            view = view[missing:]
            if len(self._header) == _HEADER_BYTES:
                if self._header[0] not in {0, STDOUT, STDERR} or any(self._header[1:4]):
                    raise ValueError("the engine's stream is not in frames")
                self._stream = self._header[0] or STDOUT
                self._left = int.from_bytes(self._header[4:], "big")
                self._header = b""
        return pieces


class Multiplexed:
    """One such connection. One thread may read while another writes; close it when both are done.

    ``connection`` is what the SDK's ``attach_socket`` or ``exec_start(socket=True)`` gives, for an engine on
    a unix socket, on TCP or behind TLS.
    """

    def __init__(self, connection: object) -> None:
        # The SDK gives the unbuffered reader below its HTTP response, or the TLS socket below that.
        sock = getattr(connection, "_sock", connection)
        if not isinstance(sock, socket.socket):
            raise TypeError(f"no connection to an engine: {type(connection).__name__}")
        self._connection = connection
        self._response = getattr(connection, "_response", None)
        self._sock = sock
        self._decoder = FrameDecoder()
        self._unsent = b""
        self._write_closed = False
        # OpenSSL allows one call at a time on a session (SSL_read and SSL_write alike).
        self._lock = threading.Lock()
        sock.setblocking(False)  # noqa: FBT003 - the library's signature
        self._early = self._read_ahead()

    def fileno(self) -> int:
        """Give the descriptor to poll; it is readable when there is something to read."""
        return self._sock.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Tell whether something accepted is still to be sent: then poll for writing too."""
        return bool(self._unsent)

    def read_now(self) -> list[Piece] | None:
        """Give what has arrived: None where that is nothing, an empty list at the end.

        Raises ``OSError`` where the connection broke and ``ValueError`` for what is no frame.
        """
        early, self._early = self._early, b""
        pieces = self._decoder.feed(early)
        while True:
            try:
                with self._lock:
                    data = self._sock.recv(_CHUNK)
                    more = isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return pieces or None
            if not data:
                return pieces
            pieces += self._decoder.feed(data)
            if pieces and not more:
                return pieces

    def read(self, timeout: float | None = None) -> list[Piece]:
        """Wait for output and give it; an empty list at the end.

        Raises ``TimeoutError`` after ``timeout`` seconds, and what :meth:`read_now` raises.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (pieces := self.read_now()) is None:
            self._await(select.POLLIN, deadline)
        return pieces

    def __iter__(self) -> Iterator[Piece]:
        """Give all output up to the end."""
        while pieces := self.read():
            yield from pieces

    def write_now(self, data: bytes | memoryview) -> int:
        """Take as much of ``data`` as can be sent soon and give how much that is, perhaps nothing.

        Raises ``OSError`` where the connection broke.
        """
        if not self._flush():
            return 0
        self._unsent = bytes(data[:_SEND_BYTES])
        taken = len(self._unsent)
        self._flush()
        return taken

    def write(self, data: bytes | memoryview, timeout: float | None = None) -> None:
        """Send all of ``data``; raises ``TimeoutError`` after ``timeout`` seconds without being able to."""
        deadline = None if timeout is None else time.monotonic() + timeout
        view = memoryview(data)
        while view or self._unsent:
            taken = self.write_now(view)
            view = view[taken:]
            if self._unsent:
                self._await(select.POLLOUT, deadline)

    def half_close(self, timeout: float | None = None) -> None:
        """Say that there is no more input; output still comes. Raises what :meth:`write` raises."""
        if self._write_closed:
            return
        self.write(b"", timeout)
        self._write_closed = True
        if isinstance(self._sock, ssl.SSLSocket):
            with self._lock:
                notice = _close_notice(self._sock)
            _send_below(self._sock, notice)
            return
        with contextlib.suppress(OSError):  # the other end is gone: nobody waits for the end of input
            self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Cut the connection under a reading thread, which then sees the end; :meth:`close` is still due."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection; safe to call again."""
        response, self._response = self._response, None
        for closable in (response, self._connection, self._sock):
            with contextlib.suppress(OSError, AttributeError):
                closable.close()  # type: ignore[union-attr]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _flush(self) -> bool:
        """Send what was accepted; True when nothing of it is left."""
        while self._unsent:
            try:
                with self._lock:
                    # After "want write" OpenSSL insists on the same bytes, so they are kept here.
                    sent = self._sock.send(self._unsent)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            self._unsent = self._unsent[sent:]
        return True

    def _await(self, events: int, deadline: float | None) -> None:
        poller = select.poll()
        poller.register(self._sock, events)
        left = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000) + 1)
        if not poller.poll(left) and deadline is not None and time.monotonic() >= deadline:
            raise TimeoutError("the engine's connection stands still")

    def _read_ahead(self) -> bytes:
        """Take what came in one read with the response's head: the HTTP reader holds it in its buffer."""
        with contextlib.suppress(AttributeError, ssl.SSLWantReadError):
            data: bytes | None = self._response.raw._fp.fp.read1(_CHUNK)  # type: ignore[union-attr]
            return data or b""
        return b""


def _close_notice(sock: ssl.SSLSocket) -> bytes:
    """Let the session make its close_notify and give that record's bytes, to be sent by the caller.

    ``unwrap`` would send it and then read on for the peer's own, dropping output that is still on its way
    (RFC 8446, 6.1 lets it come). So the session's descriptor stands for one end of a socket pair meanwhile.
    """
    inner, outer = socket.socketpair()
    kept = os.dup(sock.fileno())
    try:
        inner.setblocking(False)  # noqa: FBT003 - the library's signature
        os.dup2(inner.fileno(), sock.fileno(), inheritable=False)
        with contextlib.suppress(ssl.SSLWantReadError, OSError):
            sock.unwrap()  # ends in "want read" unless the peer has closed too, when there is nothing to read
        outer.setblocking(False)  # noqa: FBT003 - the library's signature
        return outer.recv(_CHUNK)
    finally:
        os.dup2(kept, sock.fileno(), inheritable=False)
        os.close(kept)
        inner.close()
        outer.close()


def _send_below(sock: ssl.SSLSocket, record: bytes) -> None:
    """Send a finished record on the connection below a TLS session."""
    with socket.socket(fileno=os.dup(sock.fileno())) as plain:
        plain.settimeout(_NOTICE_SECONDS)
        with contextlib.suppress(OSError):  # the other end is gone: nobody waits for the end of input
            plain.sendall(record)
