"""A running bottle in a container."""

from __future__ import annotations

import contextlib
import errno
import shutil
import threading
from contextlib import closing
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
from bot_bottle.backend import inside
from bot_bottle.backend.carry import ClientOnTerminal, carry
from bot_bottle.backend.docker.execs import AGENT, Command, NoProgramError
from bot_bottle.backend.scripts import ScriptBottle
from bot_bottle.backend.streams import cannot_run, descriptor_sink, require_script
from bot_bottle.errors import LaunchError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from bot_bottle.attach.terminal import OperatorSide
    from bot_bottle.backend.docker.agent import AgentContainer
    from bot_bottle.backend.streams import Input, Sink

    class Sidecar(Protocol):
        """The sidecar, as far as the bottle needs it."""

        def alive(self) -> bool:
            """Tell whether it still runs."""
            ...

        def sync(self) -> None:
            """Wait until all that is on record is in the host's log; raises ``LaunchError``."""
            ...


_CLIENT = "docker"
#: The client would swallow Ctrl-P for its own way of detaching, and a session left behind would be taken for
#: one that ended: nobody types this.
_DETACH_KEYS = "ctrl-^,ctrl-@,ctrl-^,ctrl-@,ctrl-^,ctrl-@"
#: How long a container that cut a command off may take to be seen to have ended, in seconds.
_END_SECONDS = 2.0
#: A shell's word for a program it did not find, or may not run (POSIX, "Exit Status for Commands").
_ERRNO = {127: errno.ENOENT, 126: errno.EACCES}


class DockerBottle(ScriptBottle):
    """The agent's side of one container."""

    backend_name = "docker"

    def __init__(
        self,
        name: str,
        agent: AgentContainer,
        sidecar: Sidecar,
        client_env: Mapping[str, str],
        *,
        serve: Callable[[], None],
    ) -> None:
        """``serve`` is called once: it has the sidecar's CA in the bottle and its ports served."""
        self.name = name
        self._agent = agent
        self._sidecar = sidecar
        self._client_env = dict(client_env)
        self._serve = serve
        self._ready = False
        self._closed = False
        self._syncing = threading.Lock()

    def await_ready(self) -> None:
        """Wait for the sidecar: its CA in the bottle, its ports served. See :class:`Bottle`."""
        if not self._ready:
            self._serve()
            self._ready = True

    def agent_argv(self, argv: Sequence[str], *, tty: bool = True) -> list[str]:
        """Give the client program's argv that runs ``argv``; the environment is added inside."""
        return [*self._client_argv(tty=tty), *argv]

    def exec_agent(self, argv: Sequence[str], *, tty: bool = True, side: OperatorSide | None = None) -> int:
        """Run the agent; with ``tty`` on the operator's terminal, if there is one. See :class:`Bottle`.

        Raises ``UsageError`` where the program cannot be run, ``UnavailableError`` where the terminal needs
        the client program ``docker`` and this machine has none.
        """
        self._require_alive()
        self.await_ready()
        if not self._sidecar.alive():
            raise LaunchError(sidecar_gone(self.name))
        try:
            if tty and side is not None:
                code = self._exec_on_terminal(argv, side)
            elif tty and has_terminal():
                with own_terminal() as own:
                    code = self._exec_on_terminal(argv, own)
            else:
                code = self._exec_on_pipes(Command(argv=tuple(argv)), side)
        except NoProgramError as error:
            raise cannot_run(argv, _ERRNO[error.code]) from error
        return code

    def run_script(
        self, script: str, stdin: Input, stdout: Sink, stderr: Sink, timeout: float | None = None
    ) -> int:
        """Run a shell script; see :class:`ScriptBottle`."""
        command = Command(script=require_script(script, spare=len(inside.SCRIPT_VARIABLE) + 1))
        return self._run(command, stdin, stdout, stderr, timeout)

    def close(self) -> None:
        """End everything in the bottle; safe to call again."""
        self._closed = True
        self._agent.close()

    def _exec_on_pipes(self, command: Command, side: OperatorSide | None) -> int:
        stdin: Input = None if side is not None or is_terminal_or_closed(STDIN) else STDIN
        sinks = (descriptor_sink(STDOUT), descriptor_sink(STDERR))
        if side is not None:
            sinks = (side.show, side.show)
            side.begun()
        with leave_on_signals():
            return self._run(command, stdin, *sinks)

    def _run(
        self, command: Command, stdin: Input, stdout: Sink, stderr: Sink, timeout: float | None = None
    ) -> int:
        self._require_alive()
        try:
            return self._agent.execs.run(command, stdin, stdout, stderr, timeout)
        except LaunchError as error:
            if self._agent.alive(_END_SECONDS):
                raise
            raise LaunchError(_agent_gone(self.name)) from error
        finally:
            self._complete_record()

    def _complete_record(self) -> None:
        """Have all that was decided so far in the host's log; what keeps it from there is told at the end."""
        with self._syncing, contextlib.suppress(LaunchError):
            if self._ready and self._sidecar.alive():
                self._sidecar.sync()

    def _exec_on_terminal(self, argv: Sequence[str], side: OperatorSide) -> int:
        if shutil.which(_CLIENT, path=self._client_env.get("PATH")) is None:
            raise UnavailableError(
                "an agent on a terminal needs the client program 'docker', which is not on PATH; "
                "install it (docker-cli), or run with --headless"
            )
        execs = self._agent.execs
        with execs.slots.take() as slot:
            size = side.sizes()[-1]
            script = _sized(*size) + inside.ON_TERMINAL
            command = [*self._client_argv(tty=True), "/bin/sh", "-c", script, "sh", slot, *argv]
            with closing(ClientOnTerminal(command, size, env=self._client_env)) as client:
                code = carry(client, side)
            if not self._agent.alive():
                raise LaunchError(_agent_gone(self.name))
            execs.require_ran(slot, code)
            return code

    def _client_argv(self, *, tty: bool) -> list[str]:
        streams = ["--interactive", "--tty", f"--detach-keys={_DETACH_KEYS}"] if tty else ["--interactive"]
        place = ["--user", AGENT, "--workdir", AGENT_WORKSPACE]
        return [_CLIENT, "exec", *streams, *place, self._agent.settings.name]

    def _require_alive(self) -> None:
        if self._closed:
            raise LaunchError(f"the bottle {self.name} is closed")
        if not self._agent.alive():
            raise LaunchError(_agent_gone(self.name))


def _agent_gone(name: str) -> str:
    return f"the container of bottle {name} has ended, or was started again; the session is over"


def sidecar_gone(name: str) -> str:
    """Say that nothing reaches the network from a bottle any more."""
    return f"the sidecar of bottle {name} has ended; nothing reaches the network from it any more"


def _sized(rows: int, columns: int) -> str:
    """Give a line of shell that tells a terminal its size where nobody has yet.

    The client program tells it too, but only once the program runs, and it gives up after a few tries on an
    engine that is slow to start it.
    """
    return f'[ "$(stty size 2>/dev/null)" != "0 0" ] || stty rows {rows} cols {columns} 2>/dev/null\n'
