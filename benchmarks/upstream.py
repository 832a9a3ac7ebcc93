"""An upstream that costs little beside what is measured: the ssl module on epoll, four processes."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import socket
import ssl
import time
from typing import TYPE_CHECKING, Self

from bot_bottle.demo.authority import Authority

if TYPE_CHECKING:
    from pathlib import Path

DOMAIN = "bench.example.org"
HOST = f"one.{DOMAIN}"
MANY_HOSTS = tuple(f"h{number:03}.{DOMAIN}" for number in range(100))
BODY = 1024
EVENT_SECONDS = 0.0005
#: Where nothing is read any more once a request's head has come.
STALLING = "/stalling"

_WORKERS = 4

_FORK = multiprocessing.get_context("fork")
_BLOCK = b"x" * (1 << 16)


class Upstream:
    """Answer over TLS, keep-alive: 1 KiB for any path, ``/bytes/N``, ``/events/N``; bodies are dropped.

    Each event carries the monotonic clock's nanoseconds of its sending, which are the same for all processes.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = Authority("Benchmark upstream")
        self.ca_file = folder / "upstream-ca.pem"
        self.ca_file.write_text(self.authority.pem)
        self._context = self.authority.server_context(f"*.{DOMAIN}")
        self._context.sni_callback = lambda *_: None  # the one certificate is for all hosts
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._process = _FORK.Process(target=self._serve, daemon=False)
        self._process.start()

    def close(self) -> None:
        """Stop serving."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGTERM)
        self._process.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self) -> None:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, _end_group)
        self._listener.setblocking(False)
        for _ in range(_WORKERS - 1):
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                break
        _Worker(self._context, self._listener).run()


def _end_group(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.killpg(0, signal.SIGTERM)


class _Worker:
    """Answers small requests as they come, and gives itself wholly to a large one."""

    def __init__(self, context: ssl.SSLContext, listener: socket.socket) -> None:
        self._context = context
        self._listener = listener
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self._connections: dict[int, ssl.SSLSocket] = {}
        self._pending: dict[int, bytes] = {}
        self._stalling: set[int] = set()

    def run(self) -> None:
        """Serve until a signal comes."""
        while True:
            for fd, _event in self._poll.poll():
                if fd == self._listener.fileno():
                    self._accept()
                    continue
                try:
                    self._hear(fd, self._connections[fd])
                except ssl.SSLWantReadError:
                    pass
                except (OSError, ValueError):
                    self._connections.pop(fd).close()

    def _accept(self) -> None:
        try:
            plain, _ = self._listener.accept()
        except BlockingIOError:
            return
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setblocking(False)
        connection = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._connections[connection.fileno()] = connection
        self._pending[connection.fileno()] = b""
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _hear(self, fd: int, connection: ssl.SSLSocket) -> None:
        if fd in self._stalling:
            self._stalling.discard(fd)
            raise ConnectionError  # its client is gone
        if connection.version() is None:
            connection.do_handshake()
        while True:
            data = connection.recv(65536)
            if not data:
                raise ConnectionError
            pending = self._pending[fd] + data
            while b"\r\n\r\n" in pending:
                head, _, pending = pending.partition(b"\r\n\r\n")
                if head.startswith(b"POST %b " % STALLING.encode()):
                    self._stalling.add(fd)
                    self._poll.modify(fd, select.EPOLLRDHUP)
                    # Or the kernel would take megabytes of each in its place.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    return
                pending = _answer(connection, head, pending)
            self._pending[fd] = pending


def _answer(connection: ssl.SSLSocket, head: bytes, pending: bytes) -> bytes:
    """Answer one request; gives what came behind it."""
    method, path, _ = head.split(b" ", 2)
    if method == b"GET" and not path.startswith((b"/bytes/", b"/events/")):
        connection.send(_SMALL)
        return pending
    connection.setblocking(True)
    pending = _read_body(connection, head, pending)
    if path.startswith(b"/bytes/"):
        _send_bytes(connection, int(path[7:]))
    elif path.startswith(b"/events/"):
        _send_events(connection, int(path[8:]))
    else:
        connection.sendall(_SMALL)
    connection.setblocking(False)
    return pending


def _head(framing: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n" + framing + b"\r\n\r\n"


_SMALL = _head(b"Content-Length: %d" % BODY) + b"x" * BODY


def _read_body(connection: ssl.SSLSocket, head: bytes, pending: bytes) -> bytes:
    """Read a request's body; gives what came behind it."""
    lower = head.lower()
    if b"\r\ntransfer-encoding:" in lower:
        while not pending.endswith(b"0\r\n\r\n"):
            data = connection.recv(65536)
            if not data:
                raise ConnectionError
            pending = (pending + data)[-5:]
        return b""
    missing = 0
    if b"\r\ncontent-length:" in lower:
        missing = int(lower.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
    missing -= len(pending)
    while missing > 0:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError
        missing -= len(data)
    return pending[len(pending) + missing :] if missing < 0 else b""


def _send_bytes(connection: ssl.SSLSocket, count: int) -> None:
    connection.sendall(_head(b"Content-Length: %d" % count))
    while count > 0:
        connection.sendall(_BLOCK if count >= len(_BLOCK) else _BLOCK[:count])
        count -= len(_BLOCK)


def _send_events(connection: ssl.SSLSocket, count: int) -> None:
    connection.sendall(_head(b"Transfer-Encoding: chunked"))
    for _ in range(count):
        time.sleep(EVENT_SECONDS)
        event = b"data: %020d\n\n" % time.monotonic_ns()
        connection.sendall(b"%x\r\n%b\r\n" % (len(event), event))
    connection.sendall(b"0\r\n\r\n")
