"""The operator's repository, read as if a stranger had made it.

A project folder may have come with its ``.git`` (an unpacked archive, a shared disk), so nothing in there is
believed. No command that could start a program or a transfer from its configuration runs in it: monitors,
hooks and prompts are off, every protocol is refused (``GIT_ALLOW_PROTOCOL`` beats the repository's own
setting) and missing objects are never fetched (CVE-2024-32004, CVE-2024-32465 and their kin). Objects are
read as data by a repository of ours (:mod:`~bot_bottle.fresh_git`); and a ``.git`` that leads elsewhere is
refused, since it could show the agent another project of the operator's. Who lends it objects is found out
here and not by git (:mod:`~bot_bottle.lenders`).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, BinaryIO

from bot_bottle import process
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.files import remove_tree
from bot_bottle.lenders import Trust, check_store, find_lenders, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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
    """A repository whose top folder is ``folder``; ``common`` is where its objects and refs lie.

    ``lenders`` are the objects folders that it borrows from, each one that may lend.
    """

    folder: Path
    git_dir: Path
    common: Path
    lenders: tuple[Path, ...] = ()

    @property
    def stores(self) -> tuple[Path, ...]:
        """All folders that hold its objects, its own first."""
        return (self.common / "objects", *self.lenders)


def find_repository(folder: Path) -> tuple[bool, Repository | None]:
    """Tell whether ``folder`` lies in a repository, and give that repository if ``folder`` is its top.

    Raises ``UsageError`` where its ``.git`` leads to what is not this folder's own, ``LaunchError`` where git
    cannot read it.
    """
    asked = ("--path-format=absolute", "--show-toplevel", "--git-dir", "--git-common-dir")
    result = run_git(["rev-parse", *asked], cwd=folder, check=False)
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
    _refuse_odd(repository)
    return True, replace(repository, lenders=_lenders(common / "objects"))


def _lenders(objects: Path) -> tuple[Path, ...]:
    if not os.path.lexists(objects / "info" / "alternates"):
        return ()
    from bot_bottle.operator_config import load_operator_config  # noqa: PLC0415 - most borrow nothing

    return find_lenders(objects, Trust.of_operator(load_operator_config().lenders))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Files of a repository, relative to its folder: ``untracked`` are those that git does not ignore.

    ``submodules`` are folders, not files, and so are ``nested``, repositories that are none. ``sparse`` are
    tracked files that git takes for unchanged whatever lies there; most of them are not there.
    """

    tracked: tuple[str, ...]
    untracked: tuple[str, ...]
    submodules: tuple[str, ...]
    sparse: tuple[str, ...]
    nested: tuple[str, ...] = ()


def visible_files(folder: Path) -> Listing:
    """List what git sees in ``folder``; raises ``LaunchError``."""
    tracked: dict[str, None] = {}
    submodules, sparse = [], []
    for line in run_git(["ls-files", "-z", "-t", "--stage"], cwd=folder).stdout.split(b"\0"):
        if not line:
            continue
        facts, _, path = line.partition(b"\t")
        tag, mode, *_ = facts.split(b" ")
        name = os.fsdecode(path)
        if mode == b"160000":
            submodules.append(name)
            continue
        if tag == b"S":
            sparse.append(name)
        if tag != b"S" or os.path.lexists(folder / name):
            tracked[name] = None
    listing = run_git(["ls-files", "-z", "--others", "--exclude-standard"], cwd=folder).stdout
    untracked = [os.fsdecode(name) for name in listing.split(b"\0") if name]
    return Listing(
        tracked=tuple(tracked),
        untracked=tuple(name for name in untracked if not name.endswith("/")),
        submodules=tuple(submodules),
        sparse=tuple(sparse),
        nested=tuple(name for name in untracked if name.endswith("/")),
    )


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
    found = run_git(config, cwd=repository.folder, check=False).stdout.rstrip(b"\n")
    back = (repository.git_dir / os.fsdecode(found)).resolve() if found else None
    return repository.common == repository.git_dir and back == repository.folder


def _refuse_odd(repository: Repository) -> None:
    """Refuse refs and objects that lie in somebody else's repository, and what reading would wait at."""
    common = repository.common
    for base in {common, repository.git_dir}:
        for name in ("HEAD", "packed-refs", "shallow", "index", "objects", "refs", "commondir"):
            path = base / name
            if path.is_symlink() and not path.resolve().is_relative_to(common):
                raise UsageError(f"{path}: is a link out of the repository; replace it by what it leads to")
    for name in ("objects", "refs"):
        check_store(common / name, within=common)


def known_objects(source: Repository) -> tuple[tuple[str, ...], str]:
    """List what the repository's refs lead to, each once, and the commit it is at (``""``: none)."""
    listing = (
        run_git(["for-each-ref", "--format=%(objectname)"], cwd=source.folder).stdout.decode("ascii").split()
    )
    head = run_git(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], cwd=source.folder, check=False)
    commit = head.stdout.decode("ascii").strip() if head.returncode == 0 else ""
    return tuple(dict.fromkeys([*listing, *([commit] if commit else [])])), commit


def branches(source: Repository) -> dict[str, tuple[str, str]]:
    """List branches by name (without ``refs/heads/``): the commit, and the folder it is checked out in."""
    listing = ["for-each-ref", "--format=%(refname)%00%(objectname)%00%(worktreepath)%00", "refs/heads"]
    found = {}
    for line in run_git(listing, cwd=source.folder).stdout.split(b"\0\n"):
        name, _, rest = line.partition(b"\0")
        oid, _, folder = rest.partition(b"\0")
        if name:
            found[os.fsdecode(name).removeprefix("refs/heads/")] = (oid.decode("ascii"), os.fsdecode(folder))
    return found


def add_pack(target: Repository, pack: Path) -> None:
    """Add a pack's objects, checked by ``fsck`` once more, whole or not at all.

    Raises ``LaunchError``; nothing is left of it then.
    """
    objects = target.common / "objects"
    try:
        _add_pack(target, objects, pack)
    except OSError as error:
        raise LaunchError(f"{objects}: cannot be written: {error.strerror or error}") from error


def _add_pack(target: Repository, objects: Path, pack: Path) -> None:
    # What is left of one that is killed is what git itself leaves so, and removes one day (git-prune(1)).
    incoming = Path(tempfile.mkdtemp(prefix="tmp_objdir-incoming-", dir=objects))
    try:
        (incoming / "pack").mkdir()
        places = {
            "GIT_OBJECT_DIRECTORY": os.fspath(incoming),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.fsdecode(quoted(objects)),
        }
        with pack.open("rb") as source:
            run_git(["index-pack", "--stdin", "--strict"], cwd=target.folder, source=source, env=places)
        (objects / "pack").mkdir(exist_ok=True)
        # The index comes last, since it is what git looks for.
        for file in sorted((incoming / "pack").iterdir(), key=lambda one: one.suffix == ".idx"):
            if not (objects / "pack" / file.name).exists():
                file.rename(objects / "pack" / file.name)
    finally:
        remove_tree(incoming)


def move_branch(target: Repository, branch: str, *, old: str, new: str) -> None:
    """Let a branch lead to ``new``, from ``old`` (``""``: from nothing); raises ``LaunchError``."""
    ref = os.fsencode(f"refs/heads/{branch}")
    line = (
        b"update %b\0%b\0%b\0" % (ref, new.encode(), old.encode())
        if old
        else b"create %b\0%b\0" % (ref, new.encode())
    )
    run_git(["update-ref", "-z", "--stdin"], cwd=target.folder, given=line)


def copy_shallow(source: Path, target: Path) -> None:
    """Copy the list of commits whose parents are not there (gitrepository-layout(5)), if it is one."""
    try:
        with source.open("rb") as file:
            data = file.read(_MAX_SHALLOW)
    except FileNotFoundError:
        return
    if all(len(line) in {40, 64} and line.isalnum() for line in data.splitlines()):
        target.write_bytes(data)


def run_git(
    arguments: Sequence[str],
    *,
    cwd: Path,
    check: bool = True,
    given: bytes = b"",
    source: BinaryIO | None = None,
    sink: BinaryIO | None = None,
    config: Sequence[str] = (),
    env: Mapping[str, str] = MappingProxyType({}),
) -> CompletedProcess[bytes]:
    """Run git under our own environment and settings; ``source`` and ``sink`` are files to read and write.

    ``env`` is added to that environment. Raises ``LaunchError`` where it fails and ``check`` is set.
    """
    passed = {name: os.environ[name] for name in _PASSED_ENV if name in os.environ}
    result = process.run(
        [*_GIT, *config, *arguments],
        cwd=cwd,
        env={**passed, **_OUR_ENV, **env},
        timeout=_GIT_TIMEOUT,
        given=given,
        source=source,
        sink=sink,
    )
    if check and result.returncode != 0:
        reason = process.first_line(result.stderr, "no reason given")
        raise LaunchError(f"git {arguments[0]} failed in {cwd}: it says: {reason}")
    return result
