"""A running bottle in a microVM."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
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
from bot_bottle.backend.pump import Pipes, pump
from bot_bottle.backend.scripts import ScriptBottle
from bot_bottle.backend.slots import Slots
from bot_bottle.backend.smolmachines import engine, guest
from bot_bottle.backend.smolmachines.client import ClientProcess, CommandOutput
from bot_bottle.backend.smolmachines.machine import gone
from bot_bottle.backend.streams import cannot_run, descriptor_sink, require_script
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.attach.terminal import OperatorSide
    from bot_bottle.backend.smolmachines.guest import Starter
    from bot_bottle.backend.smolmachines.machine import Machine
    from bot_bottle.backend.streams import Input, Sink
    from bot_bottle.sidecar.client import SidecarProcess

_SHELL = "/bin/sh"
#: A shell's word for a program it did not find, or may not run (POSIX, "Exit Status for Commands").
_ERRNO = {127: errno.ENOENT, 126: errno.EACCES}


class SmolmachinesBottle(ScriptBottle):
    """The agent's side of one machine; ``starter`` says how each command begins in it."""

    backend_name = "smolmachines"

    def __init__(
        self,
        name: str,
        machine: Machine,
        sidecar: SidecarProcess,
        starter: Starter,
        *,
        provisioned: bool = False,
    ) -> None:
        self.name = name
        self.provisioned = provisioned
        self._machine = machine
        self._sidecar = sidecar
        self._starter = starter
        self._slots = Slots()
        self._closed = False

    def agent_argv(self, argv: Sequence[str], *, tty: bool = True) -> list[str]:
        """Give the client program's argv that runs ``argv``; the environment is added inside."""
        return [*self._client_argv(tty=tty), *argv]

    def exec_agent(self, argv: Sequence[str], *, tty: bool = True, side: OperatorSide | None = None) -> int:
        """Run the agent; with ``tty`` on the operator's terminal, if there is one. See :class:`Bottle`.

        Raises ``UsageError`` where the program cannot be run.
        """
        self._require_alive()
        if not self._sidecar.alive():
            raise LaunchError(_sidecar_gone(self.name))
        if tty and side is not None:
            code = self._exec_on_terminal(argv, side)
        elif tty and has_terminal():
            with own_terminal() as own:
                code = self._exec_on_terminal(argv, own)
        else:
            stdin: Input = None if side is not None or is_terminal_or_closed(STDIN) else STDIN
            sinks = (descriptor_sink(STDOUT), descriptor_sink(STDERR))
            if side is not None:
                sinks = (side.show, side.show)
                side.begun()
            with leave_on_signals():
                code = self._run(argv, stdin, *sinks)
        if not self._sidecar.alive():
            print(f"bot-bottle: {_sidecar_gone(self.name)}", file=sys.stderr)
        return code

    def run_script(
        self, script: str, stdin: Input, stdout: Sink, stderr: Sink, timeout: float | None = None
    ) -> int:
        """Run a shell script; see :class:`ScriptBottle`."""
        return self._run([_SHELL, "-c", require_script(script)], stdin, stdout, stderr, timeout)

    def close(self) -> None:
        """Stop the machine; safe to call again. What cannot be stopped ends with this process."""
        if self._closed:
            return
        self._closed = True
        try:
            self._machine.stop()
        except LaunchError as error:
            print(f"bot-bottle: {error}", file=sys.stderr)

    def _run(
        self,
        argv: Sequence[str],
        stdin: Input,
        stdout: Sink,
        stderr: Sink,
        timeout: float | None = None,
    ) -> int:
        self._require_open()
        mark = inside.new_mark()
        output = CommandOutput(mark, stdout, stderr)
        pipes = Pipes()
        with self._slots.take() as slot, contextlib.ExitStack() as stack:
            stack.callback(pipes.close)
            client = ClientProcess(
                [*self._client_argv(tty=False), *self._starter.piped, _SHELL, guest.RUN],
                pipes.stdio(),
                lambda: self._end(slot),
            )
            stack.callback(client.close)
            pipes.hand_over()
            call = guest.call_line(slot, mark, argv)
            code = pump(client, pipes, stdin, output.take_out, output.take_err, timeout, first=call)
            output.finish()
            code = self._judge(output, code)
            self._require_ran(slot, argv, code)
            return code

    def _judge(self, output: CommandOutput, client_code: int | None) -> int:
        """Find the command's exit code: as its shell told it, or the client's where that was killed."""
        if output.code is not None:
            return output.code
        if not self._machine.alive():
            raise gone(self.name)
        if not output.begun:
            raise LaunchError(f"a command could not be run in the bottle: {output.words or 'no answer'}")
        return 255 if client_code is None else client_code

    def _exec_on_terminal(self, argv: Sequence[str], side: OperatorSide) -> int:
        with self._slots.take() as slot:
            script, place = guest.write_call_script(slot)
            if self._machine.run_given(script, guest.call_words((slot, *argv))) != 0:
                raise LaunchError("a command could not be passed into the bottle's machine")
            words = self._starter.terminal
            command = [*self._client_argv(tty=True), *words, _SHELL, guest.ON_TERMINAL, place]
            # The client's own words would stand on the agent's screen; the machine's terminal has one stream.
            with contextlib.ExitStack() as stack:
                nowhere = stack.enter_context(open(os.devnull, "wb")).fileno()  # noqa: PTH123
                client = ClientOnTerminal(command, side.sizes()[-1], env=engine.client_env(), stderr=nowhere)
                stack.callback(client.close)
                code = carry(client, side)
            if not self._machine.alive():
                raise gone(self.name)
            self._require_ran(slot, argv, code)
            return code

    def _client_argv(self, *, tty: bool) -> list[str]:
        name = self._machine.name
        return [*engine.client_argv(name, tty=tty, user=self._starter.user, workdir=AGENT_WORKSPACE), "--"]

    def _require_ran(self, slot: str, argv: Sequence[str], code: int) -> None:
        """Raise ``UsageError`` where the slot's shell never became the program; ``code`` is its end."""
        if code not in _ERRNO:
            return
        _, told = self._machine.run(f"{inside.LOOK}\n", args=(slot,))
        if told.split() == [inside.FAILED, str(code)]:
            raise cannot_run(argv, _ERRNO[code])

    def _end(self, slot: str) -> None:
        """Kill the session of a slot's command; where that cannot be, the whole machine ends."""
        self._machine.thaw()  # its own root does it, which a panic may be holding still
        code, _ = self._machine.run(inside.SIGNAL, args=(slot, "KILL"))
        if code != 0:
            self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise LaunchError(f"the bottle {self.name} is closed")

    def _require_alive(self) -> None:
        self._require_open()
        if not self._machine.alive():
            raise gone(self.name)


def _sidecar_gone(name: str) -> str:
    return f"the sidecar of bottle {name} has ended; nothing reaches the network from it any more"
