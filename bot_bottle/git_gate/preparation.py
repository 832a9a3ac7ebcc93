"""From the manifest's remotes to the gate's, on the operator's side: keys and tokens are read here, once.

Nothing of them goes anywhere but into the sidecar's config, which crosses a pipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError
from bot_bottle.git_gate.remote import GateRemote, SshKey
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bot_bottle.manifest.model import ManifestGitRemote

_MAX_KEY_FILE = 64 * 1024


def gate_remotes(remotes: Iterable[ManifestGitRemote], env: Mapping[str, str]) -> tuple[GateRemote, ...]:
    """Resolve what a bottle declares against the operator's files and environment ``env``.

    Raises ``UsageError`` that tells of every key and token that is not there or cannot be used.
    """
    found: list[GateRemote] = []
    wrong: list[str] = []
    for remote in remotes:
        try:
            key = _ssh_key(remote, env) if remote.identity_file else None
            token = _token(remote, env) if remote.token_ref else Secret("")
        except UsageError as error:
            wrong.append(str(error))
        else:
            found.append(_gate_remote(remote, key=key, token=token))
    if wrong:
        raise UsageError("; ".join(wrong))
    return tuple(found)


def key_problem(remote: ManifestGitRemote, env: Mapping[str, str]) -> str:
    """Say why a remote's ssh key cannot be used on this machine; ``""`` where it can, or there is none."""
    try:
        if remote.identity_file:
            _ssh_key(remote, env)
    except UsageError as error:
        return str(error)
    return ""


def named_remotes(remotes: Iterable[ManifestGitRemote]) -> tuple[GateRemote, ...]:
    """Give what a bottle declares without any key or token: its names and places alone."""
    return tuple(_gate_remote(remote, key=None, token=Secret("")) for remote in remotes)


def _gate_remote(remote: ManifestGitRemote, *, key: SshKey | None, token: Secret) -> GateRemote:
    return GateRemote(
        host=remote.host,
        name=remote.name,
        scheme=remote.scheme,
        user=remote.user,
        upstream_host=remote.upstream_host,
        port=remote.port,
        path=remote.path,
        known_host_key=remote.known_host_key,
        key=key,
        token=token,
        policy=remote.push,
    )


def _token(remote: ManifestGitRemote, env: Mapping[str, str]) -> Secret:
    value = env.get(remote.token_ref, "")
    if not value:
        raise UsageError(
            f"git.remotes.{remote.host}: TokenRef {remote.token_ref} is not set in this environment; "
            f"export {remote.token_ref} and start again"
        )
    if not value.isprintable():
        raise UsageError(
            f"git.remotes.{remote.host}: TokenRef {remote.token_ref} holds a line break or the like; "
            "export the token alone"
        )
    return Secret(value)


def _ssh_key(remote: ManifestGitRemote, env: Mapping[str, str]) -> SshKey:
    from bot_bottle.git_gate.keys import KeyNotUsableError, load_private, public_line  # noqa: PLC0415 - heavy

    path = _expanded(remote.identity_file, env)
    where = f"git.remotes.{remote.host}: IdentityFile {remote.identity_file}"
    data = _read(path, where)
    try:
        key = load_private(data)
    except KeyNotUsableError as error:
        return _agent_key(path, where, str(error), env)
    return SshKey(public=public_line(key), private=Secret(data.decode("ascii", "strict")))


def _agent_key(path: Path, where: str, why: str, env: Mapping[str, str]) -> SshKey:
    """Use the operator's ssh agent for a key that cannot be used by itself."""
    from bot_bottle.git_gate.keys import KeyNotUsableError, public_blob  # noqa: PLC0415

    public = path if path.suffix == ".pub" else Path(f"{path}.pub")
    socket = env.get("SSH_AUTH_SOCK", "")
    remedy = f"load it into an ssh agent (ssh-add {path}), so that SSH_AUTH_SOCK names it"
    if not socket:
        raise UsageError(f"{where} {why}; {remedy}, or name a key without a passphrase made for this purpose")
    line = " ".join(_read(public, where).decode("utf-8", "replace").split()[:2])
    try:
        public_blob(line)
    except KeyNotUsableError:
        remedy = f"write it with: ssh-keygen -y -f {path} > {public}"
        raise UsageError(f"{where}: {public} is no public key; {remedy}") from None
    return SshKey(public=line, agent=socket)


def _read(path: Path, where: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_KEY_FILE + 1)
    except OSError as error:
        remedy = "write the path of a key"
        raise UsageError(f"{where}: {path} cannot be read ({error.strerror}); {remedy}") from error
    if len(data) > _MAX_KEY_FILE:
        raise UsageError(f"{where}: {path} is no key file; write the path of an ssh private key")
    return data


def _expanded(path: str, env: Mapping[str, str]) -> Path:
    if path.startswith("~/"):
        return Path(env.get("HOME") or Path.home()) / path[2:]
    return Path(path)
