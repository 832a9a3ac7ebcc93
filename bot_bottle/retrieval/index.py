"""What a bottle's git index says of files: which are tracked, and which are meant not to be there."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.git_gate import git
from bot_bottle.retrieval.tree import GIT_DIR, read_small

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.retrieval.tree import Tree

_FILE = "asked-index"
_MAX_BYTES = 256 << 20
_BOUNDS = {resource.RLIMIT_AS: 3 << 30, resource.RLIMIT_CPU: 120}
_SKIPPED = b"S"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """``tracked`` are the paths in the index; of ``skipped`` git says nothing, whether they are there or not.

    ``unread`` tells why nothing is known (``""``: it is).
    """

    tracked: frozenset[bytes] = frozenset()
    skipped: frozenset[bytes] = frozenset()
    unread: str = ""


async def read_index(tree: Tree, repository: Path) -> Index:
    """Have the index of a workspace read by git in ``repository``, which is ours and has its objects.

    No file is looked at: the index is data here, from which names and flags are taken.
    """
    path = GIT_DIR + b"/index"
    if not tree.kind(path):
        return Index()
    data = read_small(tree, path, _MAX_BYTES)
    if data is None:
        return Index(unread=f"is no file of at most {_MAX_BYTES >> 20} MiB")
    place = repository / _FILE
    place.write_bytes(data)
    # Where the bottle's git keeps a part of it in another file, that is not read (core.splitIndex).
    way = git.Way(env=git.environment(GIT_INDEX_FILE=os.fspath(place)), bounds=_BOUNDS)
    try:
        done = await git.run(
            repository, ["ls-files", "-z", "-t"], cwd=repository, way=way, max_output=1 << 30, seconds=300
        )
    except git.GitError as error:
        return Index(unread=f"cannot be read: {error}")
    finally:
        place.unlink()
    listed = [line.split(b" ", 1) for line in done.stdout.split(b"\0") if line]
    return Index(
        tracked=frozenset(name for _, name in listed),
        skipped=frozenset(name for tag, name in listed if tag == _SKIPPED),
    )
