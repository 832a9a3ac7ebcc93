"""What lies in a workspace beyond its last commit, made a commit without any git at work in that folder.

Contents are hashed here and written through ``git fast-import``, a stream of data: no filter, hook, attribute
or line-ending rule of the bottle has a part in it. Which untracked files are meant is asked of git in a
folder of ours that holds copies of the ``.gitignore`` files and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError
from bot_bottle.git_gate import git
from bot_bottle.retrieval.commands import feed
from bot_bottle.retrieval.index import Index, read_index
from bot_bottle.retrieval.tree import GIT_DIR, last_part, read_small

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bot_bottle.retrieval.tree import Entry, Tree

_REF = "refs/bot-bottle/uncommitted"
_PEOPLE = b"bot-bottle <uncommitted@bot-bottle.invalid>"
_IGNORE_FILE = b".gitignore"
_MAX_IGNORE_FILE = 1 << 20
#: A larger file is left out: a blob has to be held whole by most of git.
_MAX_FILE = 1 << 30
#: Of all files together, by the size they claim: holes cost their maker nothing.
_MAX_TOTAL = 64 << 30
_PIECE = 1 << 20
_SECONDS = 3600.0
_FILE, _PROGRAM, _LINK, _SUBMODULE = b"100644", b"100755", b"120000", b"160000"
_UNPLAIN = re.compile(rb"[\x00-\x1f\x7f\"\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncommitted:
    """The commit that holds it (``""``: none), how many paths differ, and what was left out and why."""

    commit: str
    changed: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """What a path becomes; no mode means that it goes."""

    path: bytes
    mode: bytes = b""


async def commit_folder(
    tree: Tree, repository: Path, parent: str, message: str, *, only: Iterable[bytes] | None = None
) -> Uncommitted:
    """Make a commit of a workspace's files on top of ``parent`` (``""``: of nothing) in our ``repository``.

    ``only`` names the files that are meant; otherwise they are those of ``parent`` and of the index, and
    whatever is not ignored. A file that the index says is not to be there is none that is gone. Raises
    ``UsageError`` and ``GitError``.
    """
    nested: list[bytes] = []
    unreadable: list[bytes] = []
    entries = {entry.path: entry for entry in tree.entries(nested=nested, unread=unreadable)}
    index = await read_index(tree, repository) if only is None else Index()
    known = await _listing(repository, parent) if parent else {}
    submodules = {path for path, (mode, _) in known.items() if mode == _SUBMODULE}
    left_out = [_is_nested(tree, path) for path in nested if path not in submodules]
    left_out += [f"{os.fsdecode(path) or '.'}/: cannot be read, or lies too deep" for path in unreadable]
    if index.unread:
        left_out.append(f".git/index: {index.unread}; what is staged and ignored, or sparse, is not known")
    if only is not None:
        entries = {path: entries[path] for path in only if path in entries}
    else:
        ours = known.keys() | index.tracked
        strangers = [path for path in entries if path not in ours and not _within(path, submodules)]
        passed = await ignored(tree, repository, entries, strangers)
        entries = {path: entry for path, entry in entries.items() if path not in passed}
    if sum(entry.size for entry in entries.values() if entry.size <= _MAX_FILE) > _MAX_TOTAL:
        raise UsageError(
            f"the files of the workspace hold more than {_MAX_TOTAL >> 30} GiB, which is more than is looked "
            "through; let .gitignore leave some out"
        )
    changes: list[_Change] = []
    length = len(parent) or 40
    for path, entry in entries.items():
        if _within(path, submodules):
            continue
        if entry.size > _MAX_FILE:
            left_out.append(f"{os.fsdecode(path)}: is larger than {_MAX_FILE >> 30} GiB")
        elif (oid := _hash(tree, entry, length)) is None:
            left_out.append(f"{os.fsdecode(path)}: cannot be read")
        elif known.get(path) != (_mode(entry), oid):
            changes.append(_Change(path=path, mode=_mode(entry)))
    unread = {line.partition(":")[0] for line in left_out}
    beyond = {*nested, *unreadable}
    gone = [
        path
        for path, (mode, _) in known.items()
        if path not in entries
        and mode != _SUBMODULE
        and os.fsdecode(path) not in unread
        and path not in index.skipped
        and not _within(path, beyond)
    ]
    changes += (_Change(path=path) for path in gone)
    if not changes and (parent or not entries):
        return Uncommitted(commit="", changed=0, left_out=tuple(left_out))
    date = await _date(repository, parent) if parent else b"0 +0000"
    way = git.Way(env=git.environment())
    argv = git.command(repository, ["fast-import", "--quiet", "--done", "--date-format=raw"])
    await feed(argv, repository, way, _stream(tree, parent, date, message, changes), seconds=_SECONDS)
    done = await git.run(repository, ["rev-parse", "--verify", _REF], cwd=repository)
    await git.run(repository, ["update-ref", "-d", _REF], cwd=repository)
    return Uncommitted(commit=done.stdout.decode().strip(), changed=len(changes), left_out=tuple(left_out))


def _is_nested(tree: Tree, path: bytes) -> str:
    name = os.fsdecode(path)
    if tree.kind(path + b"/" + GIT_DIR) == "folder":
        return f"{name}/: is a repository of its own; bring it with --path"
    return f"{name}/: is another work tree; have the agent commit in it, and bring its branch with --from"


async def _listing(repository: Path, commit: str) -> dict[bytes, tuple[bytes, str]]:
    done = await git.run(
        repository, ["ls-tree", "-r", "-z", "--full-tree", commit], cwd=repository, max_output=1 << 30
    )
    found = {}
    for line in done.stdout.split(b"\0"):
        if line:
            facts, _, path = line.partition(b"\t")
            mode, _, oid = facts.split(b" ")
            found[path] = (mode, oid.decode("ascii"))
    return found


async def submodules_of(repository: Path, commit: str) -> frozenset[bytes]:
    """Give the paths of a commit's submodules; raises ``GitError``."""
    listing = await _listing(repository, commit)
    return frozenset(path for path, (mode, _) in listing.items() if mode == _SUBMODULE)


async def ignored(
    tree: Tree, repository: Path, entries: Mapping[bytes, Entry], paths: list[bytes], *, below: bytes = b""
) -> frozenset[bytes]:
    """Tell which of ``paths`` git would ignore, from the rules that the workspace brings.

    All of them and ``entries`` begin with ``below``, the folder whose rules they go by. Raises ``GitError``.
    """
    if not paths:
        return frozenset()
    rules = Path(tempfile.mkdtemp(prefix="rules-", dir=repository))
    for path in entries:
        if last_part(path) == _IGNORE_FILE and (data := read_small(tree, path, _MAX_IGNORE_FILE)) is not None:
            place = rules / os.fsdecode(path.removeprefix(below))
            with contextlib.suppress(OSError):  # a longer path than this machine has: it rules over little
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
    own = b"" if below else read_small(tree, GIT_DIR + b"/info/exclude", _MAX_IGNORE_FILE)
    (repository / "info").mkdir(exist_ok=True)
    (repository / "info" / "exclude").write_bytes(own or b"")
    asked = ["--work-tree=" + str(rules), "check-ignore", "--no-index", "-z", "--stdin"]
    done = await git.run(
        repository,
        asked,
        cwd=rules,
        given=b"\0".join(path.removeprefix(below) for path in paths) + b"\0",
        check=False,
        max_output=1 << 30,
        seconds=600,
    )
    if done.returncode not in {0, 1}:
        raise git.GitError(git.last_words(done.stderr, "what is ignored cannot be told"))
    return frozenset(below + path for path in done.stdout.split(b"\0") if path)


def _hash(tree: Tree, entry: Entry, length: int) -> str | None:
    """Give the name git has for a file's content (git-hash-object(1)), None where it cannot be read."""
    digest = hashlib.sha256 if length == 64 else hashlib.sha1
    try:
        if entry.link:
            text = tree.read_link(entry.path)
            return digest(b"blob %d\0%b" % (len(text), text), usedforsecurity=False).hexdigest()
        with tree.open(entry.path) as file:
            state = digest(b"blob %d\0" % entry.size, usedforsecurity=False)
            while piece := file.read(_PIECE):
                state.update(piece)
    except OSError:
        return None
    return state.hexdigest()


def _stream(tree: Tree, parent: str, date: bytes, message: str, changes: list[_Change]) -> Iterator[bytes]:
    """Write what git-fast-import(1) reads. Removals come first: a file may become a folder."""
    text = message.encode()
    yield b"commit %b\ncommitter %b %b\ndata %d\n%b\n" % (_REF.encode(), _PEOPLE, date, len(text), text)
    if parent:
        yield b"from %b\n" % parent.encode()
    for change in changes:
        if not change.mode:
            yield b"D %b\n" % _quoted(change.path)
    for change in changes:
        if change.mode:
            yield from _file(tree, change)
    yield b"done\n"


def _file(tree: Tree, change: _Change) -> Iterator[bytes]:
    head = b"M %b inline %b\n" % (change.mode, _quoted(change.path))
    try:
        if change.mode == _LINK:
            text = tree.read_link(change.path)
            yield head + b"data %d\n%b\n" % (len(text), text)
            return
        with tree.open(change.path) as file:
            data = file.read(_MAX_FILE)  # whole: a bottle that runs may change it between asking and reading
    except OSError:
        return  # gone meanwhile
    yield head + b"data %d\n" % len(data)
    yield data
    yield b"\n"


def _quoted(path: bytes) -> bytes:
    return b'"%b"' % _UNPLAIN.sub(lambda match: b"\\%03o" % match[0][0], path)


def _mode(entry: Entry) -> bytes:
    if entry.link:
        return _LINK
    return _PROGRAM if entry.executable else _FILE


async def _date(repository: Path, commit: str) -> bytes:
    """Give the commit's own date, so that the same work is the same commit each time."""
    done = await git.run(repository, ["show", "--no-patch", "--format=%ct", commit], cwd=repository)
    seconds = done.stdout.strip()
    return b"%b +0000" % (seconds if seconds.isdigit() else b"0")


def _within(path: bytes, folders: set[bytes]) -> bool:
    parts = path.split(b"/")
    return any(b"/".join(parts[:depth]) in folders for depth in range(len(parts) + 1))
