"""A running bubblewrap bottle."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from bot_bottle.backend import transfer
from bot_bottle.backend.base import AGENT_USER, AGENT_WORKSPACE, Bottle, ExecResult
from bot_bottle.backend.bubblewrap import terminal
from bot_bottle.backend.bubblewrap.pump import Pipes, pump
from bot_bottle.errors import LaunchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bot_bottle.backend.bubblewrap.pump import Input
    from bot_bottle.backend.bubblewrap.sandbox import Sandbox

#: The kernel takes no longer single argument (MAX_ARG_STRLEN), so no longer script.
_MAX_SCRIPT = 128 * 1024 - 1
#: A script's captured output beyond this many bytes ends it: the host's memory is not the agent's to fill.
_MAX_OUTPUT = 64 << 20
_SHELL = "/bin/sh"


class BubblewrapBottle(Bottle):
    """The agent's side of one sandbox; ``env`` is the whole environment of what runs in it."""

    def __init__(
        self, name: str, sandbox: Sandbox, env: Mapping[str, str], shown_argv: Sequence[str]
    ) -> None:
        self.name = name
        self._sandbox = sandbox
        self._env = dict(env)
        self._shown_argv = tuple(shown_argv)
        self._closed = False

    def agent_argv(self, argv: Sequence[str], *, tty: bool = True) -> list[str]:  # noqa: ARG002
        """Give bubblewrap's argv with ``argv`` as its command, which PID 1 starts in the same place."""
        return [*self._shown_argv, "--", *argv]

    def exec_agent(self, argv: Sequence[str], *, tty: bool = True) -> int:
        """Run the agent; with ``tty`` on the operator's terminal, if there is one. See :class:`Bottle`.

        Raises ``UsageError`` where the program cannot be run.
        """
        self._require_open()
        if tty and terminal.has_terminal():
            return self._exec_on_terminal(argv)
        stdin: Input = None if _is_terminal_or_closed(terminal.STDIN) else terminal.STDIN
        with terminal.leave_on_signals():
            return self._exec_on_pipes(argv, stdin, _writer(1), _writer(2))

    def exec(
        self, script: str, *, user: str = AGENT_USER, stdin: bytes = b"", timeout: float | None = None
    ) -> ExecResult:
        """Run a shell script in the workspace; see :class:`Bottle`.

        Raises ``UsageError`` for another user than the agent's and for a script of 128 KiB or more, and
        ``LaunchError`` where it writes more than 64 MiB.
        """
        if user != AGENT_USER:
            raise UsageError(
                f"a bubblewrap bottle has one user, {AGENT_USER}; {user!r} cannot run anything in it"
            )
        stdout, stderr = _Collector(), _Collector()
        code = self._exec_on_pipes(_shell(script), stdin, stdout, stderr, timeout)
        return ExecResult(returncode=code, stdout=bytes(stdout.data), stderr=bytes(stderr.data))

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        """Run a shell script with its input and output streamed; without ``stdout`` the output is captured.

        Raises what :meth:`exec` raises.
        """
        captured, stderr = _Collector(), _Collector()
        sink = captured if stdout is None else stdout.write
        code = self._exec_on_pipes(_shell(script), stdin, sink, stderr)
        if stdout is not None:
            stdout.flush()
        return ExecResult(returncode=code, stdout=bytes(captured.data), stderr=bytes(stderr.data))

    def cp_in(self, host: Path, guest: str) -> None:
        """Copy into the bottle; see :class:`Bottle`."""
        transfer.cp_in(self, host, guest)

    def cp_out(self, guest: str, host: Path) -> None:
        """Copy out of the bottle; see :class:`Bottle`."""
        transfer.cp_out(self, guest, host)

    def close(self) -> None:
        """End everything in the bottle; safe to call again."""
        self._closed = True
        self._sandbox.stop()

    def _exec_on_terminal(self, argv: Sequence[str]) -> int:
        try:
            process = self._sandbox.init.spawn(argv, self._env, AGENT_WORKSPACE, size=terminal.window_size())
        except OSError as error:
            raise UsageError(_cannot_run(argv, error)) from error
        try:
            return terminal.attach(process)
        finally:
            process.close()

    def _exec_on_pipes(
        self,
        argv: Sequence[str],
        stdin: Input,
        stdout: Callable[[bytes], object],
        stderr: Callable[[bytes], object],
        timeout: float | None = None,
    ) -> int:
        self._require_open()
        pipes = Pipes()
        try:
            process = self._sandbox.init.spawn(argv, self._env, AGENT_WORKSPACE, stdio=pipes.stdio())
        except OSError as error:
            pipes.close()
            raise UsageError(_cannot_run(argv, error)) from error
        except BaseException:
            pipes.close()
            raise
        pipes.hand_over()
        try:
            return pump(process, pipes, stdin, stdout, stderr, timeout)
        finally:
            process.close()
            pipes.close()

    def _require_open(self) -> None:
        if self._closed:
            raise LaunchError(f"the bottle {self.name} is closed")


class _Collector:
    """Gather a process's output, within bounds."""

    def __init__(self) -> None:
        self.data = bytearray()

    def __call__(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > _MAX_OUTPUT:
            raise LaunchError(
                f"a command in the bottle wrote more than {_MAX_OUTPUT >> 20} MiB; it was killed"
            )


def _shell(script: str) -> list[str]:
    if len(script.encode()) > _MAX_SCRIPT:
        raise UsageError(
            "a script for a bottle must be shorter than 128 KiB; send the data on its standard input"
        )
    return [_SHELL, "-c", script]


def _cannot_run(argv: Sequence[str], error: OSError) -> str:
    return f"{argv[0]} cannot be run in the bottle: {error.strerror}"


def _is_terminal_or_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return os.isatty(fd)


def _writer(fd: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write
