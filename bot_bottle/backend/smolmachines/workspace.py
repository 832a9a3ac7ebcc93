"""A machine's workspace as an archive. The machine alone reads its disk: a stopped one is started for it.

It is started without a sidecar: its one address leads to a port where nobody listens, and nothing of the
agent's runs by itself. Root's own ``tar`` writes the archive, since an agent may have closed its folders.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import tempfile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from bot_bottle import bottle_state, process
from bot_bottle.backend.base import AGENT_WORKSPACE
from bot_bottle.backend.smolmachines import engine, freezing, machine
from bot_bottle.backend.smolmachines.machine import Binding, Machine
from bot_bottle.errors import LaunchError, UnavailableError
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

_PLACE = PurePosixPath(AGENT_WORKSPACE)
_COPY = f"exec tar -cf - -C {_PLACE.parent} -- {_PLACE.name}"
_SECONDS = 3600.0
_TOKEN_BYTES = 32


@contextlib.contextmanager
def open_workspace(identity: str) -> Iterator[BinaryIO]:
    """Give the archive of a bottle's workspace; raises ``UnavailableError`` and ``LaunchError``."""
    machine.require_kept(identity)
    with tempfile.TemporaryFile() as file:
        if bottle_state.is_running(identity):
            _require_awake(identity)
            _copy_out(identity, file.fileno())
        else:
            with bottle_state.hold_lock(identity), _awake(identity):
                _copy_out(identity, file.fileno())
        file.seek(0)
        yield cast("BinaryIO", file)


def _require_awake(identity: str) -> None:
    launcher = bottle_state.launcher_of(identity)
    if launcher is not None and freezing.is_frozen(launcher):
        raise UnavailableError(
            f"the machine of {identity} is held still and reads nothing; let it go on with: "
            f"bot-bottle panic {identity} --lift"
        )


@contextlib.contextmanager
def _awake(identity: str) -> Iterator[None]:
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


def _copy_out(identity: str, target: int) -> None:
    name = machine.machine_name(identity)
    argv = [*engine.client_argv(name, tty=False, user="0:0", workdir="/"), "--", "/bin/sh", "-c", _COPY]
    with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as words:  # noqa: PTH123
        client = process.start_with(argv, (nothing.fileno(), target, words.fileno()), env=engine.client_env())
        try:
            code = client.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            client.kill()
            client.wait()
        if code != 0:
            words.seek(0)
            said = process.last_line(words.read(1 << 16), f"exit code {code}")
            raise LaunchError(f"the workspace of {identity} could not be read from its machine: {said}")
