"""A real sshd on loopback with keys made for the occasion, and a client that knows it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYSTEM_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
#: Where sshd's unprivileged half is locked up; systemd makes it, and a machine without has none.
_PRIVSEP = Path("/run/sshd")


class NoSshError(Exception):
    """This machine cannot run an ssh server for tests; the text says why."""


def ssh_server_command(
    folder: Path, env: dict[str, str], port: int, *, address: str = "127.0.0.1"
) -> list[str]:
    """Write what sshd needs to serve on ``port`` of ``address`` and give the command that runs it.

    Raises ``NoSshError``.
    """
    programs = [shutil.which(name, path=_SYSTEM_PATH) for name in ("sshd", "ssh", "ssh-keygen")]
    if None in programs:
        raise NoSshError("sshd, ssh and ssh-keygen are needed; install them with: apt install openssh-server")
    sshd, ssh, keygen = (str(program) for program in programs)
    if os.getuid() != 0:
        raise NoSshError("only root can start an ssh server that knows its accounts")
    folder.chmod(0o755)
    for name in ("host", "user"):
        command = [keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    settings = {
        "ListenAddress": f"{address}:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "StrictModes": "no",
        "PidFile": "none",
        "UsePAM": "no",
        "PermitRootLogin": "yes",
        "PasswordAuthentication": "no",
        "SetEnv": " ".join(f"{name}={value}" for name, value in env.items()),
    }
    config = folder / "sshd_config"
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    _write_client(folder, ssh, port)
    return [sshd, "-D", "-e", "-f", str(config)]


def make_privsep() -> bool:
    """Make the folder that sshd needs; tells whether it was not there."""
    try:
        _PRIVSEP.mkdir(mode=0o755)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def ssh_server(folder: Path, env: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Run sshd for this account; gives ``USER@ADDRESS:PORT`` and a folder whose ``ssh`` knows the way.

    ``env`` is set in every session there. Raises ``NoSshError``.
    """
    port = _free_port()
    command = ssh_server_command(folder, env, port)
    made = make_privsep()
    # A file and no pipe: nobody would read one, and a server whose log is full answers nobody any more.
    log = folder / "sshd.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
    try:
        while "listening on" not in log.read_text():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
                raise NoSshError(f"sshd does not come up here: {log.read_text()}")
        yield f"{getpass.getuser()}@127.0.0.1:{port}", folder / "bin"
    finally:
        process.terminate()
        process.wait()
        if made:
            _PRIVSEP.rmdir()


def _write_client(folder: Path, ssh: str, port: int) -> None:
    """Write an ``ssh`` that reads nothing of the operator's: it takes its home from the account, not HOME."""
    key = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {key[0]} {key[1]}\n")
    config = folder / "ssh_config"
    config.write_text(
        f"IdentityFile {folder / 'user'}\nIdentitiesOnly yes\nStrictHostKeyChecking yes\n"
        f"UserKnownHostsFile {folder / 'known_hosts'}\nGlobalKnownHostsFile /dev/null\n"
    )
    program = folder / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {ssh} -F {config} "$@"\n')
    program.chmod(0o755)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
