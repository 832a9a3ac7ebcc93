"""The gate's one door to ``git``: a fixed environment, no configuration but ours, bounded in time and output.

No hook, no monitor, no helper and no file of any account is read: ``HOME`` is nowhere, the system's and the
account's configuration are switched off, and protocols are refused unless a call names the one it is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import shutil
import signal
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: Commands that answer at once, in seconds; transfers have bounds of their own.
SECONDS = 60.0
MAX_OUTPUT = 64 * 1024 * 1024
_MAX_ERROR = 64 * 1024
_BUFFER = 256 * 1024
_LINGER_SECONDS = 10.0
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=",
    "core.packedGitLimit=256m",
    "core.packedGitWindowSize=8m",
    "core.deltaBaseCacheLimit=64m",
    "core.bigFileThreshold=16m",
    "core.logAllRefUpdates=false",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "fetch.unpackLimit=1",
    "gc.auto=0",
    "http.followRedirects=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
    "maintenance.auto=false",
    "pack.threads=1",
    "pack.windowMemory=128m",
    "push.recurseSubmodules=no",
    "receive.autogc=false",
    "transfer.hideRefs=refs/bot-bottle",
    "uploadpack.allowFilter=true",
    "uploadpack.allowAnySHA1InWant=false",
    "uploadpack.allowReachableSHA1InWant=true",
    "uploadpack.keepAlive=5",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What a command is given besides its arguments: environment, settings, descriptors.

    ``url`` is the upstream's, for commands that speak to it. ``bounds`` are resource limits by their number
    (setrlimit(2)), for commands that work on what a stranger made and begin only once they are given it.
    """

    env: Mapping[str, str]
    url: str = ""
    config: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()
    bounds: Mapping[int, int] = field(default_factory=dict)


class GitError(Exception):
    """A git command failed, hung or said too much; the text is safe to show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a command did."""

    returncode: int
    stdout: bytes
    stderr: bytes


def program(name: str = "git") -> str:
    """Find a program in the system's own folders; raises :class:`GitError`."""
    found = shutil.which(name, path=_SYSTEM_PATH)
    if found is None:
        raise GitError(f"{name} is not installed beside the sidecar, and the git gate needs it")
    return found


def environment(**more: str) -> dict[str, str]:
    """Give the whole environment of a git command."""
    return {
        "PATH": _SYSTEM_PATH,
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_SYSTEM": os.devnull,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        **more,
    }


def command(git_dir: Path | None, arguments: Sequence[str], config: Sequence[str] = ()) -> list[str]:
    """Give the argv of a git command on the bare repository ``git_dir``."""
    settings = [word for setting in (*_CONFIG, *config) for word in ("-c", setting)]
    place = [] if git_dir is None else [f"--git-dir={git_dir}"]
    return [program(), *settings, *place, *arguments]


class Child:
    """A running command in a session of its own, so that all it starts can be ended with it.

    Made by :func:`start`. The standard library forks it, in C alone: the sidecar has threads that are not
    Python's, and no event loop's own way of forking is made for that.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout = asyncio.StreamReader(limit=_BUFFER)
        self.stderr = asyncio.StreamReader(limit=_BUFFER)
        self._transports: list[asyncio.BaseTransport] = []

    @property
    def pid(self) -> int:
        """Its process id, which is its session's and its group's too."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    async def attach(self) -> None:
        """Take its pipes to the running loop."""
        loop = asyncio.get_running_loop()
        process = self._process
        for pipe, reader in ((process.stdout, self.stdout), (process.stderr, self.stderr)):
            if pipe is not None:
                protocol = asyncio.StreamReaderProtocol(reader)
                transport, _ = await loop.connect_read_pipe(functools.partial(_same, protocol), pipe)
                self._transports.append(transport)
        if process.stdin is not None:
            writing, flow = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, process.stdin)
            self._transports.append(writing)
            self.stdin = asyncio.StreamWriter(writing, flow, None, loop)

    async def feed(self, data: bytes, *, last: bool = True) -> None:
        """Write to its input; a command that does not want it all is judged by its exit code."""
        if self.stdin is None:
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            self.stdin.write(data)
            await self.stdin.drain()
        if last:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self.stdin.close()

    async def wait(self) -> int:
        """Give its exit code; for one that has closed its output and so is about to end."""
        try:
            return await asyncio.to_thread(self._process.wait, _LINGER_SECONDS)
        except subprocess.TimeoutExpired:
            raise GitError("git closed its output but did not end") from None

    async def end(self) -> None:
        """End it and all it started, whatever it is doing; twice is no error."""
        for transport in self._transports:
            transport.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.poll() is None:
            await asyncio.shield(asyncio.to_thread(self._process.wait))


def _same(protocol: asyncio.StreamReaderProtocol) -> asyncio.StreamReaderProtocol:
    return protocol


async def start(
    argv: Sequence[str], *, cwd: Path, way: Way, given: bool = False, pipes: tuple[int, int] | None = None
) -> Child:
    """Start a command; with ``given`` it has an input, with ``pipes`` those two are its input and output.

    Raises :class:`GitError`.
    """
    try:
        process = subprocess.Popen(  # noqa: ASYNC220 - see Child; it returns as soon as the program is there
            list(argv),
            cwd=cwd,
            env=dict(way.env),
            pass_fds=way.fds,
            start_new_session=True,
            stdin=pipes[0] if pipes else subprocess.PIPE if given else subprocess.DEVNULL,
            stdout=pipes[1] if pipes else subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except OSError as error:
        raise GitError(f"git could not be started: {error.strerror}") from error
    child = Child(process)
    try:
        for kind, value in way.bounds.items():
            hard = resource.prlimit(process.pid, kind)[1]
            held = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.prlimit(process.pid, kind, (held, held))
        await child.attach()
    except BaseException:
        await child.end()
        raise
    return child


async def run(
    git_dir: Path | None,
    arguments: Sequence[str],
    *,
    cwd: Path,
    way: Way | None = None,
    given: bytes = b"",
    seconds: float = SECONDS,
    check: bool = True,
    max_output: int = MAX_OUTPUT,
) -> Finished:
    """Run one command to its end; without ``way`` it reaches nothing but the repository.

    Raises :class:`GitError` where it cannot be started, takes longer than ``seconds``, says more than
    ``max_output`` bytes or, with ``check``, fails.
    """
    way = way or Way(env=environment())
    child = await start(command(git_dir, arguments, way.config), cwd=cwd, way=way, given=bool(given))
    try:
        async with asyncio.timeout(seconds):
            # Where one fails, the end of the command lets the others end too.
            out, err, _ = await asyncio.gather(
                _read(child.stdout, max_output), read_words(child.stderr), child.feed(given)
            )
            code = await child.wait()
    except TimeoutError:
        raise GitError(f"git {arguments[0]} took longer than {seconds:.0f} s") from None
    finally:
        await child.end()
    if check and code != 0:
        raise GitError(last_words(err, f"git {arguments[0]} ended with {code}"))
    return Finished(returncode=code, stdout=out, stderr=err)


class Placed(Protocol):
    """A bare repository of ours: ``path`` is where it is, ``folder`` where its commands run."""

    @property
    def folder(self) -> Path: ...  # noqa: D102

    @property
    def path(self) -> Path: ...  # noqa: D102


class LocalGit:
    """Gives a class that is :class:`Placed` its git commands."""

    __slots__ = ()

    async def git(
        self: Placed,
        *arguments: str,
        given: bytes = b"",
        check: bool = True,
        seconds: float = SECONDS,
        way: Way | None = None,
    ) -> Finished:
        """Run a local git command on ``path``; raises :class:`GitError`."""
        return await run(
            self.path, arguments, cwd=self.folder, way=way, given=given, check=check, seconds=seconds
        )


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while data := await stream.read(_BUFFER):
        size += len(data)
        if size > limit:
            raise GitError("git said more than can be held")
        parts.append(data)
    return b"".join(parts)


async def read_words(stream: asyncio.StreamReader) -> bytes:
    """Read an error stream to its end and keep its last 64 KiB."""
    kept = b""
    while data := await stream.read(_BUFFER):
        kept = (kept + data)[-_MAX_ERROR:]
    return kept


#: What git says besides the reason: progress, advice, and its general sentence about failed connections.
_NO_REASON = (
    "hint:",
    "warning:",
    "Receiving",
    "remote: Count",
    "fatal: Could not read from remote repository",
    "Please make sure you have the correct access rights",
    "and the repository exists",
    "fatal: the remote end hung up",
    "error: failed to push some refs",
)


def last_words(stderr: bytes, fallback: str) -> str:
    """Give what an error stream ends with, one printable line, without what is no reason."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").replace("\r", "\n").splitlines()]
    said = [line for line in lines if line and not line.startswith(_NO_REASON)]
    text = "; ".join(said[-3:]) if said else fallback
    return "".join(char if char.isprintable() else "?" for char in text)[:600]
