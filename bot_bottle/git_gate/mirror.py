"""The gate's bare mirror of one upstream: never ahead of it, and never served without having asked it first.

Refs outside ``refs/heads``, ``refs/tags`` and ``refs/notes`` (a forge's pull requests) are not mirrored.
What a push replaced is kept below ``refs/bot-bottle/backup``, which no client is told of
(who knows an object's id can fetch it: git hides refs, not objects).
"""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.git_gate import git
from bot_bottle.git_gate.commands import is_ref_name
from bot_bottle.git_gate.git import GitError
from bot_bottle.git_gate.report import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bot_bottle.git_gate.upstream import Upstream

MIRRORED = ("refs/heads/", "refs/tags/", "refs/notes/")
BACKUP = "refs/bot-bottle/backup"
_LIST_SECONDS = 60.0
_FETCH_SECONDS = 1800.0
#: How long what the upstream said holds for the further requests of one git command, in seconds.
FRESH_SECONDS = 20.0
#: What ssh says of a server with another host key than the one it is to have.
_OTHER_KEY = re.compile(
    r"Host key verification failed|Host key for \S+ has changed|HOST IDENTIFICATION HAS CHANGED"
)
_UNKNOWN_DEFAULTS = frozenset({"main", "master"})


class UpstreamError(Exception):
    """The upstream could not be asked; the text is for the agent and says so in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What the upstream has: its refs, and the branch its HEAD names (``""`` where it does not tell)."""

    refs: Mapping[str, str]
    head: str


class Mirror(git.LocalGit):
    """One mirror. ``lock`` is held by whoever changes it; clients read beside that."""

    def __init__(self, upstream: Upstream, *, folder: Path, number: int) -> None:
        self.upstream = upstream
        self.folder = folder
        self.path = folder / f"mirror-{number}.git"
        self.lock = asyncio.Lock()
        self.oid_length = 40
        self._head = ""
        self._asked_at = float("-inf")
        self._refs: Mapping[str, str] | None = None
        self._moves = 0

    @property
    def default_branches(self) -> frozenset[str]:
        """The upstream's default branch, or the usual names where it has not told."""
        return frozenset({self._head}) if self._head else _UNKNOWN_DEFAULTS

    async def freshen(self, *, within: float = 0.0) -> None:
        """Bring the mirror up to the upstream, unless that was begun less than ``within`` seconds ago.

        Those who wait for one update share it. Raises :class:`UpstreamError` with the mirror as it was.
        """
        came = asyncio.get_running_loop().time()
        async with self.lock:
            if self._asked_at >= came - within:
                return
            await self.update()

    def doubt(self) -> None:
        """Forget when the upstream was asked, after it was found to be otherwise."""
        self._asked_at = float("-inf")
        self._forget()

    async def move(self, lines: str) -> None:
        """Change refs (``git update-ref --stdin``), all or none; the caller holds the lock."""
        try:
            await self.git("update-ref", "--stdin", given=lines.encode())
        finally:
            self._forget()

    def _forget(self) -> None:
        """Have refs read anew, by those too that are reading them just now."""
        self._moves += 1
        self._refs = None

    async def update(self) -> None:
        """Ask the upstream and take over what it has; the caller holds the lock. Raises as above."""
        began = asyncio.get_running_loop().time()
        remote = self.upstream.remote
        if remote.scheme == "ssh" and not remote.known_host_key:
            raise UpstreamError(
                f"{remote.upstream} is not asked, since its host key is not known; "
                f"the operator can pin it as {remote.place}.KnownHostKey"
            )
        self._forget()
        try:
            listing = await self._list()
            await self._make(listing)
            if await self.refs() != listing.refs:
                try:
                    await self._fetch()
                finally:
                    self._forget()
            if listing.head and listing.head != self._head:
                await self.git("symbolic-ref", "HEAD", f"refs/heads/{listing.head}")
        except (GitError, OSError) as error:
            words = str(error) if isinstance(error, GitError) else (error.strerror or "a file error")
            words = self.upstream.failure or words
            if remote.scheme == "ssh" and _OTHER_KEY.search(words):
                # What ssh says here speaks of files of the gate's own, which are nobody's to change.
                raise UpstreamError(
                    f"{remote.upstream} is not asked, since its host key is not the one that "
                    f"{remote.place}.KnownHostKey pins (Host key verification failed); the operator can pin "
                    "another there, if that server is the right one"
                ) from error
            raise UpstreamError(
                f"{remote.upstream} cannot be reached, so nothing is served from what was there before: "
                f"{one_line(self.upstream.redacted(words))}"
            ) from error
        self._head = listing.head
        self._asked_at = began

    async def refs(self) -> Mapping[str, str]:
        """Give the mirror's own refs by name, without backups; read anew after each change of them."""
        if (known := self._refs) is not None:
            return known
        moves = self._moves
        done = await self.git("for-each-ref", "--format=%(objectname) %(refname)", *MIRRORED)
        lines = (line.split(" ", 1) for line in done.stdout.decode("utf-8", "surrogateescape").splitlines())
        found = {name: oid for oid, name in lines}
        if moves == self._moves:
            self._refs = found
        return found

    async def _list(self) -> Listing:
        with self.upstream.access() as way:
            done = await git.run(
                None,
                ["ls-remote", "--quiet", "--symref", "--", way.url],
                cwd=self.folder,
                way=way,
                seconds=_LIST_SECONDS,
            )
        return read_listing(done.stdout)

    async def _make(self, listing: Listing) -> None:
        self.oid_length = len(next(iter(listing.refs.values()), "0" * 40))
        if self.path.exists():
            return
        form = "sha256" if self.oid_length == 64 else "sha1"
        made = self.path.with_suffix(".new")
        shutil.rmtree(made, ignore_errors=True)  # left by a crash
        start = ["init", "--quiet", "--bare", "--template=", f"--object-format={form}"]
        await git.run(None, [*start, "--initial-branch=main", str(made)], cwd=self.folder)
        made.rename(self.path)

    async def _fetch(self) -> None:
        specs = [f"+{prefix}*:{prefix}*" for prefix in MIRRORED]
        with self.upstream.access() as way:
            await git.run(
                self.path,
                ["fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--", way.url, *specs],
                cwd=self.folder,
                way=way,
                seconds=_FETCH_SECONDS,
            )


def read_listing(data: bytes) -> Listing:
    """Read ``git ls-remote --symref``; refs that are not mirrored and names no git makes are left out."""
    refs: dict[str, str] = {}
    head = ""
    for line in data.decode("utf-8", "surrogateescape").splitlines():
        value, _tab, name = line.partition("\t")
        if value.startswith("ref: refs/heads/") and name == "HEAD":
            target = value.removeprefix("ref: ")
            head = target.removeprefix("refs/heads/") if is_ref_name(target) else ""
        elif name.startswith(MIRRORED) and not name.endswith("^{}") and is_ref_name(name):
            refs[name] = value
    return Listing(refs=refs, head=head)
