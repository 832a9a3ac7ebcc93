"""A workspace that comes as an archive, from a volume or a machine: read where it lies, never unpacked."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from typing import TYPE_CHECKING, BinaryIO, cast

from bot_bottle.errors import UsageError
from bot_bottle.hostile_tar import BoundedMember
from bot_bottle.retrieval.tree import GIT_DIR, MAX_DEPTH, MAX_ENTRIES, Entry, is_below, too_many

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.retrieval.tree import Kind


class ArchiveTree:
    """A :class:`~bot_bottle.retrieval.tree.Tree` over an uncompressed tar archive, in a file that stays open.

    Made by a stranger: a name that comes twice, climbs or stands below a file is data like any other.
    """

    def __init__(self, archive: BinaryIO, top: str, inside: str = "") -> None:
        """Read the archive's list; ``top`` is the folder in it that is the workspace.

        Raises ``UsageError`` where it is no archive, holds too much, or has no folder ``inside``.
        """
        self._members: dict[bytes, tarfile.TarInfo] = {}
        self._named: dict[str, tarfile.TarInfo] = {}
        self._folders: set[bytes] = set()
        self._too_deep: set[bytes] = set()
        before = os.fsencode(f"{top}/{inside}/" if inside else f"{top}/")
        try:
            self._archive = tarfile.TarFile(fileobj=archive, mode="r", errorlevel=2, tarinfo=BoundedMember)
            for member in self._archive:
                self._take(member, before)
                if len(self._named) > MAX_ENTRIES:
                    raise too_many()
        except (tarfile.TarError, OSError, ValueError) as error:
            raise UsageError(
                f"the archive of the workspace cannot be read ({type(error).__name__})"
            ) from error
        if inside and not self._members:
            raise UsageError(f"{inside!r} in the workspace is no folder that can be read")

    def _take(self, member: tarfile.TarInfo, before: bytes) -> None:
        self._named[member.name] = member  # a later one replaces an earlier one, as it would when unpacked
        name = os.fsencode(member.name)
        path = name.removeprefix(before)
        parts = path.split(b"/")
        if path != name and is_below(parts[:MAX_DEPTH]) and len(parts) > MAX_DEPTH:
            self._too_deep.add(b"/".join(parts[:MAX_DEPTH]))
        if path == name or b"\0" in path or not is_below(parts):  # an extended header may write any byte
            return
        if member.isdir():
            self._folders.add(path)
            return
        self._members[path] = member
        self._folders.update(_folders_of(parts))

    def kind(self, path: bytes) -> Kind:
        """See :class:`Tree`."""
        member = self._members.get(path)
        if member is None:
            return "folder" if path in self._folders else ""
        if member.issym():
            return "link"
        return "file" if self._plain(member) is not None else "other"

    def entries(
        self, below: bytes = b"", *, nested: list[bytes] | None = None, unread: list[bytes] | None = None
    ) -> Iterator[Entry]:
        """See :class:`Tree`."""
        if unread is not None:
            unread += sorted(self._too_deep)
        before = below + b"/" if below else b""
        foreign: set[bytes] = set()
        if nested is not None:
            dot_git = b"/" + GIT_DIR
            ends = (path for path in (*self._members, *self._folders) if path.endswith(dot_git))
            foreign = {path.removesuffix(dot_git) for path in ends if path.startswith(before)} - {below}
            nested += sorted(one for one in foreign if foreign.isdisjoint(_folders_of(one.split(b"/"))))
        for path in sorted(self._members):
            parts = path.split(b"/")
            above = _folders_of(parts)
            if not path.startswith(before) or not self._members.keys().isdisjoint(above):
                continue
            if nested is not None and (GIT_DIR in parts or not foreign.isdisjoint(above)):
                continue
            member = self._members[path]
            if member.issym():
                yield Entry(path=path, link=True)
            elif (plain := self._plain(member)) is not None:
                yield Entry(path=path, executable=bool(plain.mode & stat.S_IXUSR), size=plain.size)

    def open(self, path: bytes) -> BinaryIO:
        """See :class:`Tree`."""
        member = self._members.get(path)
        plain = self._plain(member) if member is not None else None
        file = self._archive.extractfile(plain) if plain is not None else None
        if file is None:
            raise OSError("no plain file")
        return io.BufferedReader(cast("io.RawIOBase", file))

    def read_link(self, path: bytes) -> bytes:
        """See :class:`Tree`."""
        member = self._members.get(path)
        if member is None or not member.issym():
            raise OSError("no link")
        return os.fsencode(member.linkname)

    def _plain(self, member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """Give the member that has a file's content: of a hard link the one it names, in this archive."""
        found = self._named.get(member.linkname) if member.islnk() else member
        # A sparse member says how long it is and need not hold a byte of that.
        return found if found is not None and found.isreg() and not found.issparse() else None


def _folders_of(parts: list[bytes]) -> list[bytes]:
    return [b"/".join(parts[:depth]) for depth in range(1, len(parts))]
