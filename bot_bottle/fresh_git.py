"""The fresh ``.git`` that a bottle gets: the operator's commits, branches and tags, and no more of theirs.

It is made by a repository of ours that borrows the operator's objects for that moment, under our
configuration. A large pack of theirs that holds nothing but what those branches and tags lead to is not
packed again but taken as it is, which is as fast as copying a file. A pack with one object more (what was
amended away, another remote's branch) is never taken: what leads nowhere in the copy stays out of it.
"""

from __future__ import annotations

import contextlib
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.files import remove_tree
from bot_bottle.lenders import lend
from bot_bottle.repository import copy_shallow, run_git

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bot_bottle.repository import Repository

_HEADS = "refs/heads/"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
#: Smaller packs are packed again with the loose objects; of larger ones so many are looked at as git leaves.
_LARGE, _MOST_PACKS = 1 << 20, 50
#: The head of an index (gitformat-pack(5), version 2): its number of objects is the last of 256 sums.
_INDEX = struct.Struct(">4sI1020xI")
_INDEX_MAGIC = b"\xfftOc"
#: What was packed stays as it was, and the rest is not worth a search for deltas in a copy.
_QUICK = ("-c", "pack.window=0", "-c", "pack.compression=1", "-c", "core.fsync=none")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A file of the operator's that is taken as it is: its ``name`` in the copy, and it, open to be read."""

    name: str
    descriptor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshGit:
    """A ``.git`` in the making: what lies in ``folder``, and ``packs`` beside it in ``objects/pack``."""

    folder: Path
    packs: tuple[OpenFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pack:
    place: Path
    objects: int
    files: tuple[OpenFile, ...]


@contextlib.contextmanager
def fresh_git(source: Repository, temporary: Path, sparse: Sequence[str] = ()) -> Iterator[FreshGit]:
    """Make a repository in ``temporary``; the packs it takes from the source are open until the body ends.

    Its index says of ``sparse`` files that they are meant not to be there. Raises ``UsageError`` where the
    source lacks objects, ``LaunchError`` where git fails.
    """
    target = temporary / "repository"
    # Never the short name: that of a branch which a tag is named after, too, has more to it than its own.
    head = os.fsdecode(run_git(["symbolic-ref", "--quiet", "HEAD"], cwd=source.folder, check=False).stdout)
    on_branch = head.startswith(_HEADS)
    branch = head.strip().removeprefix(_HEADS) if on_branch else "main"
    form = os.fsdecode(run_git(["rev-parse", "--show-object-format"], cwd=source.folder).stdout.strip())
    start = ["init", "--quiet", "--template=", f"--object-format={form}", f"--initial-branch={branch}"]
    run_git([*start, str(target)], cwd=temporary)
    git_dir = target / ".git"
    # The name alone is asked for: objects are read by our repository only.
    commit = run_git(["rev-parse", "--verify", "--quiet", "HEAD"], cwd=source.folder, check=False)
    listing = ["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"]
    names = [line.split(b" ", 1) for line in run_git(listing, cwd=source.folder).stdout.splitlines()]
    if commit.returncode != 0 and not names:
        yield FreshGit(folder=git_dir)
        return
    refs = b"".join(b"create %b\0%b\0" % (name, commit_id) for commit_id, name in names)
    lend(source.stores, git_dir / "objects", temporary / "lent")
    copy_shallow(source.common / "shallow", git_dir / "shallow")
    with contextlib.ExitStack() as stack, _explained(source):
        run_git(["update-ref", "-z", "--stdin"], cwd=target, given=refs)
        if not on_branch and commit.returncode == 0:  # the operator's HEAD is detached: so is the copy's
            run_git(["update-ref", "--no-deref", "HEAD", os.fsdecode(commit.stdout.strip())], cwd=target)
        packs = _fill(target, temporary / "reachable", _large_packs(source.stores, stack))
        if commit.returncode == 0:
            run_git(["read-tree", "HEAD"], cwd=target)
        (git_dir / "objects" / "info" / "alternates").unlink()
        _hide(git_dir, packs)
        if sparse:
            # One that HEAD does not have is new and sparse at once; git would mark none then.
            there = {*run_git(["ls-files", "-z"], cwd=target).stdout.split(b"\0")} - {b""}
            hidden = b"".join(name + b"\0" for name in map(os.fsencode, sparse) if name in there)
            run_git(["update-index", "-z", "--skip-worktree", "--stdin"], cwd=target, given=hidden)
        remove_tree(git_dir / "hooks")
        yield FreshGit(folder=git_dir, packs=tuple(file for pack in packs for file in pack.files))


@contextlib.contextmanager
def _explained(source: Repository) -> Iterator[None]:
    """Say what is the matter with a source whose objects are not all there."""
    try:
        yield
    except LaunchError as error:
        if any(any((store / "pack").glob("*.promisor")) for store in source.stores):
            raise UsageError(
                f"{source.folder}: is a partial clone, and what it lacks is not asked for here; make it "
                "whole first: git fetch --refetch --no-filter"
            ) from error
        lent = source.common / "objects" / "info" / "alternates"
        hint = f"; what {lent} names is not all there or not readable" if os.path.lexists(lent) else ""
        if "GIT_ALTERNATE_OBJECT_DIRECTORIES" in os.environ:
            hint = "; GIT_ALTERNATE_OBJECT_DIRECTORIES is not used, objects/info/alternates is"
        raise LaunchError(f"{source.folder}: its history cannot be copied: {error}{hint}") from error


def _fill(target: Path, listing: Path, large: Sequence[_Pack]) -> tuple[_Pack, ...]:
    """Pack what ``target`` borrows, but for those of ``large`` that need not be; gives them, shown in it."""
    git_dir = target / ".git"
    with listing.open("w+b") as file:
        # Reading all but the blobs themselves, this also proves that nothing is missing.
        run_git(["rev-list", "--objects", "--no-object-names", "--all"], cwd=target, sink=file)
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        reachable = length // (len(file.readline()) or 1)
        _show(git_dir, large)
        packed = _pack(target, listing)
        # All that is reachable is in the new pack or in the large ones. The numbers add up only where those
        # hold nothing else, and nothing twice.
        if packed + sum(pack.objects for pack in large) == reachable:
            return tuple(large)
    _hide(git_dir, large)
    for file_ in (git_dir / "objects" / "pack").iterdir():
        file_.unlink()
    _pack(target, listing)
    return ()


def _pack(target: Path, listing: Path) -> int:
    """Pack the objects of a list that no kept pack has; gives how many those were."""
    folder = target / ".git" / "objects" / "pack"
    options = ["--quiet", "--honor-pack-keep", "--delta-base-offset", "--non-empty"]
    with listing.open("rb") as source:
        done = run_git(
            ["pack-objects", *options, str(folder / "pack")], cwd=target, source=source, config=_QUICK
        )
    name = done.stdout.decode("ascii", "replace").strip()
    if not name:
        return 0
    with (folder / f"pack-{name}.idx").open("rb") as index:
        return _count(index.fileno())


def _large_packs(stores: Sequence[Path], stack: contextlib.ExitStack) -> list[_Pack]:
    """Open the packs that are worth to be taken as they are, the largest first, each name once."""
    found: dict[str, tuple[int, Path]] = {}
    for store in stores:
        with contextlib.suppress(FileNotFoundError), os.scandir(store / "pack") as entries:
            for entry in entries:
                if entry.name.endswith(".pack") and entry.is_file(follow_symlinks=False):
                    size = entry.stat(follow_symlinks=False).st_size
                    if size >= _LARGE:
                        found.setdefault(entry.name, (size, store / "pack" / entry.name))
    largest = sorted(found.values(), key=lambda one: one[0], reverse=True)[:_MOST_PACKS]
    return [pack for _, place in largest if (pack := _opened(place, stack)) is not None]


def _opened(place: Path, stack: contextlib.ExitStack) -> _Pack | None:
    files = []
    for path in (place.with_suffix(".idx"), place):
        try:
            descriptor = os.open(path, _OPEN)
        except OSError:
            return None  # git says of it what is to be said
        stack.callback(os.close, descriptor)
        files.append(OpenFile(name=path.name, descriptor=descriptor))
    objects = _count(files[0].descriptor)
    return _Pack(place=place, objects=objects, files=tuple(files)) if objects else None


def _count(descriptor: int) -> int:
    """Give the number of objects in an open index; 0 for one that is none of version 2."""
    head = os.pread(descriptor, _INDEX.size, 0)
    if len(head) != _INDEX.size:
        return 0
    magic, version, objects = _INDEX.unpack(head)
    return int(objects) if (magic, version) == (_INDEX_MAGIC, 2) else 0


def _show(git_dir: Path, packs: Sequence[_Pack]) -> None:
    """Let packs of the source be seen as packs of our own that are kept (git-repack(1))."""
    folder = git_dir / "objects" / "pack"
    folder.mkdir(exist_ok=True)
    for pack in packs:
        for file in pack.files:
            (folder / file.name).symlink_to(pack.place.with_name(file.name))
        (folder / pack.place.name).with_suffix(".keep").touch()


def _hide(git_dir: Path, packs: Sequence[_Pack]) -> None:
    folder = git_dir / "objects" / "pack"
    for pack in packs:
        for suffix in (".pack", ".idx", ".keep"):
            (folder / pack.place.name).with_suffix(suffix).unlink()
