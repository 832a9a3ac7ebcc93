"""An ssh agent for the gate's own ``ssh`` and nobody else (draft-miller-ssh-agent).

So the private key is never in a file, an argument or another process: ``ssh`` asks for a signature over a
unix socket in the sidecar's private folder. It signs logins of the remote's user and nothing else. Where the
operator's own agent holds the key (a passphrase, a hardware token), the same requests, and only those, are
passed on to it: it cannot be asked for another key or another purpose.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

from bot_bottle.git_gate.keys import is_login, load_private, public_blob, sign, string, take_string

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.serialization import SSHPrivateKeyTypes

    from bot_bottle.git_gate.remote import SshKey

_FAILURE, _REQUEST_IDENTITIES, _IDENTITIES, _SIGN_REQUEST, _SIGNATURE = 5, 11, 12, 13, 14
_MAX_MESSAGE = 16 * 1024
#: How long the operator may take to touch a token or answer their agent's question, in seconds.
_PATIENCE_SECONDS = 60.0


class KeyAgent:
    """Serves one key at ``folder/name``; :meth:`open` then :meth:`close`, on one event loop."""

    def __init__(self, key: SshKey, *, user: str, folder: Path, name: str) -> None:
        """Load the key; raises ``KeyNotUsableError``."""
        self._blob = public_blob(key.public)
        self._user = user
        self._private: SSHPrivateKeyTypes | None = (
            load_private(key.private.reveal().encode()) if key.private else None
        )
        self._agent = key.agent
        self._folder, self._name = folder, name
        self._server: asyncio.AbstractServer | None = None

    async def open(self) -> None:
        """Listen; raises ``OSError``."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        before = os.umask(0o177)
        try:
            (self._folder / self._name).unlink(missing_ok=True)
            # Through the descriptor, since a socket's path holds no more than 107 bytes (unix(7)).
            sock.bind(f"/proc/self/fd/{folder}/{self._name}")
            self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=_MAX_MESSAGE)
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(before)
            os.close(folder)

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(OSError):
            (self._folder / self._name).unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while message := await _receive(reader):
                    answer = await self._answer(message)
                    writer.write(string(answer))
                    await writer.drain()
        except (OSError, ValueError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _answer(self, message: bytes) -> bytes:
        kind = message[0]
        if kind == _REQUEST_IDENTITIES:
            return bytes([_IDENTITIES]) + (1).to_bytes(4, "big") + string(self._blob) + string(b"git gate")
        if kind == _SIGN_REQUEST:
            blob, rest = take_string(message[1:])
            data, rest = take_string(rest)
            flags = int.from_bytes(rest[:4], "big")
            if blob == self._blob and is_login(data, user=self._user, blob=blob):
                if self._private is not None:
                    return bytes([_SIGNATURE]) + string(sign(self._private, data, flags))
                return await self._pass_on(message)
        return bytes([_FAILURE])

    async def _pass_on(self, message: bytes) -> bytes:
        """Ask the operator's agent; whatever it says but a signature is a failure."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._agent, limit=_MAX_MESSAGE)
        except OSError:
            return bytes([_FAILURE])
        try:
            writer.write(string(message))
            answer = await _receive(reader)
        finally:
            writer.close()
        return answer if answer[:1] == bytes([_SIGNATURE]) else bytes([_FAILURE])


async def _receive(reader: asyncio.StreamReader) -> bytes:
    """Read one message, ``b""`` at the end; raises ``EOFError`` or ``ValueError``."""
    head = await reader.read(1)
    if not head:
        return b""
    length = int.from_bytes(head + await reader.readexactly(3), "big")
    if not 0 < length <= _MAX_MESSAGE:
        raise ValueError("an agent's message has an impossible length")
    return await reader.readexactly(length)
