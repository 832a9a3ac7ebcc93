"""Carry an agent's terminal to and from the operator's side, until its program ends.

The other end of that terminal is the launcher's alone. What comes out of it is shown as it is, never read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import termios
from typing import TYPE_CHECKING, Protocol

from bot_bottle import process
from bot_bottle.attach.terminal import leave_on_signals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.attach.terminal import OperatorSide

_CHUNK = 1 << 16
#: After the process ended, how long its terminal may still deliver what is on its way, in milliseconds.
_TAIL_MS = 200
_KILL_SECONDS = 10.0


class TerminalProcess(Protocol):
    """A process on a pseudo-terminal of its own; ``master`` is the other end of that."""

    master: int

    def fileno(self) -> int:
        """Give the descriptor that becomes readable when the process has ended."""
        ...

    def wait(self, timeout: float | None = None) -> int | None:
        """Give its exit code (128 + N for signal N), None where it still runs after ``timeout`` seconds."""
        ...

    def kill(self) -> None:
        """Kill it and all of its session."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size."""
        ...


def carry(running: TerminalProcess, side: OperatorSide) -> int:
    """Carry until the process ends; gives its exit code. Killed where that cannot go on to the end.

    Raises ``LaunchError`` where the bottle ended first.
    """
    with leave_on_signals():
        try:
            side.begun()
            return _carry(running, side)
        except BaseException:
            running.kill()
            raise


def _carry(running: TerminalProcess, side: OperatorSide) -> int:
    master = running.master
    os.set_blocking(master, False)
    pending = b""
    keys_open = True
    while True:
        poller = select.poll()
        poller.register(running.fileno(), select.POLLIN)
        poller.register(side.resized, select.POLLIN)
        poller.register(master, select.POLLIN | (select.POLLOUT if pending else 0))
        if keys_open and not pending:
            poller.register(side.keys, select.POLLIN)
        events = dict(poller.poll())
        if side.resized in events:
            with contextlib.suppress(OSError):
                for size in side.sizes():
                    running.resize(*size)
        if events.get(master, 0) & ~select.POLLOUT and not _show(master, side):
            # Every process has let go of the terminal; only the exit code is still to come.
            code = running.wait()
            return -1 if code is None else code
        if side.keys in events:
            pending = side.read_keys()
            keys_open = bool(pending)
        if pending:
            with contextlib.suppress(BlockingIOError):
                pending = pending[os.write(master, pending) :]
        if running.fileno() in events:
            code = running.wait(0)
            if code is not None:
                _show_tail(master, side)
                return code


def _show(master: int, side: OperatorSide) -> bool:
    """Show what the process wrote; False where there will be no more."""
    try:
        data = os.read(master, _CHUNK)
    except BlockingIOError:
        return True
    except OSError as error:  # EIO: no process has the terminal open any more
        if error.errno != errno.EIO:
            raise
        return False
    if data:
        side.show(data)
    return bool(data)


def _show_tail(master: int, side: OperatorSide) -> None:
    """Show the last output, which the kernel may still be moving through the terminal."""
    poller = select.poll()
    poller.register(master, select.POLLIN)
    while poller.poll(_TAIL_MS) and _show(master, side):
        pass


class ClientOnTerminal:
    """An engine's client program on a terminal made here, for a side that is none of the operator's own."""

    def __init__(
        self,
        argv: Sequence[str],
        size: tuple[int, int],
        *,
        env: Mapping[str, str] | None = None,
        stderr: int | None = None,
    ) -> None:
        """Start it; ``size`` is (rows, columns). Raises ``UsageError`` where it cannot be started."""
        self.master, terminal = os.openpty()
        self._pidfd = -1
        try:
            termios.tcsetwinsize(self.master, size)
            self._process = process.start_on_terminal(argv, terminal, env=env, stderr=stderr)
            self._pidfd = os.pidfd_open(self._process.pid)
        except BaseException:
            os.close(self.master)
            raise
        finally:
            os.close(terminal)

    def fileno(self) -> int:
        """Give the descriptor that becomes readable when it has ended."""
        return self._pidfd

    def wait(self, timeout: float | None = None) -> int | None:
        """Give its exit code, None where it still runs after ``timeout`` seconds."""
        return process.exit_code(self._process, timeout)

    def kill(self) -> None:
        """Kill it: what it ran in the bottle is its backend's to end."""
        self._process.kill()

    def resize(self, rows: int, columns: int) -> None:
        """Give its terminal another size, of which the kernel tells it."""
        termios.tcsetwinsize(self.master, (rows, columns))

    def close(self) -> None:
        """Let go of it; killed where it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(_KILL_SECONDS)
        os.close(self._pidfd)
        os.close(self.master)
