"""The repository of the operator's that work comes home to, and a view of it to build on.

The view is a bare repository of ours that borrows the operator's objects and knows where its refs stand. It
is what every question about the bottle's work is asked of; the operator's own is touched once, at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle import repository as operator
from bot_bottle.errors import UsageError
from bot_bottle.git_gate import git
from bot_bottle.lenders import lend

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bot_bottle.repository import Repository

#: Below which everything the operator has is found again; the quarantine leaves out what tags lead to.
_KNOWN = "refs/tags/known"


@dataclass(frozen=True, slots=True, kw_only=True)
class View(git.LocalGit):
    """A bare repository of ours, as :class:`~bot_bottle.git_gate.quarantine.Store`.

    ``known`` are the commits and tags that the operator has, ``head`` the commit the folder is at.
    """

    folder: Path
    path: Path
    known: tuple[str, ...] = ()
    head: str = ""


async def make_view(folder: Path, home: Repository | None, length: int) -> View:
    """Make the view in ``folder``, an empty one without ``home``; ``length`` is that of object names."""
    path = folder / "view.git"
    await init(path, length)
    if home is None:
        return View(folder=folder, path=path)
    refs, head = operator.known_objects(home)
    borrow(path, home)
    # Written as git packs refs (gitrepository-layout(5)): one file for any number of them.
    lines = "".join(f"{oid} {_KNOWN}/{number:08}\n" for number, oid in enumerate(refs))
    _write_text(path / "packed-refs", f"# pack-refs with: sorted \n{lines}")
    return View(folder=folder, path=path, known=refs, head=head)


def _write_text(place: Path, text: str) -> None:
    place.write_text(text)


async def init(path: Path, length: int) -> None:
    """Make a bare repository of ours."""
    form = "sha256" if length == 64 else "sha1"
    start = ["init", "--quiet", "--bare", "--template=", f"--object-format={form}", "--initial-branch=main"]
    await git.run(None, [*start, str(path)], cwd=path.parent)


def borrow(path: Path, home: Repository) -> None:
    """Let a repository of ours see the operator's objects, and where their history was cut off."""
    lend(home.stores, path / "objects", path / "lent")
    operator.copy_shallow(home.common / "shallow", path / "shallow")


def require_free(home: Repository, branch: str) -> str:
    """Give where a branch stands, ``""`` where there is none; raises ``UsageError`` where it is in use."""
    branches: Mapping[str, tuple[str, str]] = operator.branches(home)
    oid, folder = branches.get(branch, ("", ""))
    if folder:
        raise UsageError(
            f"{branch} is checked out in {folder}; switch that to another branch, or use --branch"
        )
    return oid
