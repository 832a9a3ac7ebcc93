"""The operator's terminal as every backend uses it, and an orderly way out on signals."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STDIN, STDOUT, STDERR = 0, 1, 2
_FALLBACK_SIZE = (24, 80)


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
    except OSError:
        return _FALLBACK_SIZE
    return (rows, columns) if rows and columns else _FALLBACK_SIZE


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """Restore the terminal's settings: a client program that is killed on the way leaves it raw."""
    before = termios.tcgetattr(STDIN)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(STDIN, termios.TCSADRAIN, before)


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
