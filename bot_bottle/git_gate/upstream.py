"""How ``git`` is led to one upstream: its URL, its credential, and nothing of the operator's account.

ssh: the pinned host key alone, the gate's own agent alone, no configuration, no forwarding, no question.
https: the token goes down a pipe that a credential helper reads once it is asked for; no argument, no file
and no variable holds it, and no redirect is followed with it. Where the operator's network has a proxy, both
are led through it by a relay of the gate's own, and know nothing of it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shlex
import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from bot_bottle.files import write_atomic
from bot_bottle.git_gate.agent import KeyAgent
from bot_bottle.git_gate.git import Way, environment, program
from bot_bottle.git_gate.relay import Relay
from bot_bottle.git_gate.remote import bracketed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.egress.roads import Roads
    from bot_bottle.git_gate.remote import GateRemote
    from bot_bottle.sidecar.config import Pin

#: Who HTTP's password belongs to where only the password counts; forges take any name, GitHub Apps this one.
_CONNECT_SECONDS = 20
_PORTS = {"https": 443, "ssh": 22}


class Upstream:
    """One upstream. :meth:`open` before the first use, :meth:`close` after the last."""

    def __init__(
        self,
        remote: GateRemote,
        *,
        folder: Path,
        number: int,
        pin: Pin | None,
        ca_pem: str,
        roads: Roads | None = None,
    ) -> None:
        """``folder`` is private to the sidecar; ``number`` tells this remote's files there from others'.

        ``roads`` are what it is reached by where git is not to dial it itself.

        Raises ``KeyNotUsableError`` for a key that does not load.
        """
        self.remote = remote
        self._folder, self._number, self._pin, self._ca_pem = folder, number, pin, ca_pem
        self._agent = (
            KeyAgent(remote.key, user=remote.user, folder=folder, name=f"agent-{number}")
            if remote.scheme == "ssh" and remote.key is not None
            else None
        )
        self._relay = (
            Relay(
                roads,
                remote.upstream_host,
                remote.port or _PORTS[remote.scheme],
                asked=remote.scheme == "https",
            )
            if roads is not None
            else None
        )

    async def open(self) -> None:
        """Write what ``ssh`` reads (public things only), start agent and relay; raises ``OSError``."""
        remote = self.remote
        if self._relay is not None:
            await self._relay.open()
        if remote.scheme == "https":
            if self._ca_pem:
                write_atomic(self._ca_bundle, _system_roots() + self._ca_pem.encode(), mode=0o600)
            return
        known = f"{self._alias} {remote.known_host_key}\n" if remote.known_host_key else ""
        write_atomic(self._folder / f"known-{self._number}", known.encode(), mode=0o600)
        if remote.key is not None and self._agent is not None:
            write_atomic(
                self._folder / f"key-{self._number}.pub", f"{remote.key.public}\n".encode(), mode=0o600
            )
            await self._agent.open()

    def close(self) -> None:
        """Stop the agent and the relay."""
        if self._agent is not None:
            self._agent.close()
        if self._relay is not None:
            self._relay.close()

    @property
    def failure(self) -> str:
        """Why the road of the last command led nowhere, where it is not git that can say so."""
        return self._relay.failure if self._relay is not None else ""

    @contextlib.contextmanager
    def access(self) -> Iterator[Way]:
        """Lend what one git command needs."""
        if self._relay is not None:
            self._relay.failure = ""
        if self.remote.scheme == "ssh":
            env = environment(GIT_ALLOW_PROTOCOL="ssh", GIT_SSH_COMMAND=self._ssh(), GIT_SSH_VARIANT="ssh")
            yield Way(url=self._url(), env=env, config=(), fds=())
            return
        env = environment(GIT_ALLOW_PROTOCOL="https")
        if self._ca_pem:
            env["GIT_SSL_CAINFO"] = str(self._ca_bundle)
        elif os.environ.get("SSL_CERT_FILE"):
            env["GIT_SSL_CAINFO"] = os.environ["SSL_CERT_FILE"]
        config: list[str] = []
        if self._relay is not None:
            config.append(f"http.proxy=http://127.0.0.1:{self._relay.port}")
        elif self._pin is not None:
            port = self._pin.port or self.remote.port or 443
            config.append(
                f"http.curloptResolve={self.remote.upstream_host}:{port}:{bracketed(self._pin.address)}"
            )
        if not self.remote.token:
            yield Way(url=self._url(), env=env, config=tuple(config), fds=())
            return
        with _pipe_with(
            f"username={self.remote.token_user}\npassword={self.remote.token.reveal()}\n".encode()
        ) as fd:
            config.append(f'credential.helper=!f() {{ test "$1" = get && cat /dev/fd/{fd}; }}; f')
            yield Way(url=self._url(), env=env, config=tuple(config), fds=(fd,))

    def receiver(self) -> list[str] | None:
        """Give the command that asks the upstream to take a push on its pipes, as git would; None over https.

        None too for a key in the operator's own agent: a human may be asked for each use of it, and is so for
        what was accepted only.
        What is asked on the far side is what ``git push`` asks for (gitprotocol-pack(5), "SSH Transport").
        """
        remote, port = self.remote, self._port()
        if remote.scheme != "ssh" or (remote.key is not None and remote.key.agent):
            return None
        path = remote.path[1:] if remote.path.startswith("/~") else remote.path
        place = f"{remote.user}@{remote.upstream_host}" if remote.user else remote.upstream_host
        options = ["-p", str(port)] if port else []
        return [*shlex.split(self._ssh()), *options, "--", place, f"git-receive-pack {_quoted(path)}"]

    def redacted(self, text: str) -> str:
        """Take the token out of what the upstream said: it may repeat what it was sent."""
        token = self.remote.token.reveal()
        if not token:
            return text
        sent = base64.b64encode(f"{self.remote.token_user}:{token}".encode()).decode()
        for form in (token, sent, quote(token, safe="")):
            text = text.replace(form, "[redacted]")
        return text

    @property
    def _alias(self) -> str:
        return f"gate-{self._number}"

    @property
    def _ca_bundle(self) -> Path:
        return self._folder / "roots.pem"

    def _url(self) -> str:
        remote, port = self.remote, self._port()
        user = f"{remote.user}@" if remote.user else ""
        place = bracketed(remote.upstream_host) + (f":{port}" if port else "")
        return f"{remote.scheme}://{user}{place}{remote.path}"

    def _port(self) -> int | None:
        if self._relay is not None and self.remote.scheme == "ssh":
            return self._relay.port
        return (self._pin.port if self._pin else None) or self.remote.port

    def _ssh(self) -> str:
        """Give the command; every word is ours or of plain characters, since a shell reads it.

        File names are relative: git runs it in the gate's folder, and options of ssh split at spaces.
        """
        options = {
            "BatchMode": "yes",
            "CheckHostIP": "no",
            "ClearAllForwardings": "yes",
            "ConnectTimeout": str(_CONNECT_SECONDS),
            "ControlMaster": "no",
            "ControlPath": "none",
            "ForwardAgent": "no",
            "GlobalKnownHostsFile": "/dev/null",
            "HostKeyAlias": self._alias,
            "IdentitiesOnly": "yes",
            "IdentityAgent": f"agent-{self._number}" if self._agent else "none",
            "IdentityFile": f"key-{self._number}.pub" if self._agent else "none",
            "KbdInteractiveAuthentication": "no",
            "LogLevel": "ERROR",
            "PasswordAuthentication": "no",
            "PermitLocalCommand": "no",
            "PreferredAuthentications": "publickey",
            "ProxyCommand": "none",
            "ServerAliveCountMax": "4",
            "ServerAliveInterval": "15",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "UserKnownHostsFile": f"known-{self._number}",
        }
        if self._relay is not None:
            options["HostName"] = "127.0.0.1"
        elif self._pin is not None:
            options["HostName"] = self._pin.address
        return " ".join(
            [program("ssh"), "-F", "/dev/null", *(f"-o {key}={value}" for key, value in options.items())]
        )


@contextlib.contextmanager
def _pipe_with(data: bytes) -> Iterator[int]:
    """Give a descriptor to read ``data`` (at most a pipe's 64 KiB) from, once."""
    read_fd, write_fd = os.pipe()
    try:
        os.set_blocking(write_fd, False)
        os.write(write_fd, data)
        os.close(write_fd)
        write_fd = -1
        yield read_fd
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)


def _quoted(path: str) -> str:
    """Quote as git does for the shell on the far side (``sq_quote_buf``)."""
    return "'" + path.replace("'", "'\\''").replace("!", "'\\!'") + "'"


def _system_roots() -> bytes:
    paths = ssl.get_default_verify_paths()
    for place in (paths.cafile, "/etc/ssl/certs/ca-certificates.crt"):
        with contextlib.suppress(OSError):
            if place:
                return Path(place).read_bytes() + b"\n"
    return b""
