"""Which submodules of a workspace hold other files than the operator's: their work is brought by itself.

A bottle gets a submodule's files and not its history, so that nothing of what changes in it is in any commit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.errors import BotBottleError
from bot_bottle.retrieval.tree import FolderTree
from bot_bottle.retrieval.uncommitted import ignored, submodules_of

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.retrieval.tree import Entry, Tree

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedSubmodule:
    """A submodule's folder in the workspace, and how many of its files are others than the operator's."""

    path: str
    changed: int


async def changed_submodules(
    tree: Tree, repository: Path, commit: str, home: Path | None, *, copied: bool
) -> tuple[ChangedSubmodule, ...]:
    """Compare the submodules of ``commit`` with those of the operator's folder ``home``, by their content.

    ``repository`` is ours. ``copied`` tells that they were filled when the bottle was made, so that an empty
    one has lost its files. Raises ``GitError``.
    """
    found = []
    for path in sorted(await submodules_of(repository, commit)) if commit else ():
        theirs = {entry.path: entry for entry in tree.entries(path, nested=[])}
        if not theirs and not copied:
            continue  # no clone fills them
        mine = _copied(home, os.fsdecode(path)) if home else frozenset()
        new = [name for name in theirs if name not in mine]
        changed = len(new) - len(await ignored(tree, repository, theirs, new, below=path + b"/"))
        if home is not None and mine:
            with FolderTree(home) as own:
                changed += sum(
                    name not in theirs or not _same(tree, own, theirs[name]) for name in sorted(mine)
                )
        if changed:
            found.append(ChangedSubmodule(path=os.fsdecode(path), changed=changed))
    return tuple(found)


def _copied(home: Path, path: str) -> frozenset[bytes]:
    """List the files of the operator's submodule that a start copies, from the top of ``home``."""
    from bot_bottle.workspace import submodule_files  # noqa: PLC0415 - most work has no submodule

    try:
        return frozenset(os.fsencode(name) for name in submodule_files(home, path))
    except (BotBottleError, OSError):
        return frozenset()


def _same(tree: Tree, own: Tree, entry: Entry) -> bool:
    """Tell whether a file of the workspace is what the operator has at the same path."""
    try:
        if entry.link or own.kind(entry.path) == "link":
            return entry.link and tree.read_link(entry.path) == own.read_link(entry.path)
        with tree.open(entry.path) as theirs, own.open(entry.path) as mine:
            while True:
                piece = theirs.read(_PIECE)
                if piece != mine.read(_PIECE):
                    return False
                if not piece:
                    return True
    except OSError:
        return False
