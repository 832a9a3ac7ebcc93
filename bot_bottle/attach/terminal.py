"""The operator's terminal as every backend uses it, and an orderly way out on signals."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
import tty
from typing import TYPE_CHECKING, NoReturn, Protocol

from bot_bottle.attach.escapes import EscapeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STDIN, STDOUT, STDERR = 0, 1, 2
_FALLBACK_SIZE = (24, 80)


_CHUNK = 1 << 16


class OperatorSide(Protocol):
    """Where an agent's session is seen and typed at: the operator's terminal, or who attaches to it later."""

    #: Descriptors to poll: something was typed, the size has changed.
    keys: int
    resized: int

    def begun(self) -> None:
        """Hear, once, that the agent runs."""
        ...

    def read_keys(self) -> bytes:
        """Take what was typed once :attr:`keys` is readable; empty at the end."""
        ...

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Give the sizes (rows, columns) that the agent's terminal is to have, one after the other."""
        ...

    def show(self, data: bytes) -> None:
        """Show what the agent wrote."""
        ...


class OwnTerminal:
    """The operator's terminal, as :func:`own_terminal` yields it."""

    keys = STDIN

    def __init__(self, resized: int) -> None:
        self.resized = resized
        self._guard = EscapeGuard()

    def begun(self) -> None:
        """Hear that the agent runs."""

    def read_keys(self) -> bytes:
        """Take what was typed; empty where the terminal has gone."""
        try:
            return os.read(STDIN, _CHUNK)
        except OSError:  # EIO: it was closed
            return b""

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Give the terminal's size."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.resized, _CHUNK)
        return (window_size(),)

    def show(self, data: bytes) -> None:
        """Write all of it but for what reaches beyond the screen."""
        view = memoryview(self._guard.feed(data))
        while view:
            view = view[os.write(STDOUT, view) :]


@contextlib.contextmanager
def own_terminal() -> Iterator[OwnTerminal]:
    """Give every key to the agent as the byte it is, Ctrl-C among them, while the body runs.

    The settings are restored on every way out, SIGTERM and SIGHUP included.
    """
    with _raw_mode(), _resizes() as resized, leave_on_signals():
        yield OwnTerminal(resized)


def has_terminal() -> bool:
    """Tell whether the operator's standard input and output are a terminal."""
    return os.isatty(STDIN) and os.isatty(STDOUT)


def is_terminal_or_closed(fd: int) -> bool:
    """Tell whether nothing should be read from ``fd`` on behalf of a program without a terminal."""
    try:
        os.fstat(fd)
    except OSError:
        return True
    return os.isatty(fd)


def window_size(fd: int = STDOUT) -> tuple[int, int]:
    """Give a terminal's size as (rows, columns); 24 by 80 where it does not know."""
    try:
        rows, columns = termios.tcgetwinsize(fd)
    except (OSError, termios.error):  # not a terminal, or none any more
        return _FALLBACK_SIZE
    return (rows, columns) if rows and columns else _FALLBACK_SIZE


@contextlib.contextmanager
def leave_on_signals() -> Iterator[None]:
    """Turn the signals that would end this process with everything still up into an orderly exit."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    with contextlib.ExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                stack.enter_context(signal_handler(number, leave))
        yield


@contextlib.contextmanager
def signal_handler(number: signal.Signals, handler: signal._HANDLER) -> Iterator[None]:
    """Handle a signal while the body runs; only the main thread can, elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


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
