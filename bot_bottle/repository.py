"""The operator's repository, read as if a stranger had made it.

A project folder may have come with its ``.git`` (an unpacked archive, a shared disk), so nothing in there is
believed. No command that could start a program or a transfer from its configuration runs in it: monitors,
hooks and prompts are off, every protocol is refused (``GIT_ALLOW_PROTOCOL`` beats the repository's own
setting) and missing objects are never fetched (CVE-2024-32004, CVE-2024-32465 and their kin). Objects are
read as data by a repository of ours; and a ``.git`` that leads elsewhere is refused, since it could show the
agent another project of the operator's.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bot_bottle import process
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.files import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from subprocess import CompletedProcess

_GIT_TIMEOUT = 600.0
_MAX_SHALLOW = 1 << 20
_GIT = (
    "git",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.untrackedCache=false"),
    *("-c", "gc.auto=0"),
    *("-c", "core.logAllRefUpdates=false"),  # a reflog line would name the operator's folder
)
#: What is packed already is taken as it is; the rest is not worth a search for deltas in a copy.
_QUICK_PACKING = ("-c", "pack.window=0", "-c", "pack.compression=1", "-c", "core.fsync=none")
_PASSED_ENV = ("PATH", "HOME", "LANG", "XDG_CONFIG_HOME", "SUDO_UID")
_OUR_ENV = {
    "LC_ALL": "C.UTF-8",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_REPLACE_OBJECTS": "1",
    # glibc gives memory back to the kernel after each loose object otherwise, which is half of reading them.
    "MALLOC_TOP_PAD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository whose top folder is ``folder``; ``common`` is where its objects and refs lie."""

    folder: Path
    git_dir: Path
    common: Path


def find_repository(folder: Path) -> tuple[bool, Repository | None]:
    """Tell whether ``folder`` lies in a repository, and give that repository if ``folder`` is its top.

    Raises ``UsageError`` where its ``.git`` leads to what is not this folder's own, ``LaunchError`` where git
    cannot read it.
    """
    asked = ("--path-format=absolute", "--show-toplevel", "--git-dir", "--git-common-dir")
    result = _git(["rev-parse", *asked], cwd=folder, check=False)
    if result.returncode != 0:
        if b"not a git repository" in result.stderr and not os.path.lexists(folder / ".git"):
            return False, None
        reason = process.first_line(result.stderr, "no reason given")
        raise LaunchError(f"{folder}: git cannot read this repository: {reason}")
    lines = [Path(os.fsdecode(line)).resolve() for line in result.stdout.splitlines()]
    if len(lines) != 3:
        raise LaunchError(f"{folder}: git gives no usable paths for this repository")
    top, git_dir, common = lines
    if top != folder:
        return True, None
    repository = Repository(folder=folder, git_dir=git_dir, common=common)
    _refuse_foreign(repository)
    _refuse_borrowed(repository)
    return True, repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Files of a repository, relative to its folder: ``untracked`` are those that git does not ignore.

    ``submodules`` are folders, not files. ``sparse`` are tracked files that are meant not to be there.
    """

    tracked: tuple[str, ...]
    untracked: tuple[str, ...]
    submodules: tuple[str, ...]
    sparse: tuple[str, ...]


def visible_files(folder: Path) -> Listing:
    """List what git sees in ``folder``; raises ``LaunchError``."""
    tracked: dict[str, None] = {}
    submodules, sparse = [], []
    for line in _git(["ls-files", "-z", "-t", "--stage"], cwd=folder).stdout.split(b"\0"):
        if not line:
            continue
        facts, _, path = line.partition(b"\t")
        tag, mode, *_ = facts.split(b" ")
        name = os.fsdecode(path)
        if mode == b"160000":
            submodules.append(name)
        elif tag == b"S":
            sparse.append(name)
        else:
            tracked[name] = None
    listing = _git(["ls-files", "-z", "--others", "--exclude-standard"], cwd=folder).stdout
    untracked = (os.fsdecode(name) for name in listing.split(b"\0") if name)
    return Listing(
        tracked=tuple(tracked),
        untracked=tuple(name for name in untracked if not name.endswith("/")),
        submodules=tuple(submodules),
        sparse=tuple(sparse),
    )


def fresh_git(source: Repository, temporary: Path, sparse: Sequence[str] = ()) -> Path:
    """Make in ``temporary`` a repository with the source's commits, branches and tags and nothing else of it.

    Its index says of ``sparse`` files that they are meant not to be there.

    The only process that sees the source's objects runs in the new repository, under our configuration.
    """
    target = temporary / "repository"
    head = _git(["symbolic-ref", "--quiet", "--short", "HEAD"], cwd=source.folder, check=False)
    branch = os.fsdecode(head.stdout.strip()) or "main"
    form = os.fsdecode(_git(["rev-parse", "--show-object-format"], cwd=source.folder).stdout.strip())
    start = ["init", "--quiet", "--template=", f"--object-format={form}", f"--initial-branch={branch}"]
    _git([*start, str(target)], cwd=temporary)
    git_dir = target / ".git"
    commit = _git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], cwd=source.folder, check=False)
    if commit.returncode != 0:
        return git_dir
    listing = ["for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"]
    names = [line.split(b" ", 1) for line in _git(listing, cwd=source.folder).stdout.splitlines()]
    refs = b"".join(b"create %b\0%b\0" % (name, commit_id) for commit_id, name in names)
    alternates = git_dir / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_bytes(os.fsencode(source.common / "objects") + b"\n")
    copy_shallow(source.common / "shallow", git_dir / "shallow")
    _git(["update-ref", "-z", "--stdin"], cwd=target, given=refs)
    if head.returncode != 0:  # the operator's HEAD is detached: so is the copy's
        _git(["update-ref", "--no-deref", "HEAD", os.fsdecode(commit.stdout.strip())], cwd=target)
    _pack(source, target)
    alternates.unlink()
    _git(["read-tree", "HEAD"], cwd=target)
    if sparse:
        hidden = b"".join(os.fsencode(name) + b"\0" for name in sparse)
        # One that HEAD does not have is new and sparse at once: it is left as it is.
        _git(["update-index", "-z", "--skip-worktree", "--stdin"], cwd=target, given=hidden, check=False)
    remove_tree(git_dir / "hooks")
    return git_dir


def _pack(source: Repository, target: Path) -> None:
    """Make what ``target`` borrows its own; raises ``UsageError`` where the source lacks some of it."""
    packed = _git(["repack", "-a", "-d", "-q"], cwd=target, check=False, config=_QUICK_PACKING)
    if packed.returncode == 0:
        return
    reason = process.first_line(packed.stderr, "no reason given")
    if any((source.common / "objects" / "pack").glob("*.promisor")):
        raise UsageError(
            f"{source.folder}: is a partial clone, and what it lacks is not asked for here; make it whole "
            "first: git fetch --refetch --no-filter"
        )
    raise LaunchError(f"{source.folder}: its history cannot be packed: git says: {reason}")


def _refuse_foreign(repository: Repository) -> None:
    """Refuse a ``.git`` that leads to a place which does not lead back."""
    dot_git = repository.folder / ".git"
    if dot_git.is_symlink():
        own = False
    elif dot_git.is_dir():
        own = repository.git_dir == dot_git == repository.common
    else:
        own = _is_worktree_of(repository, dot_git) or _is_submodule_of(repository)
    if not own:
        raise UsageError(
            f"{dot_git}: leads to {repository.git_dir}, which is not this folder's own repository; "
            "use a plain clone, or move .git away to copy the files alone"
        )


def _is_worktree_of(repository: Repository, dot_git: Path) -> bool:
    # gitrepository-layout(5): a linked worktree's folder names, in gitdir, the .git file that leads there.
    try:
        back = (repository.git_dir / "gitdir").read_text("utf-8", "surrogateescape").rstrip("\n")
    except OSError:
        return False
    return (repository.git_dir / back).resolve() == dot_git and (
        repository.git_dir.parent == repository.common / "worktrees"
    )


def _is_submodule_of(repository: Repository) -> bool:
    config = [
        "config",
        "--file",
        str(repository.git_dir / "config"),
        "--no-includes",
        "--get",
        "core.worktree",
    ]
    found = _git(config, cwd=repository.folder, check=False).stdout.rstrip(b"\n")
    back = (repository.git_dir / os.fsdecode(found)).resolve() if found else None
    return repository.common == repository.git_dir and back == repository.folder


def _refuse_borrowed(repository: Repository) -> None:
    """Refuse objects and refs that lie in somebody else's repository."""
    common = repository.common
    if os.path.lexists(common / "objects" / "info" / "alternates"):
        raise UsageError(
            f"{common / 'objects/info/alternates'}: this repository borrows objects from another one; "
            "make it whole first: git repack -a -d && rm .git/objects/info/alternates"
        )
    for path in _links_that_are_read(repository):
        if not path.resolve().is_relative_to(common):
            raise UsageError(f"{path}: is a link out of the repository; replace it by what it leads to")


def _links_that_are_read(repository: Repository) -> Iterator[Path]:
    for base in {repository.common, repository.git_dir}:
        for name in ("HEAD", "packed-refs", "shallow", "index", "objects", "refs", "commondir"):
            if (base / name).is_symlink():
                yield base / name
    waiting = [str(repository.common / name) for name in ("objects", "refs")]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield Path(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def known_objects(source: Repository) -> tuple[tuple[str, ...], str]:
    """List what the repository's refs lead to, each once, and the commit it is at (``""``: none)."""
    listing = (
        _git(["for-each-ref", "--format=%(objectname)"], cwd=source.folder).stdout.decode("ascii").split()
    )
    head = _git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], cwd=source.folder, check=False)
    commit = head.stdout.decode("ascii").strip() if head.returncode == 0 else ""
    return tuple(dict.fromkeys([*listing, *([commit] if commit else [])])), commit


def branches(source: Repository) -> dict[str, tuple[str, str]]:
    """List branches by name (without ``refs/heads/``): the commit, and the folder it is checked out in."""
    listing = ["for-each-ref", "--format=%(refname)%00%(objectname)%00%(worktreepath)%00", "refs/heads"]
    found = {}
    for line in _git(listing, cwd=source.folder).stdout.split(b"\0\n"):
        name, _, rest = line.partition(b"\0")
        oid, _, folder = rest.partition(b"\0")
        if name:
            found[os.fsdecode(name).removeprefix("refs/heads/")] = (oid.decode("ascii"), os.fsdecode(folder))
    return found


def add_pack(target: Repository, pack: Path) -> None:
    """Add a pack's objects, checked by ``fsck`` once more; raises ``LaunchError``."""
    with pack.open("rb") as source:
        _git(["index-pack", "--stdin", "--strict"], cwd=target.folder, source=source)


def move_branch(target: Repository, branch: str, *, old: str, new: str) -> None:
    """Let a branch lead to ``new``, from ``old`` (``""``: from nothing); raises ``LaunchError``."""
    ref = os.fsencode(f"refs/heads/{branch}")
    line = (
        b"update %b\0%b\0%b\0" % (ref, new.encode(), old.encode())
        if old
        else b"create %b\0%b\0" % (ref, new.encode())
    )
    _git(["update-ref", "-z", "--stdin"], cwd=target.folder, given=line)


def copy_shallow(source: Path, target: Path) -> None:
    """Copy the list of commits whose parents are not there (gitrepository-layout(5)), if it is one."""
    try:
        with source.open("rb") as file:
            data = file.read(_MAX_SHALLOW)
    except FileNotFoundError:
        return
    if all(len(line) in {40, 64} and line.isalnum() for line in data.splitlines()):
        target.write_bytes(data)


def _git(
    arguments: Sequence[str],
    *,
    cwd: Path,
    check: bool = True,
    given: bytes = b"",
    source: BinaryIO | None = None,
    config: Sequence[str] = (),
) -> CompletedProcess[bytes]:
    env = {name: os.environ[name] for name in _PASSED_ENV if name in os.environ} | _OUR_ENV
    result = process.run(
        [*_GIT, *config, *arguments], cwd=cwd, env=env, timeout=_GIT_TIMEOUT, given=given, source=source
    )
    if check and result.returncode != 0:
        reason = process.first_line(result.stderr, "no reason given")
        raise LaunchError(f"git {arguments[0]} failed in {cwd}: it says: {reason}")
    return result
