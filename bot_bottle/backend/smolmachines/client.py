"""A command in a machine, run by the engine's client program: the SDK knows text only, and no terminal."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from bot_bottle import process
from bot_bottle.backend import inside
from bot_bottle.backend.smolmachines import engine
from bot_bottle.errors import BotBottleError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.backend.streams import Sink

_MAX_WORDS = 4000


class ClientProcess:
    """The client program around one command; ``end_inside`` kills what the command started in the machine."""

    def __init__(
        self, argv: Sequence[str], stdio: tuple[int, int, int], end_inside: Callable[[], None]
    ) -> None:
        """Start the client; raises ``OSError`` where that cannot be."""
        self._end_inside = end_inside
        self._process = process.start_with(argv, stdio, env=engine.client_env())
        self._pidfd = os.pidfd_open(self._process.pid)

    def fileno(self) -> int:
        """Give the descriptor that becomes readable when the client has ended."""
        return self._pidfd

    def wait(self, timeout: float | None = None) -> int | None:
        """Give the client's exit code, None where it still runs after ``timeout`` seconds."""
        return process.exit_code(self._process, timeout)

    def kill(self) -> None:
        """Kill the command's session in the machine, then the client."""
        with contextlib.suppress(BotBottleError):
            self._end_inside()
        self._process.kill()

    def close(self) -> None:
        """Let go of the client, ending it if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._pidfd)


class CommandOutput:
    """Sorts one command's two streams: the client's own words, the command's output, and its end."""

    def __init__(self, mark: str, stdout: Sink, stderr: Sink) -> None:
        self._stdout, self._stderr = stdout, stderr
        self._out, self._err = inside.MarkedOutput(mark), inside.MarkedOutput(mark)
        self._begin = b"\x1e" + mark.encode() + b">"
        self._before = b""
        self.begun = False

    @property
    def code(self) -> int | None:
        """Give the command's exit code, None where its end was not told."""
        return self._out.code

    @property
    def words(self) -> str:
        """Give the last line that the client itself wrote."""
        lines = self._before.decode("utf-8", "replace").strip().splitlines()
        return legible(lines[-1].strip()) if lines else ""

    def take_out(self, data: bytes) -> None:
        """Take what came on the command's standard output."""
        own = self._out.feed(data)
        if own:
            self._stdout(own)

    def take_err(self, data: bytes) -> None:
        """Take what came on its error stream, on which the client speaks first."""
        if not self.begun:
            self._before += data
            before, found, rest = self._before.partition(self._begin)
            if not found:
                self._before = self._before[-_MAX_WORDS:]
                return
            self.begun, self._before, data = True, before, rest
        own = self._err.feed(data)
        if own:
            self._stderr(own)

    def finish(self) -> None:
        """Pass on what was held back where no end was ever told."""
        for rest, sink in ((self._out.rest(), self._stdout), (self._err.rest(), self._stderr)):
            if rest:
                sink(rest)
