"""A running bubblewrap bottle."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, BinaryIO

from bot_bottle.agent_account import AGENT_USER, AGENT_WORKSPACE
from bot_bottle.attach.terminal import (
    STDERR,
    STDIN,
    STDOUT,
    has_terminal,
    is_terminal_or_closed,
    leave_on_signals,
    own_terminal,
)
from bot_bottle.backend.base import Bottle, ExecResult
from bot_bottle.backend.carry import carry
from bot_bottle.backend.pump import Pipes, pump
from bot_bottle.backend.streams import Collector, cannot_run, descriptor_sink, require_script
from bot_bottle.errors import LaunchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.attach.terminal import OperatorSide
    from bot_bottle.backend.bubblewrap.sandbox import Sandbox
    from bot_bottle.backend.streams import Input, Sink

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

    def exec_agent(self, argv: Sequence[str], *, tty: bool = True, side: OperatorSide | None = None) -> int:
        """Run the agent; with ``tty`` on the operator's terminal, if there is one. See :class:`Bottle`.

        Raises ``UsageError`` where the program cannot be run.
        """
        self._require_open()
        if side is not None:
            if tty:
                return self._exec_on_terminal(argv, side)
            side.begun()
            with leave_on_signals():
                return self._exec_on_pipes(argv, None, side.show, side.show)
        if tty and has_terminal():
            with own_terminal() as own:
                return self._exec_on_terminal(argv, own)
        stdin: Input = None if is_terminal_or_closed(STDIN) else STDIN
        with leave_on_signals():
            return self._exec_on_pipes(argv, stdin, descriptor_sink(STDOUT), descriptor_sink(STDERR))

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
        stdout, stderr = Collector(), Collector()
        code = self._exec_on_pipes(_shell(script), stdin, stdout, stderr, timeout)
        return ExecResult(returncode=code, stdout=bytes(stdout.data), stderr=bytes(stderr.data))

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        """Run a shell script with its input and output streamed; without ``stdout`` the output is captured.

        Raises what :meth:`exec` raises.
        """
        captured, stderr = Collector(), Collector()
        sink = captured if stdout is None else stdout.write
        code = self._exec_on_pipes(_shell(script), stdin, sink, stderr)
        if stdout is not None:
            stdout.flush()
        return ExecResult(returncode=code, stdout=bytes(captured.data), stderr=bytes(stderr.data))

    def close(self) -> None:
        """End everything in the bottle; safe to call again."""
        self._closed = True
        self._sandbox.stop()

    def _exec_on_terminal(self, argv: Sequence[str], side: OperatorSide) -> int:
        try:
            process = self._sandbox.init.spawn(argv, self._env, AGENT_WORKSPACE, size=side.sizes()[-1])
        except OSError as error:
            raise cannot_run(argv, error.errno or errno.EIO) from error
        try:
            return carry(process, side)
        finally:
            process.close()

    def _exec_on_pipes(
        self,
        argv: Sequence[str],
        stdin: Input,
        stdout: Sink,
        stderr: Sink,
        timeout: float | None = None,
    ) -> int:
        self._require_open()
        pipes = Pipes()
        try:
            process = self._sandbox.init.spawn(argv, self._env, AGENT_WORKSPACE, stdio=pipes.stdio())
        except OSError as error:
            pipes.close()
            raise cannot_run(argv, error.errno or errno.EIO) from error
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


def _shell(script: str) -> list[str]:
    return [_SHELL, "-c", require_script(script)]
