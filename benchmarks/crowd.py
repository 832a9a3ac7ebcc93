"""What idle connections and requests that drip in do to the other requests of their bottle, and of another.

Two egresses stand for two bottles. While one process holds thousands of connections to the first, a few
connections ask both for something, as any agent would, and open new connections too.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import select
import socket
import ssl
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import load, peers
from benchmarks.report import Table, median
from benchmarks.upstream import HOST, STALLING, Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Event

_IDLE = 10_000
_SLOW = 1_000
_STALLED = 1_000
#: More than any socket on the way takes.
_UPLOAD = 1 << 40
_CONNECTIONS = 4
_NOTE = (
    f"Medians of {{rounds}} rounds; {_CONNECTIONS} connections in each bottle, one measured at a time. "
    "No request was refused or cut, but of the uploads those that have waited longest, once 64 MiB wait. "
    "A dripping connection that is closed is opened again. The other "
    "bottle's are requests a second too; MiB is the crowded egress's memory (RSS)."
)
_FORK = multiprocessing.get_context("fork")
_HEAD = f"GET http://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\nX-Slow: ".encode()


def measure(*, rounds: int = 5, seconds: float = 2.0) -> list[Table]:
    """Measure both bottles alone and beside each crowd, in turn."""
    crowds: dict[str, Callable[[load.Road], contextlib.AbstractContextManager[None]]] = {
        "nobody": lambda _road: contextlib.nullcontext(),
        f"{_IDLE:,} idle connections": lambda road: _crowd(_hold_idle, road),
        f"{_SLOW:,} headers that drip": lambda road: _crowd(_drip, road),
        f"{_STALLED:,} uploads that no server takes": lambda road: _crowd(_stall, road),
    }
    table = Table(
        title="Egress: a crowd of connections in one bottle, and what its other requests get",
        columns=("beside", "requests/s", "p99 µs", "connections/s", "other bottle's", "p99 µs", "MiB"),
        notes=[_NOTE.format(rounds=rounds)],
    )
    found: dict[str, list[tuple[float, ...]]] = {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        upstream = stack.enter_context(Upstream(folder))
        bottles = []
        for number in range(2):
            own = folder / str(number)
            own.mkdir()
            bottles.append(stack.enter_context(peers.BotBottle().start(own, upstream)))
        for _ in range(rounds):
            for label, crowd in crowds.items():
                with crowd(bottles[0].road):
                    mine, other = (
                        load.keep_alive(bottle.road, connections=_CONNECTIONS, seconds=seconds)
                        for bottle in bottles
                    )
                    fresh = load.new_connections(bottles[0].road, (HOST,), seconds=seconds)
                    found.setdefault(label, []).append(
                        (
                            mine.per_second,
                            mine.p99,
                            fresh.per_second,
                            other.per_second,
                            other.p99,
                            bottles[0].memory(),
                        )
                    )
    for label, values in found.items():
        table.add(label, *(f"{median(list(column)):,.0f}" for column in zip(*values, strict=True)))
    return [table]


@contextlib.contextmanager
def _crowd(hold: Callable[[load.Road, Event, Event], None], road: load.Road) -> Iterator[None]:
    """Let a process of its own keep its crowd up until the context ends."""
    ready, stop = _FORK.Event(), _FORK.Event()
    process = _FORK.Process(target=hold, args=(road, ready, stop))
    process.start()
    try:
        if not ready.wait(120):
            raise RuntimeError("the crowd did not come up")
        yield
    finally:
        stop.set()
        process.join(30)
        if process.is_alive():
            process.kill()


def _hold_idle(road: load.Road, ready: Event, stop: Event) -> None:
    """Open as many idle connections as there shall be; none of them ever says a word."""
    _raise_limit(_IDLE + 200)
    held = [_connect(road.port) for _ in range(_IDLE)]
    ready.set()
    stop.wait()
    for sock in held:
        sock.close()


def _drip(road: load.Road, ready: Event, stop: Event) -> None:
    """Keep headers coming a byte at a time; a connection that is closed is opened again."""
    _raise_limit(_SLOW + 200)
    poll = select.poll()
    held: dict[int, socket.socket] = {}

    def another() -> None:
        sock = _connect(road.port)
        sock.send(_HEAD)
        sock.setblocking(False)
        held[sock.fileno()] = sock
        poll.register(sock, select.POLLIN | select.POLLHUP)

    for _ in range(_SLOW):
        another()
    ready.set()
    while not stop.is_set():
        for fd, _event in poll.poll(0):
            poll.unregister(fd)
            held.pop(fd).close()
            another()
        for sock in tuple(held.values()):
            with contextlib.suppress(OSError):
                sock.send(b"x")
        time.sleep(1.0)


def _stall(road: load.Road, ready: Event, stop: Event) -> None:
    """Keep uploads up whose server reads nothing, all sent that is taken; those that are ended stay so."""
    _raise_limit(_STALLED + 200)
    context = ssl.create_default_context(cafile=str(road.ca_file))
    held = []
    for _ in range(_STALLED):
        upload = load.open_connection(road, HOST, context)
        upload.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)  # what egress holds is what counts
        upload.sendall(load.upload_head(road, HOST, STALLING, _UPLOAD))
        upload.setblocking(False)
        held.append(upload)
    block, sent, before = b"x" * 16384, 0, -1
    while not stop.is_set():
        for upload in held:
            with contextlib.suppress(OSError):  # full, or ended
                while True:
                    sent += upload.send(block)
        if sent == before:
            ready.set()
        before = sent
        stop.wait(0.5)
    for upload in held:
        upload.close()


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.settimeout(5)
    return sock


def _raise_limit(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    for table in measure(rounds=arguments.rounds, seconds=arguments.seconds):
        print(table.markdown())
