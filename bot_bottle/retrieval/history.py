"""The bottle's repository read as data: where its branches stand, and its objects, verified anew.

Of a ``.git`` that a stranger wrote, only refs and objects mean anything here (gitrepository-layout(5)).
Objects go into a repository of ours: a loose one once its content has been found to have the hash it is named
by, a pack through ``index-pack``, which makes its index anew. So none stands there under another's name.
"""

from __future__ import annotations

import hashlib
import re
import resource
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from bot_bottle.errors import UsageError
from bot_bottle.git_gate import git
from bot_bottle.git_gate.commands import is_ref_name
from bot_bottle.retrieval.commands import feed
from bot_bottle.retrieval.tree import GIT_DIR, read_small

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bot_bottle.retrieval.tree import Tree

_HEADS = "refs/heads/"
_OID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_LOOSE = re.compile(rb"[0-9a-f]{2}/(?:[0-9a-f]{38}|[0-9a-f]{62})")
_PACK = re.compile(rb"pack/pack-(?:[0-9a-f]{40}|[0-9a-f]{64})\.pack")
_STASH = re.compile(r"stash(?:@\{([0-9]{1,4})\})?", re.ASCII)
_PACKED_STASH = re.compile(rb"^([0-9a-f]{40,64}) refs/stash$", re.MULTILINE)
_MAX_REF = 4096
_MAX_STASH_LOG = 4 << 20
_MAX_STASHES = 1000
_MAX_PACKED_REFS = 64 << 20
_MAX_BRANCHES = 10_000
_MAX_BYTES = 32 << 30
#: What one loose object may unfold to.
_MAX_LOOSE = 4 << 30
_PIECE = 1 << 20
_PACK_SECONDS = 3600.0
#: As in the gate's quarantine; a whole history takes longer than a push.
_BOUNDS = {resource.RLIMIT_AS: 3 << 30, resource.RLIMIT_CPU: 1800}


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleRefs:
    """Where a repository stands: its current branch (``""`` where it is on none), that commit, all branches.

    Branch names are without ``refs/heads/``; ``commit`` is ``""`` where nothing was committed yet.
    ``stashes`` are the commits of git's stash, which no branch has, the newest (``stash@{0}``) first.
    """

    branch: str = ""
    commit: str = ""
    branches: Mapping[str, str] = field(default_factory=dict)
    stashes: tuple[str, ...] = ()

    def find(self, name: str) -> str | None:
        """Give the commit of a branch, or of a stash by git's own name for it; None where there is none."""
        stash = _STASH.fullmatch(name)
        if name in self.branches or stash is None:
            return self.branches.get(name)
        number = int(stash[1] or 0)
        return self.stashes[number] if number < len(self.stashes) else None


def read_refs(tree: Tree) -> BottleRefs | None:
    """Read a workspace's refs, None where it is no repository.

    Raises ``UsageError`` for a ``.git`` that leads elsewhere, or one whose ``HEAD`` is none.
    """
    kind = tree.kind(GIT_DIR)
    if not kind:
        return None
    if kind != "folder":
        raise UsageError(
            "the .git of the workspace is no folder: it leads to a place that only the bottle can judge; "
            "have the agent make a plain clone, or name another folder of the workspace with --path"
        )
    head = (read_small(tree, GIT_DIR + b"/HEAD", _MAX_REF) or b"").decode("utf-8", "replace").strip()
    branches = _branches(tree)
    stashes = _stashes(tree)
    if _OID.fullmatch(head):
        return BottleRefs(commit=head, branches=branches, stashes=stashes)
    name = head.removeprefix("ref:").strip()
    if not head.startswith("ref:") or not name.startswith(_HEADS) or not is_ref_name(name):
        raise UsageError("the HEAD of the bottle's repository names no branch and no commit")
    branch = name.removeprefix(_HEADS)
    return BottleRefs(branch=branch, commit=branches.get(branch, ""), branches=branches, stashes=stashes)


def _stashes(tree: Tree) -> tuple[str, ...]:
    """Give what git's stash holds: the ref is the newest, and its log (git-stash(1)) is the list of all."""
    packed = read_small(tree, GIT_DIR + b"/packed-refs", _MAX_PACKED_REFS) or b""
    newest = (read_small(tree, GIT_DIR + b"/refs/stash", _MAX_REF) or b"").decode("ascii", "replace").strip()
    if not newest:
        found = _PACKED_STASH.search(packed)
        newest = found[1].decode("ascii") if found else ""
    if not _OID.fullmatch(newest):
        return ()
    log = (read_small(tree, GIT_DIR + b"/logs/refs/stash", _MAX_STASH_LOG) or b"").decode("utf-8", "replace")
    # OLD NEW WHO TIME ZONE, a tab and a message; a line for each, the newest last.
    listed = [fields[1] for line in log.split("\n") if len(fields := line.split(" ", 2)) == 3]
    stashes = [oid for oid in reversed(listed) if _OID.fullmatch(oid)][:_MAX_STASHES]
    return tuple(stashes) if stashes and stashes[0] == newest else (newest, *stashes)


def _branches(tree: Tree) -> dict[str, str]:
    found: dict[str, str] = {}
    packed = read_small(tree, GIT_DIR + b"/packed-refs", _MAX_PACKED_REFS) or b""
    for line in packed.decode("utf-8", "replace").split("\n"):
        oid, _, name = line.partition(" ")
        _note(found, name, oid)
    for entry in tree.entries(GIT_DIR + b"/refs/heads"):
        if not entry.link:  # a ref that is a link is one of git's oldest forms, and none that is followed
            oid = (read_small(tree, entry.path, _MAX_REF) or b"").decode("ascii", "replace").strip()
            _note(found, entry.path.removeprefix(GIT_DIR + b"/").decode("utf-8", "replace"), oid)
    return found


def _note(found: dict[str, str], name: str, oid: str) -> None:
    """Keep a branch that has a name git accepts and a commit to lead to; its later place counts."""
    if name.startswith(_HEADS) and is_ref_name(name) and _OID.fullmatch(oid):
        found[name.removeprefix(_HEADS)] = oid
        if len(found) > _MAX_BRANCHES:
            raise UsageError(f"the bottle's repository has more than {_MAX_BRANCHES} branches")


async def copy_objects(tree: Tree, target: Path) -> None:
    """Bring a workspace's objects into the bare repository ``target``.

    Raises ``UsageError`` and ``GitError``.
    """
    before = GIT_DIR + b"/objects/"
    total = 0
    for entry in tree.entries(before.rstrip(b"/")):
        name = entry.path.removeprefix(before)
        is_pack = bool(_PACK.fullmatch(name))
        if entry.link or not (is_pack or _LOOSE.fullmatch(name)):
            continue
        total += entry.size
        if total > _MAX_BYTES:
            raise UsageError(f"the bottle's repository is larger than {_MAX_BYTES >> 30} GiB")
        if is_pack:
            await _take_pack(tree, entry.path, target)
        else:
            _take_loose(tree, entry.path, target / "objects" / name.decode("ascii"))


def _take_loose(tree: Tree, path: bytes, place: Path) -> None:
    """Copy a loose object that is what its name says; another one is not there, as far as we know."""
    name = place.parent.name + place.name
    place.parent.mkdir(exist_ok=True)
    try:
        with tree.open(path) as source, place.open("xb") as sink:
            genuine = _has_hash(iter(lambda: source.read(_PIECE), b""), sink, name)
    except OSError as error:
        raise UsageError(f"an object of the bottle's repository cannot be read ({error.strerror})") from error
    if not genuine:
        place.unlink()


def _has_hash(pieces: Iterator[bytes], sink: BinaryIO, name: str) -> bool:
    """Write out what comes and tell whether it unfolds to content of the hash ``name``."""
    hashed = hashlib.new("sha256" if len(name) == 64 else "sha1", usedforsecurity=False)
    unfold = zlib.decompressobj()
    left = _MAX_LOOSE
    try:
        for piece in pieces:
            sink.write(piece)
            data = piece
            while data and left >= 0:
                more = unfold.decompress(data, _PIECE)
                hashed.update(more)
                left -= len(more)
                data = unfold.unconsumed_tail
    except zlib.error:
        return False
    return unfold.eof and left >= 0 and hashed.hexdigest() == name


async def _take_pack(tree: Tree, path: bytes, target: Path) -> None:
    way = git.Way(env=git.environment(), bounds=_BOUNDS)
    argv = git.command(target, ["index-pack", "--stdin"])
    try:
        source = tree.open(path)
    except OSError:
        return  # repacked meanwhile; what is missing then is found out when it is wanted
    with source:
        await feed(argv, target, way, iter(lambda: source.read(_PIECE), b""), seconds=_PACK_SECONDS)
