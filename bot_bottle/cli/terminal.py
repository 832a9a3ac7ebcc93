"""The operator's terminal: whether there is one, and the two questions asked on it."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

from bot_bottle.errors import UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import FrameType


_ENDING = (signal.SIGTERM, signal.SIGHUP)


def is_interactive() -> bool:
    """Tell whether a human can be asked: input and messages both go to a terminal."""
    return _is_tty(sys.stdin) and _is_tty(sys.stderr)


def confirm(question: str, *, usual: bool = False) -> bool:
    """Ask y/N on the terminal; anything but y or yes is a no, end of input included.

    With ``usual`` an empty line is a yes.
    """
    print(f"{question} [{'Y/n' if usual else 'y/N'}] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    return answer.strip().lower() in {"y", "yes"} or (usual and answer == "\n")


def ask(question: str, default: str) -> str:
    """Ask for one line; an empty answer is the default. Raises ``UsageError`` at the end of input."""
    print(f"{question}{f' [{default}]' if default else ''}: ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        print(file=sys.stderr)
        raise UsageError("the questions were not answered to the end; nothing was written")
    return answer.strip() or default


def ask_secret(name: str, message: str) -> str:
    """Ask for one variable's value without echo.

    Raises ``UsageError`` at the end of input, and where the terminal cannot be kept from showing it.
    """
    import warnings  # noqa: PLC0415 - only for bottles that ask
    from getpass import GetPassWarning, getpass  # noqa: PLC0415

    from bot_bottle.manifest.problem import shown  # noqa: PLC0415

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", GetPassWarning)  # it would go on to read with echo
            return getpass(f"{shown(message, 200)} ({name}): ")
    except EOFError as error:
        raise UsageError(f"env.{name}: no value was given; nothing was started") from error
    except GetPassWarning as error:
        raise UsageError(
            f"env.{name}: this terminal would show what is typed; use ${{HOST_VAR}} instead"
        ) from error


def say(lines: Iterable[str]) -> None:
    """Write lines for the operator to stderr, which leaves stdout to the agent."""
    for line in lines:
        print(line, file=sys.stderr)
    sys.stderr.flush()


def quoted(mark: str, words: str) -> Iterator[str]:
    """Give a stranger's words with ``mark`` before each line.

    On a terminal they are broken before it would do that, since a line of its making has no mark.
    """
    from rich.cells import chop_cells  # noqa: PLC0415 - only for requests

    width = os.get_terminal_size(sys.stderr.fileno()).columns if _is_tty(sys.stderr) else 1 << 16
    for line in words.splitlines():
        for piece in chop_cells(legible(line), max(8, width - len(mark))) or [""]:
            yield f"{mark}{piece}"


def warn(warnings: Iterable[str]) -> None:
    """Write warnings to stderr; they may name files that a stranger named."""
    say(f"bot-bottle: warning: {legible(text)}" for text in warnings)


def current_folder() -> Path:
    """Give the current folder; raises ``UsageError`` where it has been removed."""
    from pathlib import Path  # noqa: PLC0415

    try:
        return Path.cwd()
    except OSError as error:
        raise UsageError("the current folder no longer exists; change to another one first") from error


def end_in_order_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind like Ctrl-C does, so that everything is taken down on the way."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        del frame
        for other in _ENDING:  # a second one must not interrupt the taking down
            signal.signal(other, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's choice stays
            signal.signal(number, leave)


def leave_input() -> None:
    """Leave stdin to whoever else reads it: what runs from here on reads nothing there.

    ``while read -r task; do bot-bottle start ... --headless; done < tasks`` has its other tasks on it.
    """
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    if nothing != 0:  # it was closed before the start (`<&-`)
        os.close(nothing)


def owns_terminal() -> bool:
    """Tell whether an agent can be given this terminal."""
    return _is_tty(sys.stdin) and _is_tty(sys.stdout)


def shows_colour() -> bool:
    """Tell whether output may be coloured (https://no-color.org)."""
    return _is_tty(sys.stdout) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _is_tty(stream: TextIO | None) -> bool:
    # A descriptor that was closed before the start (`<&-`) makes the stream None.
    return stream is not None and stream.isatty()
