"""The one door to short host commands (``git``, ``systemctl`` …): bounded, no shell, no inherited input."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bot_bottle.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    given: bytes = b"",
    source: BinaryIO | None = None,
    sink: BinaryIO | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run ``argv`` to its end with its output captured; the exit code is the caller's to judge.

    ``timeout`` is in seconds; ``given`` is its whole standard input, or the open file ``source`` is; what it
    writes goes to the open file ``sink`` instead, where there is one. Raises ``UnavailableError`` where the
    program is missing or hangs.
    """
    try:
        return subprocess.run(
            list(argv),
            cwd=cwd,
            env=env,
            timeout=timeout,
            input=given if source is None else None,
            stdin=source,
            stdout=subprocess.PIPE if sink is None else sink,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError as error:
        raise UnavailableError(
            f"{argv[0]} was not found on this machine; install it and try again"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{argv[0]} did not finish within {timeout:.0f} s") from error


#: Our own command line, under this interpreter. ``-P``: the folder it is called in may be a stranger's, and a
#: package of our name in it must not be what runs.
OWN_COMMAND = (sys.executable, "-P", "-m", "bot_bottle")


def signal_while(pid: int, number: int, is_it: Callable[[int], object]) -> None:
    """Signal a process that ``is_it`` knows, unless it has gone and its number is another's by now."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            if is_it(pid):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def run_attached(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None, stderr: int | None = None
) -> int:
    """Run a program on the operator's own terminal (an editor of theirs, say); gives its exit code.

    Without ``env`` it gets this process's own, without ``stderr`` (a descriptor) its error stream. The code
    is 128 + N where signal N ended it. What the keyboard sends (Ctrl-C) is the program's while it runs: the
    terminal sends it to both, and it must not end what waits (as in system(3)). Raises ``UsageError`` where
    it cannot be started.
    """
    try:
        with _deaf_to_the_keyboard():
            code = subprocess.run(list(argv), env=env, stderr=stderr, check=False).returncode
    except OSError as error:
        raise UsageError(f"{argv[0]} cannot be started ({error.strerror})") from error
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _deaf_to_the_keyboard() -> Iterator[None]:
    """Let SIGINT and SIGQUIT do nothing here while the body runs.

    They are handled, not ignored: execve(2) gives handled signals their default action in the program that
    is started, where ignored ones would stay ignored. What was ignored before (nohup, ``&``) stays so.
    """
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGQUIT)}
    before = {number: handler for number, handler in found.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, lambda *_: None)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_on(connection: socket.socket, argv: Sequence[str], *, stderr: int) -> subprocess.Popen[bytes]:
    """Start a program whose standard input and output are ``connection``; ``stderr`` is a descriptor.

    It stands in a session of its own, so that the operator's Ctrl-C does not cut the connection under the
    one who is just taking things down. Raises ``OSError`` where it cannot be started.
    """
    return subprocess.Popen(
        list(argv),
        stdin=connection.fileno(),
        stdout=connection.fileno(),
        stderr=stderr,
        start_new_session=True,
    )


def start_with(
    argv: Sequence[str], stdio: tuple[int, int, int], *, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a program on three descriptors, in a session of its own as :func:`start_on` does.

    Raises ``OSError`` where it cannot be started.
    """
    stdin, stdout, stderr = stdio
    return subprocess.Popen(
        list(argv), stdin=stdin, stdout=stdout, stderr=stderr, env=env, start_new_session=True
    )


class BoundedCommand:
    """A command of the operator's that runs while other things go on; it and all it starts can be ended.

    It stands in a session of its own, without a terminal, and what it prints is lost. Raises ``OSError``
    where it cannot be started.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )

    def finish(self, given: bytes, timeout: float) -> int | None:
        """Give it its standard input and wait for its exit code; None where ``timeout`` seconds were over."""
        try:
            self._process.communicate(given, timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
            return None
        finally:
            if self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
        return self._process.returncode

    def kill(self) -> None:
        """End it and its session's group; safe to call again, and from another thread."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)


def start_on_terminal(
    argv: Sequence[str], terminal: int, *, env: Mapping[str, str] | None = None, stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a program in front of ``terminal`` (a descriptor), in a session of its own.

    Without ``env`` it gets this process's own environment, without ``stderr`` (a descriptor) the terminal.
    Raises ``UsageError`` where it cannot be started.
    """
    starter = str(Path(__file__).with_name("in_front.py"))
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", starter, *argv],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal if stderr is None else stderr,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise UsageError(f"{argv[0]} cannot be started ({error.strerror})") from error


def start_own(
    module: str,
    *arguments: str,
    pass_fds: Sequence[int],
    stderr: int = subprocess.DEVNULL,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a module of this installation under this interpreter, in a session of its own.

    It reads nothing, what it prints is lost but for ``stderr`` (a descriptor), and its environment is made
    from nothing; ``env`` is added. Raises ``OSError``.
    """
    root = str(Path(__file__).resolve().parent.parent)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root, "LANG": "C.UTF-8", **(env or {})},
        cwd="/",
        pass_fds=tuple(pass_fds),
        start_new_session=True,
    )


def exit_code(child: subprocess.Popen[bytes], timeout: float | None = None) -> int | None:
    """Wait for a child's exit code (128 + N for signal N); None where it outlives ``timeout`` seconds."""
    try:
        code = child.wait(timeout)
    except subprocess.TimeoutExpired:
        return None
    return code if code >= 0 else 128 - code


def last_line(data: bytes, fallback: str) -> str:
    """Give the last non-empty line of a program's output, printable, or ``fallback``."""
    return first_line(b"\n".join(reversed(data.splitlines())), fallback)


def first_line(data: bytes, fallback: str) -> str:
    """Give the first non-empty line of a program's output, printable, or ``fallback``."""
    for line in data.decode("utf-8", "replace").splitlines():
        text = "".join(char if char.isprintable() else "?" for char in line.strip())
        if text:
            return text[:400]
    return fallback
