"""A machine's disk as a stream of bytes. The machine alone reads it, so a stopped one is started for it.

It is started without a sidecar: its one address leads to a port where nobody listens, and nothing of the
agent's runs by itself.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import tempfile
from typing import TYPE_CHECKING

from bot_bottle import process
from bot_bottle.backend.smolmachines import engine, machine
from bot_bottle.backend.smolmachines.machine import Binding, Machine
from bot_bottle.errors import LaunchError
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SECONDS = 3600.0
_TOKEN_BYTES = 32


@contextlib.contextmanager
def awake(identity: str) -> Iterator[None]:
    """Have a stopped machine run for a while, with nobody at the other end of its network."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and never listening: a connection is refused
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        binding = Binding(address=address, token=Secret(secrets.token_hex(_TOKEN_BYTES)))
        running = Machine.start_again(identity, binding)
        try:
            yield
        finally:
            running.stop()


def stream(identity: str, words: Sequence[str], *, user: str, source: int, sink: int, failed: str) -> None:
    """Run ``words`` in a machine with these descriptors as its input and output.

    Raises ``LaunchError``, ``failed`` and why, where they do not end with code 0 within an hour.
    """
    argv = engine.client_argv(machine.machine_name(identity), tty=False, user=user, workdir="/")
    with tempfile.TemporaryFile() as told:
        stdio = (source, sink, told.fileno())
        client = process.start_with([*argv, "--", *words], stdio, env=engine.client_env())
        try:
            code = client.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            client.kill()
            client.wait()
        if code != 0:
            told.seek(0)
            raise LaunchError(f"{failed}: {process.last_line(told.read(1 << 16), f'exit code {code}')}")
