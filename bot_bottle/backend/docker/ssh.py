"""An engine on another machine, reached through the ``ssh`` program as one more unix socket of this one.

The SDK's own ssh transport gives file objects in place of sockets: no half-close, no waiting, and an attached
container cannot be spoken to. Here each connection to a private socket becomes one
``ssh HOST docker system dial-stdio`` whose input and output *are* that connection, as the client program does
it. Everything above sees an ordinary local socket.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import tempfile
import threading
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import process
from bot_bottle.errors import UsageError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    import subprocess

# A name that begins with "-" would be an option of ssh (CVE-2017-1000117).
_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.:%-]*")
_PATH = re.compile(r"/[A-Za-z0-9_./-]+")
_CONNECT_SECONDS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class SshTarget:
    """Where ``ssh://USER@HOST:PORT/PATH`` leads; ``path`` is the engine's socket there, empty for its own."""

    host: str
    user: str = ""
    port: int = 0
    path: str = ""

    def argv(self) -> list[str]:
        """Give the command that joins its standard streams to the engine.

        BatchMode: nobody may be asked for a password once for each connection.
        """
        command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECONDS}"]
        command += ["-l", self.user] if self.user else []
        command += ["-p", str(self.port)] if self.port else []
        dial = f"docker --host unix://{self.path}" if self.path else "docker"
        return [*command, "--", self.host, f"{dial} system dial-stdio"]


def parse_ssh(url: str, why: str) -> SshTarget:
    """Read an ``ssh://`` address; raises ``UsageError`` that begins with ``why``."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError as error:
        raise UsageError(f"{why} names {legible(url)}: {error}") from error
    if parts.password is not None:
        raise UsageError(f"{why} holds a password, which ssh takes from no address; load a key instead")
    user, path = parts.username or "", parts.path.rstrip("/")
    good = (
        _NAME.fullmatch(host) and (not user or _NAME.fullmatch(user)) and (not path or _PATH.fullmatch(path))
    )
    if not good or parts.query or parts.fragment:
        raise UsageError(f"{why} names {legible(url)}; write ssh://USER@HOST or ssh://USER@HOST:PORT")
    return SshTarget(host=host, user=user, port=port, path=path)


class SshBridge:
    """A socket in a private folder behind which the other machine's engine answers, until :meth:`close`.

    It ends with this process: a connection whose maker is gone is closed by the kernel, and ``ssh`` with it.
    """

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self._folder = tempfile.mkdtemp(prefix="bot-bottle-ssh-")
        self.path = f"{self._folder}/engine.sock"
        self._children: list[subprocess.Popen[bytes]] = []
        self._words = Path(f"{self._folder}/words")
        self._words.touch(mode=0o600)
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._server.bind(self.path)
            self._server.listen()
        except BaseException:
            self._server.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._thread = threading.Thread(target=self._serve, name="ssh-bridge", daemon=True)
        self._thread.start()

    def words(self) -> str:
        """Give what ``ssh`` said last on its standard error; empty if nothing."""
        lines = self._words.read_text("utf-8", "replace").strip().splitlines()
        return legible(lines[-1].strip())[:300] if lines else ""

    def close(self) -> None:
        """End every connection; safe to call again."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        for child in self._children:
            child.terminate()
            child.wait()
        self._children.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed
                return
            with connection, self._words.open("ab") as words:
                try:
                    child = process.start_on(connection, self._target.argv(), stderr=words.fileno())
                except OSError as error:
                    words.write(f"ssh cannot be started: {error.strerror}\n".encode())
                    continue
            self._children = [one for one in self._children if one.poll() is None]
            self._children.append(child)
