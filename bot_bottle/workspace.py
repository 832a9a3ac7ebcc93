"""The private copy of the operator's folder that ``--cwd`` puts into a bottle.

What goes in: every tracked file as it lies in the folder now, and every untracked file that git does not
ignore. In a repository's top folder a fresh ``.git`` goes with it: all branches and tags, the index at
HEAD, no hook, no remote and none of the operator's configuration. Nothing is mounted; nothing comes back
by itself. The operator's git is run with file-system monitors, hooks and prompts off.
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bot_bottle import process
from bot_bottle.errors import LaunchError, UsageError

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator, Sequence
    from subprocess import CompletedProcess

_GIT_TIMEOUT = 600.0
# Settings that would let a repository's configuration start programs (CVE-2022-24765 and its kin).
_GIT = (
    "git",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.untrackedCache=false"),
    *("-c", "protocol.allow=never"),
    *("-c", "protocol.file.allow=always"),
    *("-c", "gc.auto=0"),
    *("-c", "core.logAllRefUpdates=false"),  # a reflog line would name the operator's folder
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceSource:
    """What will be copied: ``files`` are relative to ``root``; ``git_dir`` is the fresh ``.git`` or None."""

    root: Path
    files: tuple[str, ...]
    git_dir: Path | None = None

    def write(self, archive: tarfile.TarFile) -> None:
        """Write everything to an archive for the bottle's workspace; links stay links, set-id bits go."""
        for name in self.files:
            _add(archive, self.root / name, name)
        if self.git_dir is not None:
            _add_tree(archive, self.git_dir, ".git")


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

    Raises ``UsageError`` where the folder cannot be read, ``LaunchError`` where git fails on it.
    """
    folder = check_workspace(folder)
    top = _top_level(folder)
    if top is None:
        yield WorkspaceSource(root=folder, files=tuple(_walk(folder)))
        return
    with tempfile.TemporaryDirectory(prefix="bot-bottle-git-") as temporary:
        git_dir = _fresh_git(folder, Path(temporary)) if top == folder else None
        yield WorkspaceSource(root=folder, files=_git_files(folder), git_dir=git_dir)


def _top_level(folder: Path) -> Path | None:
    result = _git(["rev-parse", "--show-toplevel"], cwd=folder, check=False)
    if result.returncode == 0:
        return Path(os.fsdecode(result.stdout.rstrip(b"\n"))).resolve()
    words = result.stderr.decode("utf-8", "replace")
    if "not a git repository" in words and not (folder / ".git").exists():
        return None
    raise LaunchError(
        f"{folder}: git cannot read this repository: {process.first_line(result.stderr, 'no reason')}"
    )


def _git_files(folder: Path) -> tuple[str, ...]:
    listing = _git(["ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=folder).stdout
    names = dict.fromkeys(os.fsdecode(name) for name in listing.split(b"\0") if name)
    return tuple(name for name in names if not name.endswith("/"))


def _fresh_git(folder: Path, temporary: Path) -> Path:
    """Make a repository with the operator's commits and nothing else of its ``.git``."""
    target = temporary / "repository"
    head = _git(["symbolic-ref", "--quiet", "--short", "HEAD"], cwd=folder, check=False)
    branch = os.fsdecode(head.stdout.strip()) or "main"
    _git(["init", "--quiet", "--template=", f"--initial-branch={branch}", str(target)], cwd=temporary)
    commit = _git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], cwd=folder, check=False)
    if commit.returncode == 0:
        refspecs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/bot-bottle/head"]
        fetch = [
            "fetch",
            "--quiet",
            "--no-tags",
            "--update-head-ok",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
        ]
        _git([*fetch, str(folder), *refspecs], cwd=target)
        if head.returncode != 0:  # the operator's HEAD is detached: so is the copy's
            _git(["update-ref", "--no-deref", "HEAD", "refs/bot-bottle/head"], cwd=target)
        _git(["update-ref", "-d", "refs/bot-bottle/head"], cwd=target)
        _git(["read-tree", "HEAD"], cwd=target)
    return target / ".git"


def _git(arguments: Sequence[str], *, cwd: Path, check: bool = True) -> CompletedProcess[bytes]:
    keep = ("PATH", "HOME", "LANG", "LC_ALL", "XDG_CONFIG_HOME", "SUDO_UID")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env |= {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_OPTIONAL_LOCKS": "0",
        "LC_ALL": "C.UTF-8",
        "GIT_PROTOCOL_FROM_USER": "0",
    }
    result = process.run([*_GIT, *arguments], cwd=cwd, env=env, timeout=_GIT_TIMEOUT)
    if check and result.returncode != 0:
        raise LaunchError(
            f"git {arguments[0]} failed in {cwd}: {process.first_line(result.stderr, 'no reason given')}"
        )
    return result


def _walk(folder: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(folder, followlinks=False, onerror=_unreadable):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links))
        for name in sorted([*files, *links]):
            yield str((Path(parent) / name).relative_to(folder))


def _add_tree(archive: tarfile.TarFile, folder: Path, arcname: str) -> None:
    for name in _walk(folder):
        _add(archive, folder / name, f"{arcname}/{name}")
    for empty in ("refs/heads", "refs/tags", "objects", "hooks"):  # git wants these even when they are empty
        member = archive.tarinfo(f"{arcname}/{empty}")
        member.type, member.mode = b"5", 0o755
        archive.addfile(member)


def _add(archive: tarfile.TarFile, path: Path, arcname: str) -> None:
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:  # tracked, and deleted in the work tree: the copy shows it as deleted too
        return
    if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
        return
    member = archive.gettarinfo(str(path), arcname=arcname)
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode &= 0o755
    if member.issym():
        archive.addfile(member)
        return
    member.type = b"0"  # a second name of one file is copied as a file of its own
    member.linkname = ""
    member.size = path.lstat().st_size
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        _unreadable(error)
    with os.fdopen(descriptor, "rb") as file:
        archive.addfile(member, file)


def _unreadable(error: OSError) -> NoReturn:
    raise UsageError(
        f"{error.filename}: cannot be copied into the bottle ({error.strerror}); make it readable, "
        "move it away or let git ignore it"
    ) from error
