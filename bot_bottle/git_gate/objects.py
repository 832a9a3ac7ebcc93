"""What a push brings, read out of git's own listings: every new object, and what each commit changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ObjectType: TypeAlias = Literal["commit", "tree", "blob", "tag"]

_NOTHING, _FOLDER = "000000", "040000"
_TYPES = frozenset({"commit", "tree", "blob", "tag"})


class ListingError(ValueError):
    """A listing is not what git writes; the push it describes is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewObject:
    """One object; ``path`` is some place it has, ``""`` for none. ``size`` is in bytes."""

    oid: str
    type: ObjectType
    size: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one commit has at ``path`` that none of its parents has there; ``oid`` is zeros for a removal.

    ``folder`` tells that it is a folder, or was one and nothing else: what is in it is listed for itself.
    """

    commit: str
    path: str
    oid: str
    mode: str
    folder: bool


def read_objects(listing: bytes) -> tuple[tuple[str, str], ...]:
    """Read ``git rev-list --objects`` as (object, path)."""
    pairs = []
    for line in listing.split(b"\n"):
        if line:
            oid, _, path = line.partition(b" ")
            pairs.append((oid.decode("ascii"), _text(path)))
    return tuple(pairs)


def read_kinds(listing: bytes, paths: Mapping[str, str]) -> tuple[NewObject, ...]:
    """Read ``git cat-file --batch-check``, one line an object; raises :class:`ListingError`."""
    found = []
    for line in listing.decode("ascii", "replace").splitlines():
        parts = line.split(" ")
        if len(parts) != 3 or parts[1] not in _TYPES or parts[0] not in paths:
            raise ListingError("an object of the push cannot be read")
        kind = cast("ObjectType", parts[1])
        found.append(NewObject(oid=parts[0], type=kind, size=int(parts[2]), path=paths[parts[0]]))
    if len(found) != len(paths):
        raise ListingError("an object of the push cannot be read")
    return tuple(found)


def read_changes(listing: bytes) -> Iterator[Change]:
    """Read ``git diff-tree --stdin -c -r -t --root --raw -z --no-abbrev --no-renames``.

    A merge has an entry for what differs from all its parents (git-diff-tree(1), "diff format for merges");
    what equals one of them was that parent's own change. Raises :class:`ListingError`.
    """
    fields = iter(listing.split(b"\0"))
    commit = ""
    for field in fields:
        if not field:
            continue
        if not field.startswith(b":"):
            commit = field.decode("ascii", "replace")
            continue
        parents = len(field) - len(field.lstrip(b":"))
        parts = field[parents:].split(b" ")
        path = next(fields, b"")
        if len(parts) != 2 * (parents + 1) + 1 or not commit or not path:
            raise ListingError("the changes of the push cannot be read")
        mode, oid = parts[parents].decode("ascii"), parts[2 * parents + 1].decode("ascii")
        had = {one.decode("ascii") for one in parts[:parents]} - {_NOTHING}
        folder = (had if mode == _NOTHING else {mode}) == {_FOLDER}
        yield Change(commit=commit, path=_text(path), oid=oid, mode=mode, folder=folder)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
