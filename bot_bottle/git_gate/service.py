"""The gate's service: smart HTTP (gitprotocol-http(5)), every fetch through the upstream first.

Reading is git's own ``upload-pack`` on the mirror, protocol version 2 included. Pushing is
:mod:`~bot_bottle.git_gate.push`. Nothing else is served: no plain files, no LFS transfer.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from bot_bottle.decision import Deny
from bot_bottle.egress.denial import denial_headers
from bot_bottle.git_gate import git
from bot_bottle.git_gate.git import GitError
from bot_bottle.git_gate.http import IDLE_SECONDS, HttpError, Request, Response, read_request
from bot_bottle.git_gate.keys import KeyNotUsableError
from bot_bottle.git_gate.mirror import FRESH_SECONDS, Mirror, UpstreamError
from bot_bottle.git_gate.pktline import FLUSH, packet
from bot_bottle.git_gate.push import CAPABILITIES, Push, Pushes
from bot_bottle.git_gate.quarantine import remove_leftovers
from bot_bottle.git_gate.report import denial_lines, one_line
from bot_bottle.git_gate.spellings import Places, elsewhere
from bot_bottle.git_gate.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bot_bottle.audit import AuditLog, AuditValue
    from bot_bottle.egress.roads import Roads
    from bot_bottle.git_gate.push import Human
    from bot_bottle.git_gate.remote import GateConfig, GateRemote
    from bot_bottle.git_gate.scanning import ContentScanner
    from bot_bottle.sidecar.config import Pin

MAX_CONNECTIONS = 64
#: Each serves one clone or fetch; more wait.
MAX_READERS = 8
_READ_SECONDS = 3600.0
_MAX_WANTS = 32 * 1024 * 1024
_PIECE = 64 * 1024
_PROTOCOL = re.compile(r"[a-z0-9=:.-]{1,64}")
_SERVICES = ("git-upload-pack", "git-receive-pack")
_AGENT = "bot-bottle-git-gate"


class GitGate:
    """Everything one bottle's gate shares; made and used on one event loop."""

    def __init__(
        self,
        config: GateConfig | None,
        *,
        audit: AuditLog,
        scanner: Callable[[], ContentScanner],
        pins: Mapping[str, Pin] | None = None,
        upstream_ca_pem: str = "",
        roads: Callable[[str], Roads | None] = lambda _host: None,
        human: Human | None = None,
    ) -> None:
        """Load the keys; nothing is asked or written yet. ``scanner`` is called in a thread, at a push.

        ``human`` may open more than the remotes' policies do, and is asked at each push. ``roads`` says what
        a host is reached by where git is not to dial it itself.

        Raises ``KeyNotUsableError``. Without ``config`` every request is told that there are no remotes.
        """
        self._audit = audit
        self._folder = Path(config.folder) if config else None
        remotes = config.remotes if config else ()
        self._places = Places(remotes)
        self._mirrors: dict[str, Mirror] = {}
        for number, remote in enumerate(remotes):
            folder = Path(config.folder) if config else Path()
            pin = (pins or {}).get(remote.upstream_host)
            upstream = Upstream(
                remote,
                folder=folder,
                number=number,
                pin=pin,
                ca_pem=upstream_ca_pem,
                roads=roads(remote.upstream_host),
            )
            self._mirrors[remote.host] = Mirror(upstream, folder=folder, number=number)
        self._pushes = Pushes(audit=audit, scanner=scanner, human=human)
        self._readers = asyncio.Semaphore(MAX_READERS)
        self._opening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._halt: Deny | None = None

    def scan_with(self, scanner: Callable[[], ContentScanner]) -> None:
        """Scan pushes from now on with another scanner, made as the first one."""
        self._pushes.scan_with(scanner)

    def halt(self, deny: Deny | None) -> None:
        """Refuse everything in ``deny``'s words and end what is under way; ``None`` opens the gate again."""
        self._halt = deny
        if deny is not None:
            for task in tuple(self._tasks):
                task.cancel()

    def protocol(self) -> asyncio.Protocol:
        """Give what serves one connection."""
        reader = asyncio.StreamReader(limit=32 * 1024)
        return asyncio.StreamReaderProtocol(reader, self._accept)

    def close(self) -> None:
        """Drop every connection and end what works for it, as far as the loop still runs."""
        for task in tuple(self._tasks):
            task.cancel()
        for mirror in self._mirrors.values():
            mirror.upstream.close()

    async def aclose(self) -> None:
        """As :meth:`close`, and wait until nothing of it is left."""
        tasks = tuple(self._tasks)
        self.close()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        response = Response(writer)
        try:
            if len(self._tasks) > MAX_CONNECTIONS:
                raise HttpError(503, "the git gate serves too many connections; try again")
            request = await read_request(reader, writer)
            if request is not None:
                await self._answer(request, response)
        except HttpError as error:
            with contextlib.suppress(OSError, TimeoutError):
                await _refuse(response, error.status, _protocol_denial(str(error)))
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError):
            # The client is gone or takes nothing, or what it says is no HTTP; there is nobody to tell.
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            await _close(writer)

    async def _answer(self, request: Request, response: Response) -> None:
        path, service = _split(request)
        if self._halt is not None:
            await self._refuse_halted(self._halt, response)
            return
        remote = self._places.find(path)
        if remote is None:
            await self._no_such(request, response, path)
            return
        if service not in _SERVICES:
            raise HttpError(501 if "/info/lfs" in request.path else 404, _WHAT_IS_SERVED)
        mirror = self._mirrors[remote.host]
        try:
            await self._open()
            if request.method == "GET":
                await self._advertise(mirror, service, request, response)
            elif request.headers.get("content-type") != f"application/x-{service}-request":
                raise HttpError(415, f"the content of this request is no {service} request")
            elif service == "git-upload-pack":
                await self._upload_pack(mirror, request, response)
            else:
                await Push(self._pushes, mirror, request.body, response).run()
        except (UpstreamError, GitError) as error:
            deny = _unreachable(remote, str(error))
            self._record(
                "git_fetch", remote, decision="error", reason=deny.reason, message=one_line(str(error))
            )
            if response.begun:
                raise ConnectionError from None
            if request.method == "GET":
                await _refuse(response, 502, deny)
            else:
                data = packet(f"ERR {one_line(str(error))}".encode())
                await response.whole(200, f"application/x-{service}-result", data)

    async def _open(self) -> None:
        """Make the private folder and start the agents, once; raises ``GitError``."""
        if self._opening is None:
            self._opening = asyncio.get_running_loop().create_task(self._open_all())
        try:
            await asyncio.shield(self._opening)
        except OSError as error:
            self._opening = None
            raise GitError(f"the gate's own folder cannot be used: {error.strerror}") from error

    async def _open_all(self) -> None:
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            await asyncio.to_thread(remove_leftovers, self._folder)
        for mirror in self._mirrors.values():
            await mirror.upstream.open()

    # Reading.

    async def _advertise(self, mirror: Mirror, service: str, request: Request, response: Response) -> None:
        # A push is held against the upstream itself once more, so what was heard just now is good enough.
        await mirror.freshen(within=FRESH_SECONDS if service == "git-receive-pack" else 0.0)
        version = request.headers.get("git-protocol", "")
        if service == "git-receive-pack":
            self._pushes.warm()
            data = await _receive_pack_refs(mirror)
        else:
            self._record("git_fetch", mirror.upstream.remote, decision="allow", reason="", message="")
            done = await git.run(
                mirror.path,
                ["upload-pack", "--stateless-rpc", "--advertise-refs", str(mirror.path)],
                cwd=mirror.folder,
                way=git.Way(env=_version_environment(version)),
            )
            data = done.stdout
            if "version=2" not in version.split(":"):
                data = packet(b"# service=git-upload-pack\n") + FLUSH + data
        await response.whole(200, f"application/x-{service}-advertisement", data)

    async def _upload_pack(self, mirror: Mirror, request: Request, response: Response) -> None:
        await mirror.freshen(within=FRESH_SECONDS)
        way = git.Way(env=_version_environment(request.headers.get("git-protocol", "")))
        argv = git.command(mirror.path, ["upload-pack", "--stateless-rpc", str(mirror.path)])
        async with self._readers, asyncio.timeout(_READ_SECONDS):
            child = await git.start(argv, cwd=mirror.folder, way=way, given=True)
            try:
                await response.begin("application/x-git-upload-pack-result")
                await asyncio.gather(
                    _give_wants(request, child), _give_answer(child, response), git.read_words(child.stderr)
                )
                if await child.wait() != 0:
                    raise ConnectionError  # cut short, so that git does not take it for whole
                await response.finish()
            finally:
                await child.end()

    # What is not there, or not now.

    async def _refuse_halted(self, deny: Deny, response: Response) -> None:
        with contextlib.suppress(OSError):  # refused whether or not that is on record
            self._audit.append(
                "git_fetch", decision="deny", reason=deny.reason, rule=deny.rule, message=deny.message
            )
        await _refuse(response, 403, deny)

    async def _no_such(self, request: Request, response: Response, path: str) -> None:
        home = elsewhere(path)
        if home is not None and request.method == "GET":
            tail = request.path[len(path) :] + (f"?{request.query}" if request.query else "")
            await response.whole(307, "text/plain", b"", ("Location", home + tail))
            return
        names = ", ".join(sorted(mirror.upstream.remote.name for mirror in self._mirrors.values()))
        deny = Deny(
            reason="no_such_remote",
            rule="git.remotes",
            message=f"this bottle declares no git remote for {one_line(path)}",
            next_step=f"Use one it declares: {names}"
            if names
            else "The operator can declare one as git.remotes",
        )
        try:
            self._audit.append(
                "git_fetch", decision="deny", reason=deny.reason, rule=deny.rule, message=deny.message
            )
        finally:
            await _refuse(response, 404, deny)

    def _record(self, event: str, remote: GateRemote, **fields: AuditValue) -> None:
        """Put a decision on record; raises ``GitError``, since what cannot be recorded is refused."""
        try:
            self._audit.append(event, remote=remote.name, rule=remote.place, **fields)
        except OSError as error:
            raise GitError("the decision cannot be put on record, so the gate is closed") from error


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close a connection once what was written is on its way, for which its client has a while."""
    writer.close()
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            await writer.wait_closed()
    except OSError:
        pass
    finally:
        writer.transport.abort()


_WHAT_IS_SERVED = (
    "the git gate serves clone, fetch and push over smart HTTP, and nothing else (no LFS objects)"
)


def _split(request: Request) -> tuple[str, str]:
    """Take a request's path apart: the repository's place, and the service asked for (``""`` for none)."""
    if request.method == "GET" and request.path.endswith("/info/refs"):
        fields = dict(parse_qsl(request.query, max_num_fields=8))
        return request.path.removesuffix("/info/refs"), fields.get("service", "")
    for service in _SERVICES:
        if request.path.endswith(f"/{service}") and request.method == "POST":
            return request.path.removesuffix(f"/{service}"), service
    return request.path.partition("/info/")[0], ""


async def _receive_pack_refs(mirror: Mirror) -> bytes:
    refs = await mirror.refs()
    object_format = "sha256" if mirror.oid_length == 64 else "sha1"
    capabilities = f"{CAPABILITIES} object-format={object_format} agent={_AGENT}".encode()
    lines = [f"{oid} {name}".encode("utf-8", "surrogateescape") for name, oid in sorted(refs.items())]
    lines = lines or [b"0" * mirror.oid_length + b" capabilities^{}"]
    lines[0] += b"\0" + capabilities
    body = b"".join(packet(line + b"\n") for line in lines)
    return packet(b"# service=git-receive-pack\n") + FLUSH + body + FLUSH


async def _give_wants(request: Request, child: git.Child) -> None:
    while piece := await request.body.read():
        if request.body.received > _MAX_WANTS:
            raise HttpError(413, "the request asks for too much at once")
        await child.feed(piece, last=False)
    await child.feed(b"")


async def _give_answer(child: git.Child, response: Response) -> None:
    while piece := await child.stdout.read(_PIECE):
        await response.send(piece)


def _version_environment(version: str) -> dict[str, str]:
    if not _PROTOCOL.fullmatch(version):
        return git.environment()
    return git.environment(GIT_PROTOCOL=version)


async def _refuse(response: Response, status: int, deny: Deny) -> None:
    """Answer in plain text, which git shows after ``remote:`` (as gitprotocol-http(5) clients do)."""
    if response.begun:
        return
    text = "".join(f"{one_line(line)}\n" for line in denial_lines(deny))
    await response.whole(status, "text/plain; charset=utf-8", text.encode(), *denial_headers(deny))


def _protocol_denial(message: str) -> Deny:
    return Deny(reason="not_served", rule="git_gate.http", message=message, next_step="Use git itself")


def _unreachable(remote: GateRemote, message: str) -> Deny:
    return Deny(
        reason="upstream_unavailable",
        rule=remote.place,
        message=message,
        next_step="Try again later, or tell the operator",
    )


__all__ = ["GitGate", "KeyNotUsableError"]
