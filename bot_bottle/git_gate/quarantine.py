"""Where a push's objects wait: beside the mirror, and part of it only once the upstream took them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import secrets
import shutil
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from bot_bottle.git_gate import git
from bot_bottle.git_gate.git import GitError
from bot_bottle.git_gate.mirror import MIRRORED
from bot_bottle.git_gate.objects import NewObject, read_changes, read_kinds, read_objects
from bot_bottle.git_gate.scanning import WINDOW

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from bot_bottle.decision import Deny
    from bot_bottle.git_gate.objects import Change
    from bot_bottle.git_gate.policy import Rules

#: A piece of one object: what it is of, the bytes, whether they are its last.
Piece: TypeAlias = tuple[NewObject, bytes, bool]

PREFIX = "incoming-"
_UNPACK_SECONDS = 900.0
_LIST_SECONDS = 300.0
#: What unpacking may use: deltas can be made to unfold to any size (a pack of kilobytes to gigabytes).
_UNPACK_BOUNDS = {resource.RLIMIT_AS: 2 << 30, resource.RLIMIT_CPU: 600}
#: What listing may use: ten trees that name each other ten times are ten thousand million files.
_LIST_BOUNDS = {resource.RLIMIT_AS: 768 << 20, resource.RLIMIT_CPU: 240}
_HEADER = 12
#: How much larger than its pack's bound the content of a push may be.
UNFOLDED = 10
_EXCLUDED = ("--not", *(f"--glob={prefix}*" for prefix in MIRRORED))


class Store(Protocol):
    """The repository that a quarantine's objects build on: a gate's mirror, or a view of the operator's."""

    @property
    def folder(self) -> Path:
        """Where commands run and quarantines lie."""
        ...

    @property
    def path(self) -> Path:
        """The bare repository."""
        ...

    async def git(
        self,
        *arguments: str,
        given: bytes = b"",
        check: bool = True,
        seconds: float = git.SECONDS,
        way: git.Way | None = None,
    ) -> git.Finished:
        """Run a local git command on ``path``; raises ``GitError``."""
        ...


class Pack(Protocol):
    """A pack as it comes, from a client or from a command."""

    received: int

    async def read(self) -> bytes:
        """Give the next piece, ``b""`` at the end."""
        ...

    async def exactly(self, count: int) -> bytes:
        """Give exactly ``count`` bytes; raises ``EOFError`` where there are fewer."""
        ...


class TooLargeError(Exception):
    """A push is past one of its bounds."""

    def __init__(self, deny: Deny) -> None:
        super().__init__(deny.message)
        self.deny = deny


class Quarantine:
    """The objects of a push, or of a bottle's work; an async context, at whose end nothing of it is left."""

    def __init__(self, mirror: Store, rules: Rules) -> None:
        self._mirror, self._rules = mirror, rules
        self.path: Path = mirror.folder / f"{PREFIX}{secrets.token_hex(8)}"
        # Quoted, since a colon would part two folders (git(1), GIT_ALTERNATE_OBJECT_DIRECTORIES).
        objects = str(mirror.path / "objects").replace("\\", "\\\\").replace('"', '\\"')
        self._places = {
            "GIT_OBJECT_DIRECTORY": str(self.path),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{objects}"',
        }
        self.env = git.environment(**self._places)

    async def __aenter__(self) -> Self:
        (self.path / "pack").mkdir(parents=True, mode=0o700)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await asyncio.to_thread(shutil.rmtree, self.path, ignore_errors=True)

    def way(self, way: git.Way) -> git.Way:
        """Let a command that speaks to the upstream see these objects too."""
        return git.Way(env={**way.env, **self._places}, url=way.url, config=way.config, fds=way.fds)

    async def receive(self, body: Pack) -> None:
        """Take the pack in, checked by ``fsck``.

        Raises ``GitError``, ``HttpError``, ``EOFError`` and :class:`TooLargeError`.
        """
        header = await body.exactly(_HEADER)
        if header[:4] != b"PACK":
            raise GitError("the push holds no pack")
        if denied := self._rules.judge_size(objects=int.from_bytes(header[8:12], "big")):
            raise TooLargeError(denied)
        # A thin pack is completed by the objects its deltas build on.
        most = 2 * self._rules.policy.max_bytes + 64 * 1024 * 1024
        way = git.Way(env=self.env, bounds={**_UNPACK_BOUNDS, resource.RLIMIT_FSIZE: most})
        argv = git.command(self._mirror.path, ["index-pack", "--stdin", "--fix-thin", "--strict"])
        child = await git.start(argv, cwd=self._mirror.folder, way=way, given=True)
        try:
            async with asyncio.timeout(_UNPACK_SECONDS):
                _, words, _ = await asyncio.gather(
                    self._feed(child, header, body), git.read_words(child.stderr), child.stdout.read()
                )
                if await child.wait() != 0:
                    raise GitError(git.last_words(words, "the pack is broken"))
        except TimeoutError:
            raise GitError("unpacking took too long") from None
        finally:
            await child.end()

    async def _feed(self, child: git.Child, header: bytes, body: Pack) -> None:
        await child.feed(header, last=False)
        while piece := await body.read():
            if denied := self._rules.judge_size(bytes_seen=body.received):
                raise TooLargeError(denied)
            await child.feed(piece, last=False)
        await child.feed(b"")

    async def new_objects(self, tips: Sequence[str]) -> tuple[NewObject, ...]:
        """List all that the upstream would get, and so prove that nothing is missing; raises as above."""
        if not tips:
            return ()
        given = "".join(f"{tip}\n" for tip in tips).encode()
        done = await self.read("rev-list", "--objects", "--stdin", *_EXCLUDED, given=given)
        paths = dict(read_objects(done))
        if denied := self._rules.judge_size(objects=len(paths)):
            raise TooLargeError(denied)
        asked = "".join(f"{oid}\n" for oid in paths).encode()
        found = read_kinds(await self.read("cat-file", "--batch-check", given=asked), paths) if paths else ()
        # Unfolded content is bounded too; the deny names the key that bounds both.
        if denied := self._rules.judge_size(bytes_seen=sum(one.size for one in found) // UNFOLDED):
            raise TooLargeError(denied)
        return found

    async def changes(self, commits: Sequence[str]) -> tuple[Change, ...]:
        """List what each of these commits changed, directories included."""
        given = "".join(f"{commit}\n" for commit in commits).encode()
        form = ("--root", "--raw", "-z", "--no-abbrev", "--no-renames")
        listing = await self.read("diff-tree", "--stdin", "-c", "-r", "-t", *form, given=given)
        return tuple(read_changes(listing))

    async def type_of(self, oid: str) -> str:
        """Give an object's type; raises ``GitError`` where it is not there."""
        return (await self.read("cat-file", "-t", oid)).decode().strip()

    async def is_ancestor(self, old: str, new: str) -> bool:
        """Tell whether ``new`` has all that ``old`` has; raises ``GitError`` where git cannot tell."""
        arguments = ("merge-base", "--is-ancestor", old, new)
        way = git.Way(env=self.env)
        done = await self._mirror.git(*arguments, way=way, check=False, seconds=_LIST_SECONDS)
        if done.returncode not in {0, 1}:
            raise GitError(git.last_words(done.stderr, "the history cannot be followed"))
        return done.returncode == 0

    async def contents(self, objects: Sequence[NewObject]) -> AsyncGenerator[Piece, None]:
        """Read objects in pieces of at most a window, in order, each piece with whether it is the last."""
        argv = git.command(self._mirror.path, ["cat-file", "--batch", "--buffer"])
        way = git.Way(env=self.env, bounds=_UNPACK_BOUNDS)
        child = await git.start(argv, cwd=self._mirror.folder, way=way, given=True)
        asked = "".join(f"{one.oid}\n" for one in objects).encode()
        feeding = asyncio.ensure_future(child.feed(asked))
        words = asyncio.ensure_future(git.read_words(child.stderr))
        try:
            for one in objects:
                expected = f"{one.oid} {one.type} {one.size}\n".encode()
                if await child.stdout.readexactly(len(expected)) != expected:
                    raise GitError("an object of the push cannot be read")
                left = one.size
                while True:
                    piece = await child.stdout.readexactly(min(left, WINDOW))
                    left -= len(piece)
                    yield one, piece, left == 0
                    if left == 0:
                        break
                await child.stdout.readexactly(1)
        except asyncio.IncompleteReadError:
            raise GitError("an object of the push cannot be read") from None
        finally:
            for task in (feeding, words):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await child.end()

    async def migrate(self) -> None:
        """Make the objects the mirror's own; the index comes last, since it is what git looks for."""
        await asyncio.to_thread(_migrate, self.path / "pack", self._mirror.path / "objects" / "pack")

    async def read(self, *arguments: str, given: bytes = b"", empty: int = 0) -> bytes:
        """Give what a command says that only looks at these objects, within bounds; raises ``GitError``.

        ``empty`` is the exit code by which it says that there is nothing.
        """
        way = git.Way(env=self.env, bounds=_LIST_BOUNDS)
        done = await self._mirror.git(*arguments, given=given, way=way, check=False, seconds=_LIST_SECONDS)
        if done.returncode not in {0, empty}:
            raise GitError(git.last_words(done.stderr, f"git {arguments[0]} ended with {done.returncode}"))
        return done.stdout


def remove_leftovers(folder: Path) -> None:
    """Remove what a sidecar that was killed left in the gate's folder: pushes half way, and git's locks.

    A lock that nobody holds would close the mirror for ever, and this folder is one sidecar's alone.
    """
    for path in folder.glob(f"{PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)
    for mirror in folder.glob("mirror-*.git"):
        for lock in (*mirror.glob("*.lock"), *(mirror / "refs").rglob("*.lock")):
            lock.unlink(missing_ok=True)
        for part in (mirror / "objects" / "pack").glob("tmp_*"):
            part.unlink(missing_ok=True)


def _migrate(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    order = {".idx": 1}
    for file in sorted(source.iterdir(), key=lambda path: order.get(path.suffix, 0)):
        place = target / file.name
        if not place.exists():
            os.replace(file, place)  # noqa: PTH105 - the one call that says it overwrites
