"""A load client and an upstream that cost little beside what they measure.

One process a connection, blocking sockets and the ssl module: no event loop, no lock to share. The client
is measured without a proxy too ("direct"), to show that it is not what limits the others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import ssl
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from bot_bottle.demo.authority import Authority

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

HOST = "bench.example.org"
BODY = 1024
CONNECTIONS = 4

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One measurement. Latencies are in microseconds."""

    requests_per_second: float
    p50: float
    p99: float


class Upstream:
    """Answer every request with 1 KiB over TLS, keep-alive, one forked process a connection."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority("Benchmark upstream")
        self.ca_file = folder / "upstream-ca.pem"
        self.ca_file.write_text(self.authority.pem)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
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
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _end_group)
        context = self.authority.server_context(HOST)
        while True:
            connection, _ = self._listener.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                try:
                    _answer_all(context, connection)
                except (OSError, ssl.SSLError):
                    pass
                finally:
                    os._exit(0)
            connection.close()


def _end_group(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.killpg(0, signal.SIGTERM)


def _answer_all(context: ssl.SSLContext, plain: socket.socket) -> None:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = b"x" * BODY
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s" % (BODY, body)
    with context.wrap_socket(plain, server_side=True) as connection:
        pending = b""
        while True:
            data = connection.recv(65536)
            if not data:
                return
            pending += data
            while b"\r\n\r\n" in pending:
                _, _, pending = pending.partition(b"\r\n\r\n")
                connection.sendall(answer)


def run_load(*, port: int, proxy_port: int | None, ca_file: Path, seconds: float) -> Load:
    """Drive ``CONNECTIONS`` keep-alive connections for ``seconds``, through a proxy or direct."""
    barrier = _FORK.Barrier(CONNECTIONS)
    pipes, processes = [], []
    for _ in range(CONNECTIONS):
        receiver, sender = _FORK.Pipe(duplex=False)
        process = _FORK.Process(
            target=_drive, args=(barrier, sender, port, proxy_port, str(ca_file), seconds)
        )
        process.start()
        sender.close()
        pipes.append(receiver)
        processes.append(process)
    latencies: list[float] = []
    rate = 0.0
    for receiver in pipes:
        elapsed, raw = receiver.recv()
        if not elapsed:
            raise RuntimeError(raw.decode())
        values = array("d")
        values.frombytes(raw)
        rate += len(values) / elapsed
        latencies.extend(values)
        receiver.close()
    for process in processes:
        process.join()
    latencies.sort()
    return Load(
        requests_per_second=rate,
        p50=latencies[len(latencies) // 2],
        p99=latencies[int(len(latencies) * 0.99)],
    )


def _drive(
    barrier: Barrier, sender: Connection, port: int, proxy_port: int | None, ca_file: str, seconds: float
) -> None:
    try:
        sender.send(_drive_one(barrier, port, proxy_port, ca_file, seconds))
    except (RuntimeError, OSError) as error:
        barrier.abort()
        sender.send((0.0, str(error).encode()))


def _drive_one(
    barrier: Barrier, port: int, proxy_port: int | None, ca_file: str, seconds: float
) -> tuple[float, bytes]:
    plain = socket.create_connection(("127.0.0.1", proxy_port or port), timeout=10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if proxy_port:
        plain.sendall(f"CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += plain.recv(1)  # not a byte more: what follows is TLS
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"the proxy refused: {head!r}")
    context = ssl.create_default_context(cafile=ca_file)
    request = f"GET /1k HTTP/1.1\r\nHost: {HOST}:{port}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n".encode()
    latencies = array("d")
    clock = time.perf_counter
    with context.wrap_socket(plain, server_hostname=HOST) as connection:
        _exchange(connection, request)  # the first one pays for the upstream connection
        barrier.wait()
        start = now = clock()
        end = start + seconds
        while now < end:
            _exchange(connection, request)
            after = clock()
            latencies.append((after - now) * 1e6)
            now = after
    return now - start, latencies.tobytes()


def _exchange(connection: ssl.SSLSocket, request: bytes) -> None:
    connection.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection, data)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"expected 200: {head[:400]!r} {body[:400]!r}")
    missing = BODY - len(body)
    while missing > 0:
        missing -= len(_more(connection, data))


def _more(connection: ssl.SSLSocket, so_far: bytes) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise RuntimeError(f"the connection ended in the middle of an answer: {so_far[:400]!r}")
    return data
