"""Commands in a running container: their streams, their end, and how they are made to end.

The engine reports a command's end only once nothing holds its streams any more, and its exit code on asking
again; so the shell around each command (see :mod:`bot_bottle.backend.inside`) marks the end itself.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_UID, AGENT_WORKSPACE
from bot_bottle.backend import inside
from bot_bottle.backend.docker.engine import engine_errors
from bot_bottle.backend.docker.running import Running
from bot_bottle.backend.docker.streams import Multiplexed
from bot_bottle.backend.slots import Slots
from bot_bottle.backend.streams import Collector
from bot_bottle.errors import BotBottleError, LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from docker import APIClient

    from bot_bottle.backend.streams import Input, Sink

AGENT = f"{AGENT_UID}:{AGENT_UID}"
ROOT = "0:0"
_FAILED = "a command could not be run in the bottle"
_CANNOT_KILL = "a command in the bottle could not be ended, so the whole bottle was"
#: What one of our own short scripts may take, in seconds: a look at every process of a busy machine.
_OWN_SECONDS = 30.0
#: How long the engine may take to note that a command has ended, in seconds.
_NOTE_SECONDS = 5.0
#: How many processes may be started to end others where the bottle has used up its own.
_SPARE_PROCESSES = 16


class NoProgramError(Exception):
    """The program could not be run in the container; ``code`` is the shell's 126 or 127."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"exit code {code}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run as the agent: ``argv``, or, where that is empty, the shell script ``script``."""

    argv: tuple[str, ...] = ()
    script: str = ""


class Execs:
    """Runs commands in one container. Safe to use from several threads."""

    def __init__(self, api: APIClient, container: str, *, processes: int = 0) -> None:
        """``processes`` is the container's bound on processes, 0 where it has none."""
        self._api = api
        self._container = container
        self._processes = processes
        self.slots = Slots()

    def run(
        self, command: Command, given: Input, stdout: Sink, stderr: Sink, timeout: float | None = None
    ) -> int:
        """Run a command to its end; gives its exit code (128 + N for signal N).

        A sink that raises ``BrokenPipeError`` counts as closed: the command's processes get SIGPIPE. Raises
        ``TimeoutError`` after ``timeout`` seconds, when the command and its session have been killed,
        ``NoProgramError`` where the program cannot be run, and ``LaunchError`` where the bottle or its engine
        is gone. On every exception the command is killed.
        """
        mark = inside.new_mark()
        env = None if command.argv else {inside.SCRIPT_VARIABLE: command.script}
        with self.slots.take() as slot:
            try:
                code = self._run(
                    (inside.PIPED, slot, mark, *command.argv),
                    Running(mark, given, stdout, stderr, lambda: self.send_signal(slot, "PIPE")),
                    timeout,
                    env=env,
                )
            except BaseException as error:
                self._kill_or_end(slot, error)
                raise
            self.require_ran(slot, code)
            return code

    def run_own(
        self,
        script: str,
        *args: str,
        user: str = AGENT,
        given: Input = b"",
        env: Mapping[str, str] | None = None,
        heard: Sink | None = None,
        seconds: float = _OWN_SECONDS,
    ) -> tuple[int, bytes]:
        """Run one of our own short scripts outside the agent's environment; gives code and output.

        ``heard`` gets the output as it comes. Raises ``LaunchError``, also after ``seconds``.
        """
        mark = inside.new_mark()
        output = Collector()

        def take(data: bytes) -> None:
            output(data)
            if heard is not None:
                heard(data)

        try:
            code = self._run(
                (inside.marked(script), mark, *args),
                Running(mark, given, take, take, lambda: None),
                seconds,
                env=env,
                user=user,
                workdir="/",
            )
        except TimeoutError as error:
            raise LaunchError(f"{_FAILED}: it does not answer") from error
        return code, bytes(output.data)

    def require_ran(self, slot: str, code: int) -> None:
        """Raise ``NoProgramError`` where the slot's shell never became the program; ``code`` is its end."""
        if code not in {126, 127}:
            return
        _, output = self.run_own(inside.LOOK, slot)
        if output.split() == [inside.FAILED.encode(), str(code).encode()]:
            raise NoProgramError(code)

    def send_signal(self, slot: str, kind: str) -> None:
        """Send KILL or PIPE to the session of a slot's command; raises ``LaunchError`` where it lives on."""
        code, _ = self.run_own(inside.SIGNAL, slot, kind)
        if code != 0:
            raise LaunchError(_CANNOT_KILL)

    def end_all(self) -> None:
        """Kill the container; what is gone already is no error."""
        with contextlib.suppress(BotBottleError), engine_errors(_CANNOT_KILL):
            self._api.kill(self._container)

    def _run(
        self,
        args: Sequence[str],
        running: Running,
        timeout: float | None,
        *,
        user: str = AGENT,
        env: Mapping[str, str] | None = None,
        workdir: str = AGENT_WORKSPACE,
    ) -> int:
        script, *rest = args
        with engine_errors(_FAILED):
            created = self._api.exec_create(
                self._container,
                ["/bin/sh", "-c", script, "sh", *rest],
                stdin=True,
                user=user,
                environment=dict(env or {}),
                workdir=workdir,
            )
            connection = self._api.exec_start(created["Id"], socket=True)
        with Multiplexed(connection) as streams:
            try:
                code = running.finish(streams, timeout)
            except ValueError:  # the engine's own words in place of frames
                code = None
        return self._code_without_mark(created["Id"], running.words) if code is None else code

    def _code_without_mark(self, exec_id: str, words: str) -> int:
        """Find the end of a command whose shell was killed, or never came to run."""
        deadline = time.monotonic() + _NOTE_SECONDS
        code = None
        while code is None and time.monotonic() < deadline:
            with engine_errors(_FAILED):
                found = self._api.exec_inspect(exec_id)
            if not found.get("Running"):
                code = found.get("ExitCode")
                break
            time.sleep(0.05)  # there is no event to wait for that comes before the note
        if not isinstance(code, int) or code in {126, 127}:
            raise LaunchError(f"{_FAILED}: {words or 'its first process did not come up'}")
        return code & 0xFF

    def _kill_or_end(self, slot: str, error: BaseException) -> None:
        """Kill a command that is not to go on; where that cannot be, the whole bottle ends."""
        with contextlib.suppress(BotBottleError):
            self.send_signal(slot, "KILL")
            return
        try:
            # A bottle full of processes has no room for the one that is to end them.
            with self._lent_processes():
                self.send_signal(slot, "KILL")
        except BotBottleError:
            self.end_all()
            error.add_note(_CANNOT_KILL)

    @contextlib.contextmanager
    def _lent_processes(self) -> Iterator[None]:
        self._bound_processes(self._processes + _SPARE_PROCESSES)
        try:
            yield
        finally:
            self._bound_processes(self._processes)

    def _bound_processes(self, count: int) -> None:
        if not self._processes:
            return
        # The SDK's own update_container knows no PidsLimit.
        url = f"{self._api.base_url}/v{self._api.api_version}/containers/{self._container}/update"
        with engine_errors("the bottle's bound on processes could not be changed"):
            self._api.post(url, json={"PidsLimit": count}).raise_for_status()
