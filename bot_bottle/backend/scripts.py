"""Scripts in a bottle, as every backend runs them: for one user, with bounded output."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, BinaryIO

from bot_bottle.agent_account import AGENT_USER
from bot_bottle.backend.base import Bottle, ExecResult
from bot_bottle.backend.streams import Collector
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from bot_bottle.backend.streams import Input, Sink


class ScriptBottle(Bottle):
    """A bottle that runs every script in one way, :meth:`run_script`; ``backend_name`` stands in messages."""

    backend_name: str

    @abstractmethod
    def run_script(
        self, script: str, stdin: Input, stdout: Sink, stderr: Sink, timeout: float | None = None
    ) -> int:
        """Run a shell script as the agent in the workspace and give its exit code (128 + N for signal N).

        ``timeout`` is in seconds. Raises ``UsageError`` for a script of 128 KiB or more, ``TimeoutError``
        (the script is killed) and ``LaunchError``.
        """

    def exec(
        self, script: str, *, user: str = AGENT_USER, stdin: bytes = b"", timeout: float | None = None
    ) -> ExecResult:
        """Run a shell script in the workspace; see :class:`Bottle`.

        Raises ``UsageError`` for another user than the agent's and for a script of 128 KiB or more, and
        ``LaunchError`` where it writes more than 64 MiB.
        """
        if user != AGENT_USER:
            raise UsageError(
                f"a {self.backend_name} bottle has one user, {AGENT_USER}; {user!r} cannot run anything in it"
            )
        stdout, stderr = Collector(), Collector()
        code = self.run_script(script, stdin, stdout, stderr, timeout)
        return ExecResult(returncode=code, stdout=bytes(stdout.data), stderr=bytes(stderr.data))

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        """Run a shell script with its input and output streamed; without ``stdout`` the output is captured.

        Raises what :meth:`exec` raises.
        """
        captured, stderr = Collector(), Collector()
        sink = captured if stdout is None else stdout.write
        code = self.run_script(script, stdin, sink, stderr)
        if stdout is not None:
            stdout.flush()
        return ExecResult(returncode=code, stdout=bytes(captured.data), stderr=bytes(stderr.data))
