"""Every way to write an upstream, led to the gate by ``url.<gate>.insteadOf`` (git-config(1)).

``insteadOf`` compares beginnings. So a spelling without ``.git`` also catches the repository next door whose
name only begins the same; the gate's own address therefore repeats what was written
(``/at/https/HOST/PATH``), and what the gate does not know there it sends back to where it was meant to go,
which egress then decides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from bot_bottle.git_gate.remote import bracketed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bot_bottle.git_gate.remote import GateRemote

_DEFAULT_PORTS = {"ssh": 22, "https": 443, "http": 80, "git": 9418}
_SSH_SCHEMES = ("ssh", "git+ssh", "ssh+git")
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9._~+@/-]*")
_AT = re.compile(r"/at/(?P<scheme>ssh|https|http|git)/(?P<authority>[^/]+)(?P<path>/.*)")


def spellings(remote: GateRemote) -> Iterator[tuple[str, str]]:
    """Give (what may be written, its place at the gate), each without a final ``.git`` or slash."""
    path = _bare(remote.path)
    host = bracketed(remote.upstream_host)
    ports = {"ssh": remote.port if remote.scheme == "ssh" else None}
    ports["https"] = remote.port if remote.scheme == "https" else None
    user = remote.user or "git"
    ssh_port = ports["ssh"]
    for scheme in _SSH_SCHEMES:
        for who in (f"{user}@", ""):
            for port in _port_texts("ssh", ssh_port):
                yield f"{scheme}://{who}{host}{port}{path}", f"/at/ssh/{host}{path}"
    if ssh_port in {None, 22}:
        for who in (f"{user}@", ""):
            for rooted in (path, path.removeprefix("/")):
                yield f"{who}{host}:{rooted}", f"/at/ssh/{host}{path}"
    for port in _port_texts("https", ports["https"]):
        for who in ("", f"{user}@", "git@" if user != "git" else ""):
            yield f"https://{who}{host}{port}{path}", f"/at/https/{host}{port}{path}"
    if ports["https"] is None:
        yield f"http://{host}{path}", f"/at/http/{host}{path}"
        yield f"git://{host}{path}", f"/at/git/{host}{path}"


def _port_texts(scheme: str, port: int | None) -> tuple[str, ...]:
    default = _DEFAULT_PORTS[scheme]
    if port is None or port == default:
        return ("", f":{default}")
    return (f":{port}",)


def gitconfig(remotes: Iterable[GateRemote], gate: str) -> bytes:
    """Write the ``[url]`` sections for ``gate`` (``http://ADDRESS:PORT``); deterministic, each line once."""
    lines: list[str] = []
    seen: set[str] = set()
    for remote in remotes:
        sections: dict[str, list[str]] = {}
        for written, place in spellings(remote):
            if written not in seen:
                seen.add(written)
                sections.setdefault(gate + place, []).append(written)
        for base, written_ones in sections.items():
            lines.append(f'[url "{base}"]')
            lines += [f"\tinsteadOf = {written}" for written in written_ones]
    return "".join(f"{line}\n" for line in lines).encode("ascii")


class Places:
    """Which remote a path at the gate stands for."""

    __slots__ = ("_by_path",)

    def __init__(self, remotes: Sequence[GateRemote]) -> None:
        self._by_path: dict[str, GateRemote] = {}
        for remote in remotes:
            self._by_path[f"/{remote.name}"] = remote
            for _written, place in spellings(remote):
                self._by_path.setdefault(place, remote)

    def find(self, path: str) -> GateRemote | None:
        """Give the remote, or ``None``; ``path`` is as it came, without ``/info/refs`` and the like."""
        return self._by_path.get(_bare(unquote(path)))


def elsewhere(path: str) -> str | None:
    """Give the URL that a path of no remote was written as, ``None`` where egress could not fetch it."""
    match = _AT.fullmatch(path)
    if match is None or match["scheme"] not in {"https", "http"} or not _PLAIN_PATH.fullmatch(match["path"]):
        return None
    if not re.fullmatch(
        r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-f:.]+\](?::[0-9]{1,5})?", match["authority"]
    ):
        return None
    return f"{match['scheme']}://{match['authority']}{match['path']}"


def is_spelling(remotes: Iterable[GateRemote], url: str) -> bool:
    """Tell a URL that a bottle's git finds led to the gate."""
    return any(_bare(url) == written for remote in remotes for written, _place in spellings(remote))


def _bare(path: str) -> str:
    return path.rstrip("/").removesuffix(".git")
