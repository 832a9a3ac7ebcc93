"""What ``diff`` and ``pull`` share: whose repository, and what is said of work that came out."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.cli import terminal
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bot_bottle.bottle_state import BottleMetadata
    from bot_bottle.repository import Repository
    from bot_bottle.retrieval.arrival import Arrival
    from bot_bottle.retrieval.changes import FileChange
    from bot_bottle.retrieval.commits import NewCommit
    from bot_bottle.retrieval.submodules import ChangedSubmodule

_MOST_LEFT_OUT = 20


def repository_of(metadata: BottleMetadata, into: str | None, *, needed: bool) -> Repository | None:
    """Give the operator's repository: the one named, else the one that the bottle was started in.

    Raises ``UsageError`` where there is none and it is ``needed`` or was named.
    """
    from bot_bottle.repository import find_repository  # noqa: PLC0415
    from bot_bottle.retrieval.arrival import require_repository  # noqa: PLC0415

    folder = Path(into) if into else Path(metadata.cwd) if metadata.cwd else terminal.current_folder()
    if needed or into:
        return require_repository(folder.absolute())
    return find_repository(folder.resolve())[1] if folder.is_dir() else None


def notes(arrival: Arrival, identity: str, home: Repository | None) -> list[str]:
    """Say which submodules changed, what was left out, which stashes and other branches there are."""
    from bot_bottle.retrieval.changes import visible  # noqa: PLC0415

    out = arrival.uncommitted.left_out
    lines = [
        f"{visible(one.path)}/: a submodule, {one.changed} file{'s are' if one.changed != 1 else ' is'} not "
        f"as in yours; see: bot-bottle diff {_place(one, identity, home)}; "
        f"bring: bot-bottle pull {_place(one, identity, home)} --uncommitted"
        for one in arrival.submodules
    ]
    lines += [f"left out: {visible(line)}" for line in out[:_MOST_LEFT_OUT]]
    if len(out) > _MOST_LEFT_OUT:
        lines.append(f"left out: and {len(out) - _MOST_LEFT_OUT} more")
    known = set(arrival.view.known)
    stashes = [oid for oid in arrival.refs.stashes if oid not in known and oid != arrival.committed]
    if stashes:
        first = shlex.quote(f"stash@{{{arrival.refs.stashes.index(stashes[0])}}}")
        are = "is" if len(stashes) == 1 else "are"
        lines.append(
            f"{counted(len(stashes), 'stash', 'stashes')} of the bottle's git {are} not taken along; "
            f"see one: bot-bottle diff {identity} --from {first}; bring it as a branch of its own: "
            f"bot-bottle pull {identity} --from {first}"
        )
    others = sorted(
        name for name, oid in arrival.refs.branches.items() if oid not in known and oid != arrival.committed
    )
    if others:
        lines.append(f"the bottle has more branches of its own (--from): {visible(', '.join(others[:20]))}")
    return [f"bot-bottle: {line}" for line in lines]


def _place(submodule: ChangedSubmodule, identity: str, home: Repository | None) -> str:
    """Give the words that name a submodule of a bottle and the operator's own."""
    path = shlex.quote(submodule.path)
    into = shlex.quote(str(home.folder / submodule.path)) if home else "YOUR-REPOSITORY"
    return f"{identity} --path {path} --into {into}"


def default_name(arrival: Arrival, identity: str, branch: str) -> str:
    """Name the operator's branch where they did not; a stash keeps its name when others come before it."""
    is_stash = bool(branch) and branch not in arrival.refs.branches
    return f"{identity}-stash-{arrival.committed[:8]}" if is_stash else identity


def facts(arrival: Arrival, commits: Sequence[NewCommit], files: Iterable[FileChange]) -> dict[str, object]:
    """Describe work as plain data."""
    return {
        "compared_with": arrival.base,
        "branch": arrival.refs.branch,
        "branches": dict(arrival.refs.branches),
        "stashes": list(arrival.refs.stashes),
        "commit": arrival.committed,
        "tip": arrival.tip,
        "uncommitted": arrival.uncommitted.changed,
        "left_out": list(arrival.uncommitted.left_out),
        "submodules": [asdict(one) for one in arrival.submodules],
        "commits": [asdict(one) for one in commits],
        "files": [asdict(one) for one in files],
    }
