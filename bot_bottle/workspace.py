"""The private copy of the operator's folder that ``--cwd`` puts into a bottle.

What goes in: every tracked file as it lies in the folder now, and every untracked file that git does not
ignore and that does not look like a credential; those of submodules too. In a repository's top folder a fresh
``.git`` goes with it: all branches and tags, the index at HEAD, no hook, no remote and none of the operator's
configuration. Nothing is mounted; nothing comes back
by itself. Files are opened from the folder downwards, one real folder at a time, so that a folder replaced
by a link never brings in what lies elsewhere.
"""

from __future__ import annotations

import os
import stat
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NoReturn

from bot_bottle.errors import BotBottleError, UsageError
from bot_bottle.pipelock.file_names import is_credential_file
from bot_bottle.repository import find_repository, fresh_git, visible_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_GIT_DIR = ".git"
_MAX_SUBMODULE_DEPTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSource:
    """What will be copied: ``files`` are relative to ``root``; ``git_dir`` is the fresh ``.git`` or None.

    ``left_out`` has a line for each thing that is not; ``suspects`` are tracked files that look like
    credentials, which would be in the history anyway.
    """

    root: Path
    files: tuple[str, ...]
    git_dir: Path | None = None
    left_out: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()

    def write(self, archive: tarfile.TarFile, count: Callable[[int], None] | None = None) -> None:
        """Write everything to an archive for the bottle's workspace; links stay links, set-id bits go.

        ``count`` hears the size of each file once it is in.
        """
        _add_files(archive, self.root, self.files, "", count)
        if self.git_dir is not None:
            for empty in ("refs/heads", "refs/tags", "objects", "hooks"):  # git wants these even when empty
                member = archive.tarinfo(f"{_GIT_DIR}/{empty}")
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(member)
            _add_files(archive, self.git_dir, _walk(self.git_dir), f"{_GIT_DIR}/")


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


@contextmanager
def open_workspace(folder: Path) -> Iterator[WorkspaceSource]:
    """Find what ``folder`` would put into a bottle; the fresh ``.git`` lives until the body ends.

    Raises ``UsageError`` for what is not to be copied, ``LaunchError`` where git fails.
    """
    folder = check_workspace(folder)
    inside, repository = find_repository(folder)
    if not inside:
        files, out = _without_credentials(_walk(folder))
        yield WorkspaceSource(root=folder, files=tuple(files), left_out=tuple(out))
        return
    with tempfile.TemporaryDirectory(prefix="bot-bottle-git-") as temporary:
        listing = visible_files(folder)
        untracked, out = _without_credentials(listing.untracked)
        for name in listing.submodules:
            found, missing = _submodule(folder, name)
            untracked += found
            out += missing
        git_dir = fresh_git(repository, Path(temporary), listing.sparse) if repository else None
        yield WorkspaceSource(
            root=folder,
            files=(*listing.tracked, *untracked),
            git_dir=git_dir,
            left_out=tuple(out),
            suspects=tuple(name for name in listing.tracked if is_credential_file(name)),
        )


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
    out = [f"{name}/{line}" for line in out]
    for inner in listing.submodules:
        found, missing = _submodule(folder, f"{name}/{inner}", depth + 1)
        files += found
        out += missing
    return files, out


def _walk(folder: Path) -> Iterator[str]:
    """List the files and links below a folder that is no repository, without any repository in it."""
    for parent, folders, files in os.walk(folder, followlinks=False, onerror=_unreadable):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links) - {_GIT_DIR})
        for name in sorted({*files, *links} - {_GIT_DIR}):
            yield str(Path(parent, name).relative_to(folder))


def _add_files(
    archive: tarfile.TarFile,
    root: Path,
    names: Iterable[str],
    prefix: str,
    count: Callable[[int], None] | None = None,
) -> None:
    """Add the files ``names`` below ``root``; what is gone, or lies behind a link, counts as deleted."""
    top = os.open(root, _OPEN_DIR)
    held: tuple[tuple[str, ...], int] | None = None
    try:
        for name in names:
            *folders, last = PurePath(name).parts
            if PurePath(name).is_absolute() or not {"..", _GIT_DIR}.isdisjoint((*folders, last)):
                continue  # only an index made by hand has such names
            if held is None or held[0] != tuple(folders):
                if held is not None:
                    os.close(held[1])
                    held = None
                parent = _open_folder(top, folders)
                if parent is None:
                    continue
                held = (tuple(folders), parent)
            size = _add(archive, held[1], last, f"{prefix}{name}", root / name)
            if count is not None:
                count(size)
    finally:
        if held is not None:
            os.close(held[1])
        os.close(top)


def _open_folder(top: int, folders: Iterable[str]) -> int | None:
    """Open a folder below ``top`` step by step; None where one of them is missing, a file or a link."""
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


def _add(archive: tarfile.TarFile, parent: int, name: str, arcname: str, path: Path) -> int:
    """Add one file or link, if it is one; gives the bytes it has."""
    try:
        kind = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        member = tarfile.TarInfo(arcname)
        if stat.S_ISLNK(kind):
            member.type, member.mode = tarfile.SYMTYPE, 0o777
            member.linkname = os.readlink(name, dir_fd=parent)
            archive.addfile(member)
            return 0
        if not stat.S_ISREG(kind):
            return 0
        descriptor = os.open(name, _OPEN_FILE, dir_fd=parent)
    except FileNotFoundError:  # tracked, and deleted in the work tree: the copy shows it as deleted too
        return 0
    except OSError as error:
        error.filename = str(path)
        _unreadable(error)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            member.size, member.mtime, member.mode = status.st_size, status.st_mtime, status.st_mode & 0o755
            archive.addfile(member, file)
        return member.size


def _unreadable(error: OSError) -> NoReturn:
    raise UsageError(
        f"{error.filename}: cannot be copied into the bottle ({error.strerror}); make it readable, "
        "move it away or let git ignore it"
    ) from error
