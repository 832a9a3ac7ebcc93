"""What a merge takes from one of its parents against another: a choice of whoever made it.

A merge that has a file as one parent has it changes nothing that is not in that parent. Yet it may drop what
the other has made of the file since: an old CI file comes back, or goes, and no commit says so. What a
three-way merge would do by itself (gitmerge-strategies(7)) is to take the side that changed it; only that
passes here without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.git_gate.objects import ListingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bot_bottle.git_gate.quarantine import Quarantine

#: A file of a tree as git lists it: mode and object. None where there is none.
_Entry = bytes | None
_MERGES_AT_ONCE, _PATHS_AT_ONCE = 32, 200


async def overruled(
    quarantine: Quarantine, commits: Sequence[str], wanted: Callable[[str], bool]
) -> list[tuple[str, str]]:
    """List (merge, path) where a merge among ``commits`` drops what a parent made of a ``wanted`` path.

    Raises ``GitError`` and :class:`ListingError`.
    """
    found: list[tuple[str, str]] = []
    merges = await _merges(quarantine, commits)
    names = list(merges)
    for at in range(0, len(names), _MERGES_AT_ONCE):
        given = "".join(f"{one}\n" for one in names[at : at + _MERGES_AT_ONCE]).encode()
        form = ("--stdin", "-m", "-r", "--raw", "-z", "--no-abbrev", "--no-renames")
        differing: dict[str, dict[bytes, None]] = {}
        for commit, path in _differing(await quarantine.read("diff-tree", *form, given=given)):
            if wanted(_text(path)):
                differing.setdefault(commit, {})[path] = None
        for commit, paths in differing.items():
            dropped = await _dropped(quarantine, commit, merges[commit], list(paths))
            found += [(commit, _text(path)) for path in dropped]
    return found


async def _merges(quarantine: Quarantine, commits: Sequence[str]) -> dict[str, list[str]]:
    """Give those of ``commits`` that are merges, each with its parents."""
    given = "".join(f"{one}\n" for one in commits).encode()
    listing = await quarantine.read(
        "rev-list", "--no-walk=unsorted", "--min-parents=2", "--parents", "--stdin", given=given
    )
    lines = (line.split() for line in listing.decode("ascii", "replace").splitlines())
    return {commit: parents for commit, *parents in lines}


def _differing(listing: bytes) -> Iterator[tuple[str, bytes]]:
    """Read ``git diff-tree --stdin -m --raw -z``: each path in which a merge differs from some parent."""
    fields = iter(listing.split(b"\0"))
    commit = ""
    for field in fields:
        if field.startswith(b":"):
            path = next(fields, b"")
            if not commit or not path:
                raise ListingError("the merges of the push cannot be read")
            yield commit, path
        elif field:
            commit = field.decode("ascii", "replace").strip()


async def _dropped(
    quarantine: Quarantine, merge: str, parents: Sequence[str], paths: Sequence[bytes]
) -> list[bytes]:
    """Give the paths that some parent has otherwise than the merge, though it changed them last."""
    has = await _entries(quarantine, merge, paths)
    sides = [(parent, await _entries(quarantine, parent, paths)) for parent in parents]
    bases: dict[tuple[str, str], list[dict[bytes, bytes]]] = {}
    dropped = []
    for path in paths:
        result: _Entry = has.get(path)
        sources = [parent for parent, entries in sides if entries.get(path) == result]
        # Where no parent has it so, the merge itself changed it, which is judged like any commit's change.
        for parent, entries in sides if sources else ():
            before: _Entry = entries.get(path)
            if before == result:
                continue
            for source in sources:
                if (parent, source) not in bases:
                    bases[parent, source] = await _bases(quarantine, parent, source, paths)
            # Every change on the way from that base to the source is a commit's own, and was judged as such.
            if not any(before == base.get(path) for one in sources for base in bases[parent, one]):
                dropped.append(path)
                break
    return dropped


async def _bases(
    quarantine: Quarantine, one: str, other: str, paths: Sequence[bytes]
) -> list[dict[bytes, bytes]]:
    """Give the entries in each merge base of two commits; histories without any begin from nothing."""
    listing = await quarantine.read("merge-base", "--all", one, other, empty=1)
    names = listing.decode("ascii", "replace").split()
    return [await _entries(quarantine, name, paths) for name in names] or [{}]


async def _entries(quarantine: Quarantine, commit: str, paths: Sequence[bytes]) -> dict[bytes, bytes]:
    """Give mode and object of those paths that are there."""
    found: dict[bytes, bytes] = {}
    for at in range(0, len(paths), _PATHS_AT_ONCE):
        some = [_text(path) for path in paths[at : at + _PATHS_AT_ONCE]]
        # Names are taken as they are (git-ls-tree(1)), and a folder of that name is one entry.
        listing = await quarantine.read("ls-tree", "-z", "--full-tree", commit, "--", *some)
        for line in listing.split(b"\0"):
            facts, _, path = line.partition(b"\t")
            found[path] = facts
    return found


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
