"""The command line. A command's module is imported only when that command is used."""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from bot_bottle.errors import BotBottleError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

EXIT_INTERRUPTED = 130
_EXIT_NO_OUTPUT = 1
_EXIT_BROKEN_PIPE = 141
_EXIT_UNEXPECTED = 70

#: How many more objects may be made than let go before garbage is looked for.
_COLLECT_AFTER = 50_000

#: A disk without room is no mistake of the program, whichever file was being written.
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})

#: Set where a shell's completion script calls back (see ``completion.py``).
_COMPLETE_ENV = "_BOT_BOTTLE_COMPLETE"

#: Shows an unexpected error whole, its text included; only the operator can say that this is safe.
_DEBUG_ENV = "BOT_BOTTLE_DEBUG"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; every failure is one sentence on stderr.

    0 success, 1 a negative answer or output that cannot be written, 2 bad input, 3 this machine cannot, 4 a
    launch failed, 130 Ctrl-C; an agent's own exit code is passed through.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is shown escaped; it must not end the command.
            stream.reconfigure(errors="backslashreplace")
    if argv is None:
        _leave_at_once_on_ctrl_c()
        _leave_no_core()
        # A command is short and what it loads stays until its end: looking for garbage finds none.
        gc.set_threshold(_COLLECT_AFTER, 10, 10)
    code = _run(list(sys.argv[1:] if argv is None else argv))
    if argv is None:
        gc.freeze()  # nor does the interpreter's last look, which takes longer than all else of its end
    try:
        if sys.stdout is not None:  # closed before the start (`>&-`)
            sys.stdout.flush()  # a reader that has gone is noticed here
    except BrokenPipeError:
        _drop_output()
        return code or _EXIT_BROKEN_PIPE
    except OSError as error:
        _drop_output()
        _say(f"the output cannot be written: {error.strerror}")
        return code or _EXIT_NO_OUTPUT
    return code


def _leave_at_once_on_ctrl_c() -> None:
    """Let Ctrl-C end this process in silence while it only loads itself, and be lost nowhere later.

    An exception out of a callback of the import system is printed and forgotten; see ``sys.unraisablehook``.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # whoever started this in the background had it ignored

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        del number, frame
        os._exit(EXIT_INTERRUPTED)

    signal.signal(signal.SIGINT, leave)
    sys.unraisablehook = _not_forgotten


def commands_are_loaded() -> None:
    """Let Ctrl-C be an exception from here on: what a command begins is taken down in order."""
    if sys.unraisablehook is _not_forgotten:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _not_forgotten(lost: sys.UnraisableHookArgs) -> None:
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    import _thread  # noqa: PLC0415 - only ever needed here
    import threading  # noqa: PLC0415

    # By another thread: raised in this very call it would be forgotten as well.
    main_thread = threading.main_thread().ident
    if main_thread is not None:
        _thread.start_new_thread(lambda: signal.pthread_kill(main_thread, signal.SIGINT), ())


def _leave_no_core() -> None:
    """Let the kernel write no memory of this process to disk: a launch has the operator's tokens in it.

    Collectors of core dumps (systemd-coredump, apport) heed the limit too, and what starts from here has it.
    Source: core(5), setrlimit(2).
    """
    import resource  # noqa: PLC0415 - importing this package must stay light

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _run(args: list[str]) -> int:
    import click  # noqa: PLC0415 - importing this package must stay light

    from bot_bottle.cli.commands import cli  # noqa: PLC0415

    if _COMPLETE_ENV in os.environ:
        from bot_bottle.cli.completion import answer_shells  # noqa: PLC0415

        answer_shells()
        cli.main(args=args, prog_name="bot-bottle")  # answers, and exits

    def work() -> int:
        try:
            # Not cli.main(): that ends with code 1 where the reader of the output has gone.
            with cli.make_context("bot-bottle", args) as context:
                result = cli.invoke(context)
        except click.exceptions.Exit as error:  # --help, --version
            return error.exit_code
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (KeyboardInterrupt, EOFError) as error:
            print(file=sys.stderr)  # behind the ^C that the terminal shows
            raise KeyboardInterrupt from error
        except click.Abort as error:
            raise KeyboardInterrupt from error
        return result if isinstance(result, int) else 0

    return told(work)


def told(work: Callable[[], int]) -> int:
    """Give the exit code of ``work``; where it fails, say so on stderr in one sentence."""
    try:
        return work()
    except BotBottleError as error:
        text = str(error)
        _say(f"these need mending:\n{text}" if "\n" in text else text)
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # the reader has gone (`bot-bottle list | head -1`)
        return _EXIT_BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the last place where an error can be shown without its secrets
        if isinstance(error, OSError) and _output_fails():
            _drop_output()
            _say(f"the output cannot be written: {error.strerror}")
            return _EXIT_NO_OUTPUT
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            _say(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
            return _EXIT_NO_OUTPUT
        _show_unexpected(error)
        return _EXIT_UNEXPECTED


def _output_fails() -> bool:
    """Tell whether stdout is what cannot be written: what a failed write leaves buffered fails again."""
    try:
        print(end="", flush=True)
    except OSError:
        return True
    return False


def _drop_output(descriptor: int = 1) -> None:
    """Send what is still buffered nowhere, so that the interpreter's own flush at its end succeeds."""
    sink = os.open(os.devnull, os.O_WRONLY)
    if sink != descriptor:
        os.dup2(sink, descriptor)
        os.close(sink)


def _say(text: str) -> None:
    safe = "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
    try:
        print(f"bot-bottle: {safe}", file=sys.stderr, flush=True)
    except OSError:
        _drop_output(2)  # else the interpreter would end with an exit code of its own


def _show_unexpected(error: BaseException) -> None:
    """Show where an unexpected error came from, but not its text, which may quote a credential."""
    import traceback  # noqa: PLC0415 - only ever needed here

    if os.environ.get(_DEBUG_ENV):
        traceback.print_exception(error)
        return
    stack = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in stack[:-1] if f"{os.sep}bot_bottle{os.sep}" in frame.filename]
    frames = "".join(traceback.format_list([*ours, *stack[-1:]]))
    _say(
        f"unexpected {type(error).__name__}; this is a mistake of the program, please report it\n{frames}"
        f"(its text is left out, since it may quote a credential; {_DEBUG_ENV}=1 shows it)"
    )
