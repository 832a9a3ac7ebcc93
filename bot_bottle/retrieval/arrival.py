"""A bottle's work on its way home: read as data, checked by ``fsck``, waiting beside the operator's objects.

workspace --data--> staging (ours) --pack--> quarantine on a view of the operator's repository
                                               |-> what changed (diff)
                                               '-> the strict scan -> a branch of the operator's (pull)
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from bot_bottle import repository as operator
from bot_bottle.errors import UsageError
from bot_bottle.git_gate import git
from bot_bottle.git_gate.git import GitError
from bot_bottle.git_gate.policy import PushPolicy, Rules
from bot_bottle.git_gate.quarantine import Quarantine, TooLargeError
from bot_bottle.retrieval import home as homes
from bot_bottle.retrieval.commands import PackFrom
from bot_bottle.retrieval.history import BottleRefs, copy_objects, read_refs
from bot_bottle.retrieval.submodules import changed_submodules
from bot_bottle.retrieval.tree import FolderTree
from bot_bottle.retrieval.uncommitted import Uncommitted, commit_folder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bot_bottle.repository import Repository
    from bot_bottle.retrieval.submodules import ChangedSubmodule
    from bot_bottle.retrieval.tree import Tree

#: What one bottle's work may bring, packed and in objects; what it unfolds to may be ten times as much.
_MAX_BYTES, _MAX_OBJECTS = 8 << 30, 2_000_000
#: Work that is not committed is one more commit, or is counted alone, or not looked at.
Rest: TypeAlias = Literal["brought", "counted", "left"]
_NOTHING_UNCOMMITTED = Uncommitted(commit="", changed=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Whose work it is: the bottle, the folder that its work began as a copy of, if it did.

    ``inside`` is the folder below the workspace that is meant, ``""`` for all of it. ``removed`` tells
    whether the bottle's removal has begun since: what is not there any more says nothing then.
    """

    identity: str
    tree: Tree
    started_in: Path | None = None
    inside: str = ""
    removed: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Work that has been read and checked; valid for as long as its context.

    ``committed`` is the commit of the branch in question (``""``: none), ``tip`` that or the one with the
    uncommitted work on it, ``base`` the commit or tree that it is compared with.
    """

    quarantine: Quarantine
    view: homes.View
    rules: Rules
    refs: BottleRefs
    committed: str
    tip: str
    base: str
    compared_with: str
    uncommitted: Uncommitted
    submodules: tuple[ChangedSubmodule, ...] = ()


def require_repository(folder: Path) -> Repository:
    """Give the repository whose top is ``folder``; raises ``UsageError`` where it is none."""
    _, found = operator.find_repository(folder.resolve()) if folder.is_dir() else (False, None)
    if found is None:
        raise UsageError(
            f"{folder} is not the top folder of a git repository; name one with --into, or see the changes "
            "with bot-bottle diff"
        )
    return found


@contextlib.asynccontextmanager
async def arrive(
    source: Source, home: Repository | None, *, branch: str = "", rest: Rest
) -> AsyncIterator[Arrival]:
    """Read a bottle's work and hold it in quarantine until the body ends; nothing of it stays.

    ``branch`` is one of the bottle's or of its stashes, the current one where it is empty. ``rest`` is
    about work that is not committed: once it is brought, a part of it that git cannot take keeps everything
    out. Raises ``UsageError`` for what cannot be taken.
    """
    with tempfile.TemporaryDirectory(prefix="bot-bottle-retrieval-") as temporary:
        try:
            async with _arrive(source, home, Path(temporary), branch, rest=rest) as arrival:
                yield arrival
        except TooLargeError as error:
            raise UsageError(f"the work of {source.identity} is not taken: {error}") from error
        except (GitError, EOFError) as error:
            raise UsageError(
                f"the work of {source.identity} is not taken, since git says of it: {error}; a history that "
                "is shallow, borrows objects or is being written at this moment cannot be read"
            ) from error


@contextlib.asynccontextmanager
async def _arrive(
    source: Source, home: Repository | None, folder: Path, branch: str, *, rest: Rest
) -> AsyncIterator[Arrival]:
    tree = source.tree
    refs = read_refs(tree)
    committed = _choose(refs, branch)
    known, head = operator.known_objects(home) if home else ((), "")
    if source.inside and not _is_copy_of(source, home):
        source = replace(source, started_in=None)
    length = len(committed) or (len(known[0]) if known else 40)
    if home is not None and known and len(known[0]) != length:
        raise UsageError("the bottle's repository names its objects otherwise (sha1, sha256) than yours")
    staging = folder / "staging.git"
    await homes.init(staging, length)
    if home is not None:
        homes.borrow(staging, home)
    if refs is not None:
        await copy_objects(tree, staging)
    uncommitted = _NOTHING_UNCOMMITTED
    submodules: tuple[ChangedSubmodule, ...] = ()
    if rest != "left" and (refs is None or not branch or branch == refs.branch):
        what = f"Uncommitted work of {source.identity}\n\nAs it lay in the workspace, made by bot-bottle."
        try:
            # The files of a submodule come into a bottle without its history: they go on from the operator's.
            parent = committed or (head if source.inside and source.started_in and refs is None else "")
            uncommitted = await commit_folder(tree, staging, parent, what)
            submodules = await changed_submodules(
                tree, staging, committed, home.folder if home else None, copied=bool(source.started_in)
            )
        except (UsageError, GitError) as error:
            if rest == "brought":
                raise
            uncommitted = Uncommitted(commit="", changed=0, left_out=(f"what is not committed: {error}",))
    if source.removed():
        raise UsageError(f"{source.identity} was being removed while its work was read; nothing was taken")
    tip = (uncommitted.commit if rest == "brought" else "") or committed
    view = await homes.make_view(folder, home, length)
    base, compared_with = await _base(source, view, staging, committed)
    rules = Rules(
        PushPolicy(paths=("**",), max_bytes=_MAX_BYTES, max_objects=_MAX_OBJECTS), place=source.identity
    )
    async with Quarantine(view, rules) as quarantine:
        wanted = [oid for oid in (tip, base) if oid and oid not in view.known]
        if wanted:
            await _transfer(staging, folder, wanted, view, quarantine)
        yield Arrival(
            quarantine=quarantine,
            view=view,
            rules=rules,
            refs=refs or BottleRefs(),
            committed=committed,
            tip=tip,
            base=base,
            compared_with=compared_with,
            uncommitted=uncommitted,
            submodules=submodules,
        )


def _is_copy_of(source: Source, home: Repository | None) -> bool:
    """Tell whether the folder inside the workspace began as a copy of this very repository."""
    return bool(home and source.started_in and source.started_in.resolve() == home.folder)


def _choose(refs: BottleRefs | None, branch: str) -> str:
    if not branch:
        return refs.commit if refs else ""
    oid = refs.find(branch) if refs else None
    if oid is None:
        there = ", ".join(sorted(refs.branches)[:20]) if refs and refs.branches else "none"
        raise UsageError(f"the bottle has no branch {branch!r}; those that exist: {there}")
    return oid


async def _base(source: Source, view: homes.View, staging: Path, committed: str) -> tuple[str, str]:
    """Choose what the work is compared with, and say it in words."""
    if committed and view.head:
        done = await git.run(
            staging, ["merge-base", committed, view.head], cwd=staging, check=False, seconds=300
        )
        found = done.stdout.decode("ascii", "replace").split()
        if done.returncode == 0 and found:
            return found[0], f"{found[0][:12]}, the last commit that you have too"
    if view.head and source.started_in is not None:
        return view.head, f"{view.head[:12]}, your current commit"
    if not view.head and source.started_in is not None and source.started_in.is_dir():
        from bot_bottle.workspace import open_workspace  # noqa: PLC0415 - only for folders outside of git

        with open_workspace(source.started_in) as copied, FolderTree(copied.root) as tree:
            names = [os.fsencode(name) for name in copied.files]
            made = await commit_folder(tree, staging, "", "The folder as it is now", only=names)
        return made.commit, f"{source.started_in} as it is now"
    return "", "nothing, since no commit of it is yours too"


async def _transfer(
    staging: Path, folder: Path, wanted: list[str], view: homes.View, quarantine: Quarantine
) -> None:
    """Pack what the operator lacks and take it in, as a push is taken in."""
    asked = "".join(f"{oid}\n" for oid in wanted) + "".join(f"^{oid}\n" for oid in view.known)
    pack = git.command(staging, ["pack-objects", "--revs", "--thin", "--delta-base-offset", "--stdout", "-q"])
    async with PackFrom(pack, folder, git.Way(env=git.environment()), asked.encode()) as body:
        await quarantine.receive(body)
    await quarantine.new_objects(wanted)  # proves that nothing is missing
