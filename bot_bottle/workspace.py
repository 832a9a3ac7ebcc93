"""The private copy of the operator's folder that ``--cwd`` puts into a bottle.

What goes in: every tracked file as it lies in the folder now, and every untracked file that git does not
ignore and that does not look like a credential; those of submodules too. In a repository's top folder a fresh
``.git`` goes with it: all branches and tags, the index at HEAD, no hook and none of the operator's
configuration; an ``origin`` only where theirs leads to a remote that the bottle declares, and as declared.
Nothing is mounted; nothing comes back by itself. Files are opened from the folder downwards, one real folder
at a time, so that a folder replaced by a link never brings in what lies elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from bot_bottle.errors import BotBottleError, UsageError
from bot_bottle.fresh_git import fresh_git
from bot_bottle.legible import legible
from bot_bottle.origin import add_origin, own_origin
from bot_bottle.pipelock.file_names import is_credential_file
from bot_bottle.repository import find_repository, visible_files
from bot_bottle.tar_stream import TarStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from bot_bottle.fresh_git import FreshGit
    from bot_bottle.git_gate.remote import GateRemote

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GIT_DIR = ".git"
#: No file has such a name, and no folder on the way to one.
_NO_NAMES = frozenset({"", ".", "..", _GIT_DIR})
_MAX_SUBMODULE_DEPTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSource:
    """What will be copied: ``files`` are relative to ``root``; ``git`` is the fresh ``.git`` or None.

    ``left_out`` has a line for each thing that is not; ``suspects`` are tracked files that look like
    credentials, which would be in the history anyway.
    """

    root: Path
    files: tuple[str, ...]
    git: FreshGit | None = None
    left_out: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()

    def write(self, sink: BinaryIO, count: Callable[[int], None] = lambda _size: None) -> None:
        """Write everything as a tar archive for the bottle's workspace; links stay links, set-id bits go.

        ``count`` hears the size of each file once it is in.
        """
        archive = TarStream(sink)
        _add_files(archive, self.root, self.files, "", count)
        if self.git is not None:
            for empty in ("refs/heads", "refs/tags", "objects", "hooks"):  # git wants these even when empty
                archive.folder(f"{_GIT_DIR}/{empty}".encode())
            _add_files(archive, self.git.folder, _walk(self.git.folder), f"{_GIT_DIR}/", lambda _size: None)
            for pack in self.git.packs:
                os.lseek(pack.descriptor, 0, os.SEEK_SET)
                archive.file(os.fsencode(f"{_GIT_DIR}/objects/pack/{pack.name}"), pack.descriptor)
        archive.finish()


def check_workspace(folder: Path) -> Path:
    """Give the folder with links resolved; raises ``UsageError`` for one that is no project folder."""
    folder = folder.resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder}: --cwd needs a folder")
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises for an account without one
    if folder in {Path("/"), Path("/tmp"), Path("/var/tmp"), Path(home).resolve()}:  # noqa: S108 - refused
        raise UsageError(
            f"{folder}: --cwd copies a project folder, not a whole home or system folder; change into one"
        )
    return folder


def look_at(folder: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Give the objects folders that a folder's repository borrows from, and what to say of the folder.

    Said is where work cannot come home to. Raises as below.
    """
    folder = check_workspace(folder)
    inside, repository = find_repository(folder)
    if repository:
        return repository.lenders, ()
    what, instead = (
        ("a part of a repository and comes without its history", "start in the repository's top folder")
        if inside
        else ("no git repository", "make it one (git init, and a commit)")
    )
    then = f"`diff` shows its work, `pull` cannot bring it; {instead} for that"
    return (), (f"{legible(str(folder))} is {what}: {then}",)


@contextlib.contextmanager
def open_workspace(
    folder: Path, *, shown: Sequence[Path] | None = None, remotes: Sequence[GateRemote] = ()
) -> Iterator[WorkspaceSource]:
    """Find what ``folder`` would put into a bottle; the fresh ``.git`` lives until the body ends.

    ``shown`` are the lenders that the operator was told of, where there was somebody to tell; ``remotes`` are
    those that the bottle declares. Raises ``UsageError`` for what is not to be copied, ``LaunchError`` where
    git fails.
    """
    folder = check_workspace(folder)
    inside, repository = find_repository(folder)
    if not inside:
        files, out = _without_credentials(_walk(folder))
        yield WorkspaceSource(root=folder, files=tuple(files), left_out=tuple(out))
        return
    if repository and shown is not None and not set(repository.lenders) <= set(shown):
        raise UsageError(f"{folder}: borrows objects from other places than a moment ago; start again")
    with contextlib.ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bot-bottle-git-")))
        listing = visible_files(folder)
        untracked, out = _without_credentials(listing.untracked)
        out += map(_is_nested, listing.nested)
        for name in listing.submodules:
            found, missing = _submodule(folder, name)
            untracked += found
            out += missing
        git = stack.enter_context(fresh_git(repository, temporary, listing.sparse)) if repository else None
        if git is not None and repository is not None and (origin := own_origin(repository, remotes)):
            add_origin(git.folder, origin)
        yield WorkspaceSource(
            root=folder,
            files=(*listing.tracked, *untracked),
            git=git,
            left_out=tuple(out),
            suspects=tuple(name for name in listing.tracked if is_credential_file(name)),
        )


def submodule_files(folder: Path, name: str) -> list[str]:
    """List what a start copies of the submodule ``name`` of a repository, from the top of ``folder``."""
    return _submodule(folder, name)[0]


def _without_credentials(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Part files that no commit has from those among them that look like credentials."""
    kept: list[str] = []
    out: list[str] = []
    for name in names:
        if is_credential_file(name):
            out.append(f"{name}: looks like it holds credentials, and git does not track it")
        else:
            kept.append(name)
    return kept, out


def _submodule(folder: Path, name: str, depth: int = 0) -> tuple[list[str], list[str]]:
    """List a submodule's files, its own submodules' too; its history is another repository and stays out."""
    place = folder / name
    if place.is_symlink() or not (place / _GIT_DIR).exists():
        return [], []  # never checked out
    try:
        if depth > _MAX_SUBMODULE_DEPTH or find_repository(place.resolve())[1] is None:
            raise UsageError(f"{place} is no repository of its own")
        listing = visible_files(place)
    except BotBottleError as error:
        return [], [f"{name}/: {error}"]
    files, out = _without_credentials(listing.untracked)
    files = [f"{name}/{file}" for file in (*listing.tracked, *files)]
    out = [f"{name}/{line}" for line in (*out, *map(_is_nested, listing.nested))]
    for inner in listing.submodules:
        found, missing = _submodule(folder, f"{name}/{inner}", depth + 1)
        files += found
        out += missing
    return files, out


def _is_nested(name: str) -> str:
    return f"{name}: is a repository of its own and no submodule; start a bottle in it, or let git ignore it"


def _walk(folder: Path) -> Iterator[str]:
    """List the files and links below a folder that is no repository, without any repository in it."""
    waiting = [""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(f"{folder}/{below}") as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            _unreadable(error)
        entries = [entry for entry in entries if entry.name != _GIT_DIR]
        yield from (f"{below}{entry.name}" for entry in entries if not entry.is_dir(follow_symlinks=False))
        folders = [f"{below}{entry.name}/" for entry in entries if entry.is_dir(follow_symlinks=False)]
        waiting += reversed(folders)


def _add_files(
    archive: TarStream, root: Path, names: Iterable[str], prefix: str, count: Callable[[int], None]
) -> None:
    """Add the files ``names`` below ``root``; what is gone, or lies behind a link, counts as deleted."""
    top = os.open(root, _OPEN_DIR)
    held: tuple[str, int | None] = ("", None)
    try:
        held = ("", os.dup(top))
        for name in names:
            folder, _, last = name.rpartition("/")
            if folder != held[0]:  # a folder's files come one after the other
                if held[1] is not None:
                    os.close(held[1])
                held = (folder, None)
                held = (folder, _open_folder(top, folder.split("/") if folder else ()))
            if held[1] is None or last in _NO_NAMES:
                continue
            try:
                size = _add(archive, held[1], last, os.fsencode(f"{prefix}{name}"))
            except BrokenPipeError:
                raise  # what reads the archive has ended, and says why
            except OSError as error:
                error.filename = str(root / name)
                _unreadable(error)
            count(size)
    finally:
        if held[1] is not None:
            os.close(held[1])
        os.close(top)


def _open_folder(top: int, folders: Sequence[str]) -> int | None:
    """Open a folder below ``top`` step by step; None where one of them is missing, a file or a link.

    So is one that only an index made by hand has (``..``, ``.git``, an absolute path).
    """
    if not _NO_NAMES.isdisjoint(folders):
        return None
    current = os.dup(top)
    for folder in folders:
        try:
            below = os.open(folder, _OPEN_DIR, dir_fd=current)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if stat.S_ISLNK(os.stat(folder, dir_fd=current, follow_symlinks=False).st_mode):
                return None
            _unreadable(error)
        finally:
            os.close(current)
        current = below
    return current


def _add(archive: TarStream, parent: int, name: str, arcname: bytes) -> int:
    """Add one file or link, if it is one; gives the bytes it has. Raises ``OSError``."""
    try:
        kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        if stat.S_ISLNK(kind):
            archive.link(arcname, os.fsencode(os.readlink(name, dir_fd=parent)))
            return 0
        if not stat.S_ISREG(kind):  # a device is not even opened
            return 0
        descriptor = os.open(name, _OPEN_FILE, dir_fd=parent)
    except FileNotFoundError:  # tracked, and deleted in the work tree: the copy shows it as deleted too
        return 0
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return 0
        return archive.file(arcname, descriptor)
    finally:
        os.close(descriptor)


def _unreadable(error: OSError) -> NoReturn:
    raise UsageError(
        f"{error.filename}: cannot be copied into the bottle ({error.strerror or error}); make it readable, "
        "move it away or let git ignore it"
    ) from error
