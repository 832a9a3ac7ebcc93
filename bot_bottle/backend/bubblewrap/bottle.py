"""A running bubblewrap bottle."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_WORKSPACE
from bot_bottle.attach.terminal import (
    STDERR,
    STDIN,
    STDOUT,
    has_terminal,
    is_terminal_or_closed,
    leave_on_signals,
    own_terminal,
)
from bot_bottle.backend.carry import carry
from bot_bottle.backend.pump import Pipes, pump
from bot_bottle.backend.scripts import ScriptBottle
from bot_bottle.backend.streams import cannot_run, descriptor_sink, require_script
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.attach.terminal import OperatorSide
    from bot_bottle.backend.bubblewrap.sandbox import Sandbox
    from bot_bottle.backend.streams import Input, Sink

_SHELL = "/bin/sh"


class BubblewrapBottle(ScriptBottle):
    """The agent's side of one sandbox; ``env`` is the whole environment of what runs in it."""

    backend_name = "bubblewrap"

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

    def run_script(
        self, script: str, stdin: Input, stdout: Sink, stderr: Sink, timeout: float | None = None
    ) -> int:
        """Run a shell script; see :class:`ScriptBottle`."""
        return self._exec_on_pipes([_SHELL, "-c", require_script(script)], stdin, stdout, stderr, timeout)

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
