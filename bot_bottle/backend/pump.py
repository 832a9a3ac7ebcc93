"""Carry bytes between the operator's side and a process in a bottle, never handing a descriptor in.

The process holds pipes of its own; everything is copied here, in one loop, until the process has ended and
what it wrote before is out.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Protocol

from bot_bottle.backend.streams import CHUNK, Source, read_some

if TYPE_CHECKING:
    from bot_bottle.backend.streams import Input, Sink

_KILL_SECONDS = 10.0


class PipedProcess(Protocol):
    """A process in a bottle, as far as pumping needs it."""

    def fileno(self) -> int:
        """Give the descriptor that becomes readable when the process has ended."""
        ...

    def wait(self, timeout: float | None = None) -> int | None:
        """Give its exit code (128 + N for signal N), None where it still runs after ``timeout`` seconds."""
        ...

    def kill(self) -> None:
        """Kill it and all of its session."""
        ...


class Pipes:
    """The three pipes of one process: the far ends are for the bottle, the near ends for :func:`pump`."""

    def __init__(self) -> None:
        self.near: list[int] = []
        self.far: list[int] = []
        try:
            for into_bottle in (True, False, False):
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
                self.near.append(write_end if into_bottle else read_end)
                self.far.append(read_end if into_bottle else write_end)
                # Set on our end's own open file: the bottle's end stays as programs expect it.
                os.set_blocking(self.near[-1], False)
        except OSError:
            self.close()
            raise

    def stdio(self) -> tuple[int, int, int]:
        """Give the ends for the process."""
        return self.far[0], self.far[1], self.far[2]

    def hand_over(self) -> None:
        """Close the bottle's ends here, once the bottle has them."""
        for fd in self.far:
            os.close(fd)
        self.far.clear()

    def close_near(self, fd: int) -> None:
        """Close one of our ends."""
        self.near.remove(fd)
        os.close(fd)

    def close(self) -> None:
        """Close everything still open."""
        self.hand_over()
        for fd in tuple(self.near):
            self.close_near(fd)


def pump(
    process: PipedProcess,
    pipes: Pipes,
    source: Input,
    stdout: Sink,
    stderr: Sink,
    timeout: float | None = None,
    *,
    first: bytes = b"",
) -> int:
    """Run the three pipes until the process has ended; gives its exit code (128 + N for signal N).

    The process reads ``first``, then what ``source`` gives. A sink that raises ``BrokenPipeError`` counts as
    closed: the process meets that when it writes again.

    Raises ``TimeoutError`` after ``timeout`` seconds, when the process and its session have been killed, and
    ``LaunchError`` where the bottle ended first. On every exception the process is killed.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    stdin_fd, stdout_fd, stderr_fd = pipes.near
    inflow = _Inflow(stdin_fd, source, pipes, first)
    sinks = {stdout_fd: stdout, stderr_fd: stderr}
    try:
        while True:
            poller = select.poll()
            poller.register(process.fileno(), select.POLLIN)
            for fd in sinks:
                poller.register(fd, select.POLLIN)
            inflow.register(poller)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            events = {fd for fd, _event in poller.poll(None if left is None else int(left * 1000) + 1)}
            if not events and left is not None:
                process.kill()
                process.wait(_KILL_SECONDS)
                raise TimeoutError(f"the process was killed after {timeout} s")
            for fd in events & sinks.keys():
                if not _deliver(fd, sinks, pipes):
                    sinks.pop(fd, None)
            inflow.step(events)
            if process.fileno() in events:
                code = process.wait(0)
                if code is not None:
                    _drain(sinks, pipes)
                    return code
    except BaseException:
        process.kill()
        raise


class _Inflow:
    """The way from a source to a process's standard input."""

    def __init__(self, fd: int, given: Input, pipes: Pipes, first: bytes) -> None:
        self._fd = fd
        self._pipes = pipes
        self._source = Source(given)
        if first:
            self._source.pending = memoryview(first + self._source.pending.tobytes())

    def register(self, poller: select.poll) -> None:
        source = self._source
        if self._fd < 0:
            return
        if not source.pending and not source.ended and source.fd < 0:
            source.fill()
        if source.pending:
            poller.register(self._fd, select.POLLOUT)
        elif source.ended:
            self._close()
        else:
            poller.register(self._fd, 0)  # only to hear that nobody reads any more
            poller.register(source.fd, select.POLLIN)

    def step(self, events: set[int]) -> None:
        source = self._source
        if self._fd in events and source.pending:
            try:
                source.pending = source.pending[os.write(self._fd, source.pending[:CHUNK]) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self._close()
        elif self._fd in events:
            self._close()
        elif self._fd >= 0 and source.fd in events:
            source.fill()

    def _close(self) -> None:
        self._pipes.close_near(self._fd)
        self._fd = -1


def _deliver(fd: int, sinks: dict[int, Sink], pipes: Pipes) -> bool:
    """Move what one pipe holds now, at most a chunk, to its sink; False at the end."""
    data = read_some(fd)
    if data is None:
        return True
    try:
        if data:
            sinks[fd](data)
    except BrokenPipeError:
        pipes.close_near(fd)
        return False
    return bool(data)


def _drain(sinks: dict[int, Sink], pipes: Pipes) -> None:
    """Deliver what is in the pipes now; a process left behind in the bottle may hold them open for ever."""
    for fd in sinks:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while any(event & select.POLLIN for _fd, event in poller.poll(0)) and _deliver(fd, sinks, pipes):
            pass
