"""Git upstreams as a bottle declares them: two URL forms, each part spelled one way, and pinned host keys."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Literal

from bot_bottle.manifest.hosts import parse_remote_host

#: Only what reads the same in a URL, a shell-quoted ssh command and a folder name.
_UPSTREAM = re.compile(
    r"(?P<scheme>ssh|https)://(?:(?P<user>[^@/]*)@)?(?P<host>\[[^\]/]*\]|[^:/@\[\]]*)(?::(?P<port>[^/]*))?(?P<path>/.*)?"
)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_PATH = re.compile(r"/[A-Za-z0-9._~+@-]+(/[A-Za-z0-9._~+@-]+)*/?")
_SCP_FORM = re.compile(r"(?P<user>[A-Za-z0-9._-]+)@(?P<host>[A-Za-z0-9.-]+):(?P<path>[^/].*)")

#: OpenSSH's host key algorithms (RFC 4253, 5656, 8709; PROTOCOL.u2f).
_KEY_TYPES = frozenset(
    {
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "ssh-rsa",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One upstream taken apart; ``user`` is ``""`` for https, ``port`` None where none was written."""

    scheme: Literal["ssh", "https"]
    user: str
    host: str
    port: int | None
    path: str


def parse_upstream(text: str) -> Upstream:
    """Read ``ssh://user@host[:port]/path`` or ``https://host[:port]/path``; raises ``ValueError``.

    What was written is not repeated: an https URL may hold a credential.
    """
    match = _UPSTREAM.fullmatch(text)
    if match is None:
        scp = _SCP_FORM.fullmatch(text)
        if scp:
            raise ValueError(f"is in scp form; write ssh://{scp['user']}@{scp['host']}/{scp['path']}")
        raise ValueError("is no upstream; write ssh://user@host/path.git or https://host/path.git")
    user = match["user"]
    if match["scheme"] == "https" and user is not None:
        raise ValueError("holds a user part; a credential never stands in a URL, write https://host/path.git")
    if match["scheme"] == "ssh" and not _USER.fullmatch(user or ""):
        raise ValueError("names no user; write ssh://user@host/path.git, most often with the user git")
    try:
        host = parse_remote_host(match["host"].strip("[]"))
    except ValueError as error:
        raise ValueError(f"has a host that {error}") from error
    port = match["port"]
    if port is not None and not (re.fullmatch(r"[1-9][0-9]{0,4}", port) and int(port) <= 65535):
        raise ValueError("has no usable port; write a number from 1 to 65535 after the host, or none")
    path = match["path"] or ""
    if not _PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
        raise ValueError("has no plain path after its host; write for example /me/project.git")
    scheme: Literal["ssh", "https"] = "ssh" if match["scheme"] == "ssh" else "https"
    return Upstream(scheme=scheme, user=user or "", host=host, port=int(port) if port else None, path=path)


def upstream_text(text: str) -> str:
    """Accept what :func:`parse_upstream` reads, as it is written."""
    parse_upstream(text)
    return text


def known_host_key(text: str) -> str:
    """Accept a public host key as in ``known_hosts``, without the host: ``type base64``.

    The type is also written inside the key (RFC 4253, 6.6) and must agree. Raises ``ValueError``.
    """
    parts = text.split()
    if len(parts) < 2 or parts[0] not in _KEY_TYPES:
        raise ValueError("is no host key; write its type and base64, such as ssh-ed25519 AAAA...")
    try:
        blob = base64.b64decode(parts[1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("has no base64 after its type; copy the key from known_hosts again") from error
    name = parts[0].encode()
    if not blob.startswith(len(name).to_bytes(4, "big") + name) or len(blob) < len(name) + 4 + 32:
        raise ValueError("is cut short or not of the type it names; copy the key from known_hosts again")
    return f"{parts[0]} {parts[1]}"
