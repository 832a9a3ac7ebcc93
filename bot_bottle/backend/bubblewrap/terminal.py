"""Attach the operator's terminal to a pseudo-terminal inside a bottle.

The terminal is switched to raw mode, so that every key, Ctrl-C among them, goes to the agent as the byte it
is, and is put back whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import tty
from typing import TYPE_CHECKING

from bot_bottle.backend.terminal import STDIN, STDOUT, leave_on_signals, signal_handler, window_size

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from bot_bottle.backend.bubblewrap.channel import BottleProcess

_CHUNK = 1 << 16
#: After the process ended, how long its terminal may still deliver what is on its way, in milliseconds.
_TAIL_MS = 200


def attach(process: BottleProcess) -> int:
    """Run ``process`` on the operator's terminal until it ends; gives its exit code (128 + N for signal N).

    Raises ``LaunchError`` where the bottle ended first. The terminal's settings are restored on every way
    out, SIGTERM and SIGHUP included.
    """
    with _raw_mode(), _resizes() as resized, leave_on_signals():
        try:
            return _run(process, resized)
        except BaseException:
            process.kill()
            raise


def _run(process: BottleProcess, resized: int) -> int:
    master = process.master
    os.set_blocking(master, False)
    pending = b""
    keys_open = True
    while True:
        poller = select.poll()
        poller.register(process.fileno(), select.POLLIN)
        poller.register(resized, select.POLLIN)
        poller.register(master, select.POLLIN | (select.POLLOUT if pending else 0))
        if keys_open and not pending:
            poller.register(STDIN, select.POLLIN)
        events = dict(poller.poll())
        if resized in events:
            os.read(resized, _CHUNK)
            with contextlib.suppress(OSError):
                process.resize(*window_size())
        if events.get(master, 0) & ~select.POLLOUT and not _show(master):
            # Every process has let go of the terminal; only the exit code is still to come.
            code = process.wait()
            return -1 if code is None else code
        if STDIN in events:
            pending = os.read(STDIN, _CHUNK)
            keys_open = bool(pending)
        if pending:
            with contextlib.suppress(BlockingIOError):
                pending = pending[os.write(master, pending) :]
        if process.fileno() in events:
            code = process.wait(0)
            if code is not None:
                _show_tail(master)
                return code


def _show(master: int) -> bool:
    """Copy what the process wrote to the operator's terminal; False where there will be no more."""
    try:
        data = os.read(master, _CHUNK)
    except BlockingIOError:
        return True
    except OSError:  # EIO: no process has the terminal open any more
        return False
    view = memoryview(data)
    while view:
        view = view[os.write(STDOUT, view) :]
    return bool(data)


def _show_tail(master: int) -> None:
    """Copy the last output, which the kernel may still be moving through the terminal."""
    poller = select.poll()
    poller.register(master, select.POLLIN)
    while poller.poll(_TAIL_MS) and _show(master):
        pass


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    before = termios.tcgetattr(STDIN)
    try:
        tty.setraw(STDIN, termios.TCSADRAIN)
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _resizes() -> Iterator[int]:
    """Yield a descriptor that becomes readable whenever the operator's terminal changes its size."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def note(_number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(write_end, b"\0")

    try:
        with signal_handler(signal.SIGWINCH, note):
            note(0, None)  # the size may have changed since the terminal inside was made
            yield read_end
    finally:
        os.close(read_end)
        os.close(write_end)
