"""A load client that costs little beside what it measures: blocking sockets, or many on one epoll.

The client is measured without a proxy too ("direct"), to show that it is not what limits the others.
"""

from __future__ import annotations

import multiprocessing
import re
import select
import socket
import ssl
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.upstream import BODY, HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

_FORK = multiprocessing.get_context("fork")
_WORKERS = 4
_EVENT = re.compile(rb"data: ([0-9]{20})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """A way to the upstream: straight to ``port``, or with ``tunnel`` by CONNECT to a proxy there."""

    port: int
    ca_file: Path
    upstream_port: int
    tunnel: bool = True

    def authority(self, host: str) -> str:
        """Give what stands in the Host header."""
        return f"{host}:{self.upstream_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One measurement of requests or connections. Latencies are in microseconds."""

    per_second: float
    p50: float
    p99: float


def keep_alive(road: Road, *, connections: int = 4, seconds: float) -> Load:
    """Send requests one after another on each of ``connections`` connections for ``seconds``."""
    workers = min(connections, _WORKERS)
    shares = [connections // workers + (index < connections % workers) for index in range(workers)]
    return _together([(_drive, (road, share, seconds)) for share in shares], seconds)


def new_connections(road: Road, hosts: Sequence[str], *, seconds: float) -> Load:
    """Open a connection, send a request and close, over and over, to ``hosts`` in turn."""
    jobs = [(_connect_all, (road, tuple(hosts[index::2] or hosts), seconds)) for index in range(2)]
    return _together(jobs, seconds)


def transfer(road: Road, *, size: int, up: bool, times: int = 1, tries: int = 3) -> float:
    """Download or upload ``size`` bytes ``times`` times on one connection; gives MiB a second.

    A transfer that is cut is tried again. Raises ``RuntimeError`` where that does not help.
    """

    def job() -> float:
        with open_connection(road, HOST) as connection:
            _exchange(connection, _request(road, HOST, "/warm"))
            block = b"x" * (1 << 16)
            start = time.perf_counter()
            for _ in range(times):
                if up:
                    connection.sendall(_request(road, HOST, "/up", b"POST", size))
                    for left in range(size, 0, -len(block)):
                        connection.sendall(block if left >= len(block) else block[:left])
                    _read_answer(connection, BODY)
                else:
                    connection.sendall(_request(road, HOST, f"/bytes/{size}"))
                    _read_answer(connection, size)
            return size * times / (1 << 20) / (time.perf_counter() - start)

    try:
        return float(_apart(job))
    except RuntimeError:
        if tries <= 1:
            raise
        return transfer(road, size=size, up=up, times=times, tries=tries - 1)


def events(road: Road, *, count: int) -> Load:
    """Read ``count`` server-sent events; the latencies are from an event's sending to its arrival."""

    def job() -> tuple[float, list[float]]:
        with open_connection(road, HOST) as connection:
            _exchange(connection, _request(road, HOST, "/warm"))
            connection.sendall(_request(road, HOST, f"/events/{count}"))
            start, data = time.monotonic_ns(), b""
            taken: list[float] = []
            while len(taken) < count:
                data += _more(connection)
                now = time.monotonic_ns()
                while match := _EVENT.search(data):
                    taken.append((now - int(match[1])) / 1000)
                    data = data[match.end() :]
            return count / (time.monotonic_ns() - start) * 1e9, taken

    rate, taken = _apart(job)
    return _load(rate, taken)


def open_connection(road: Road, host: str, context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
    """Connect as a client of the road does; raises ``RuntimeError`` where a proxy refuses."""
    plain = socket.create_connection(("127.0.0.1", road.port), timeout=30)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if road.tunnel:
        authority = road.authority(host)
        plain.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += plain.recv(1)  # not a byte more: what follows is TLS
            if not head:
                raise RuntimeError("the proxy hung up")
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(f"the proxy refused: {head!r}")
    context = context or ssl.create_default_context(cafile=str(road.ca_file))
    return context.wrap_socket(plain, server_hostname=host)


def upload_head(road: Road, host: str, path: str, length: int) -> bytes:
    """Give the head of an upload of ``length`` bytes."""
    return _request(road, host, path, b"POST", length)


def _request(road: Road, host: str, path: str, method: bytes = b"GET", length: int | None = None) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, path.encode()), b"Host: " + road.authority(host).encode()]
    lines += [b"User-Agent: bench/1", b"Accept: */*", b"Accept-Encoding: identity"]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _drive(barrier: Barrier, road: Road, connections: int, seconds: float) -> tuple[float, array[float]]:
    context = ssl.create_default_context(cafile=str(road.ca_file))
    opened = [open_connection(road, HOST, context) for _ in range(connections)]
    # The first round, all at once, pays for the proxy's own connections to the upstream.
    barrier.wait()
    for connection in opened:
        connection.sendall(_request(road, HOST, "/1k"))
    for connection in opened:
        _read_answer(connection, BODY)
    barrier.wait()
    drive = _drive_one if connections == 1 else _drive_many
    start = time.perf_counter()
    taken = drive(road, opened, start + seconds)
    return time.perf_counter() - start, taken


def _drive_one(road: Road, opened: list[ssl.SSLSocket], end: float) -> array[float]:
    # No two requests have the same path, as nothing but a benchmark asks for one thing over and over.
    number, taken, clock = 0, array("d"), time.perf_counter
    (connection,) = opened
    now = clock()
    while now < end:
        number += 1
        _exchange(connection, _request(road, HOST, f"/1k/{number}"))
        after = clock()
        taken.append((after - now) * 1e6)
        now = after
    return taken


def _drive_many(road: Road, opened: list[ssl.SSLSocket], end: float) -> array[float]:
    number, taken, clock = 0, array("d"), time.perf_counter
    poll = select.epoll()
    by_fd: dict[int, ssl.SSLSocket] = {}
    asked: dict[int, float] = {}
    heard: dict[int, bytes] = {}
    for connection in opened:
        connection.setblocking(False)
        fd = connection.fileno()
        poll.register(fd, select.EPOLLIN)
        by_fd[fd], asked[fd], heard[fd] = connection, clock(), b""
        connection.send(_request(road, HOST, "/1k/0"))
    while clock() < end:
        for fd, _event in poll.poll(0.1):
            connection = by_fd[fd]
            try:
                while not _whole(heard[fd]):
                    heard[fd] += _more(connection)
            except ssl.SSLWantReadError:
                continue
            now = clock()
            taken.append((now - asked[fd]) * 1e6)
            number += 1
            asked[fd], heard[fd] = now, b""
            connection.send(_request(road, HOST, f"/1k/{number}"))
    poll.close()
    return taken


def _whole(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    if found and not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"expected 200: {head[:400]!r} {body[:400]!r}")
    return bool(found) and len(body) >= BODY


def _connect_all(
    barrier: Barrier, road: Road, hosts: tuple[str, ...], seconds: float
) -> tuple[float, array[float]]:
    taken, clock = array("d"), time.perf_counter
    context = ssl.create_default_context(cafile=str(road.ca_file))
    for host in hosts:  # certificates are made once a host; that is paid before
        with open_connection(road, host, context) as connection:
            _exchange(connection, _request(road, host, "/1k"))
    barrier.wait()
    start = now = clock()
    number = 0
    while now < start + seconds:
        host = hosts[number % len(hosts)]
        number += 1
        with open_connection(road, host, context) as connection:
            _exchange(connection, _request(road, host, "/1k"))
        after = clock()
        taken.append((after - now) * 1e6)
        now = after
    return now - start, taken


def _exchange(connection: ssl.SSLSocket, request: bytes) -> None:
    connection.sendall(request)
    _read_answer(connection, BODY)


def _read_answer(connection: ssl.SSLSocket, length: int) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"expected 200: {head[:400]!r} {body[:400]!r}")
    missing = length - len(body)
    while missing > 0:
        missing -= len(_more(connection))


def _more(connection: ssl.SSLSocket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise RuntimeError("the connection ended in the middle of an answer")
    return data


def _together(jobs: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]], seconds: float) -> Load:
    """Run each job in a process of its own, all beginning at once."""
    barrier = _FORK.Barrier(len(jobs))
    pipes, processes = [], []
    for function, arguments in jobs:
        receiver, sender = _FORK.Pipe(duplex=False)
        process = _FORK.Process(target=_tell, args=(sender, barrier, function, arguments))
        process.start()
        sender.close()
        pipes.append(receiver)
        processes.append(process)
    taken: list[float] = []
    rate = 0.0
    for receiver in pipes:
        elapsed, values = _listen(receiver, seconds + 60)
        rate += len(values) / elapsed
        taken.extend(values)
    for process in processes:
        process.join()
    # A proxy that answers nobody in the whole time has the time for its latency.
    return _load(rate, taken or [seconds * 1e6])


def _load(rate: float, taken: list[float]) -> Load:
    taken.sort()
    return Load(per_second=rate, p50=taken[len(taken) // 2], p99=taken[int(len(taken) * 0.99)])


def _tell(
    sender: Connection, barrier: Barrier, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    try:
        sender.send(function(barrier, *arguments))
    except (RuntimeError, OSError) as error:
        barrier.abort()
        sender.send(str(error))


def _apart(job: Callable[[], Any]) -> Any:
    """Run ``job`` in a process of its own."""
    receiver, sender = _FORK.Pipe(duplex=False)

    def tell() -> None:
        try:
            sender.send(job())
        except (RuntimeError, OSError) as error:
            sender.send(str(error))

    process = _FORK.Process(target=tell)
    process.start()
    sender.close()
    result = _listen(receiver, 300)
    process.join()
    return result


def _listen(receiver: Connection, seconds: float) -> Any:
    if not receiver.poll(seconds):
        raise RuntimeError("a load client did not end")
    result = receiver.recv()
    receiver.close()
    if isinstance(result, str):
        raise RuntimeError(result)  # noqa: TRY004 - what a worker said, not a wrong type
    return result
