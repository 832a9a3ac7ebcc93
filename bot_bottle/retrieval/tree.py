"""A workspace as a stranger left it, read as data.

A folder of this machine is walked by descriptors, one real folder at a time, so that a link planted (or
swapped in while the bottle runs) never leads anywhere. For an archive see
:mod:`~bot_bottle.retrieval.archive`.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, Self, TypeAlias

from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Kind: TypeAlias = Literal["file", "folder", "link", "other", ""]

GIT_DIR = b".git"
MAX_ENTRIES = 1_000_000
MAX_DEPTH = 200
#: A folder that went meanwhile, or is a file or a link by now.
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file or link, ``path`` from the workspace's top; a link's ``size`` is 0."""

    path: bytes
    link: bool = False
    executable: bool = False
    size: int = 0


class Tree(Protocol):
    """A workspace. Paths are bytes with ``/`` between their parts, relative to its top."""

    def kind(self, path: bytes) -> Kind:
        """Say what stands at ``path``, ``""`` for nothing; links are not followed."""
        ...

    def entries(
        self, below: bytes = b"", *, nested: list[bytes] | None = None, unread: list[bytes] | None = None
    ) -> Iterator[Entry]:
        """List files and links at any depth below a folder; other kinds and unreadable folders are left out.

        With ``nested`` whatever is named ``.git`` is passed over, and so is all of a folder below the first
        that has one, whose path is added to the list. To ``unread`` the folders are added that are there and
        cannot be listed, or lie deeper than is looked. Raises ``UsageError`` beyond a million entries.
        """
        ...

    def open(self, path: bytes) -> BinaryIO:
        """Open a plain file to be read; raises ``OSError``."""
        ...

    def read_link(self, path: bytes) -> bytes:
        """Give the text of a link; raises ``OSError``."""
        ...


def too_many() -> UsageError:
    """Say that a workspace is beyond what is looked through."""
    return UsageError(
        f"the workspace holds more than {MAX_ENTRIES} files, which is more than is looked through"
    )


def is_below(parts: list[bytes]) -> bool:
    """Tell the parts of a path that stays below the workspace and is not endless."""
    return len(parts) <= MAX_DEPTH and {b"", b".", b".."}.isdisjoint(parts)


def read_small(tree: Tree, path: bytes, limit: int) -> bytes | None:
    """Read a plain file of at most ``limit`` bytes; None where there is none such."""
    try:
        with tree.open(path) as file:
            data = file.read(limit + 1)
    except OSError:
        return None
    return data if len(data) <= limit else None


class FolderTree:
    """A folder of this machine, the workspace itself or (``inside``) one below it; use as a context."""

    def __init__(self, folder: Path, inside: str = "") -> None:
        """Open it; raises ``UsageError`` where it is not there or lies behind a link."""
        self._top = -1
        try:
            self._top = os.open(folder, _OPEN_DIR)
            if inside:
                below = self._folder(os.fsencode(inside))
                os.close(self._top)
                self._top = below
        except OSError as error:
            self.close()
            shown = f"{inside!r} in the workspace" if inside else f"the workspace {folder}"
            raise UsageError(f"{shown} is no folder that can be read ({error.strerror})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder; twice is no error."""
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def kind(self, path: bytes) -> Kind:
        """See :class:`Tree`."""
        try:
            with self._parent(path) as (parent, name):
                return _kind(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except OSError:
            return ""

    def entries(
        self, below: bytes = b"", *, nested: list[bytes] | None = None, unread: list[bytes] | None = None
    ) -> Iterator[Entry]:
        """See :class:`Tree`."""
        waiting = [below]
        count = 0
        while waiting:
            folder = waiting.pop()
            found, deeper = self._list(folder, [] if unread is None else unread)
            if nested is not None:
                mine = [entry for entry in found if last_part(entry.path) != GIT_DIR]
                folders = [path for path in deeper if last_part(path) != GIT_DIR]
                if folder != below and len(mine) + len(folders) < len(found) + len(deeper):
                    nested.append(folder)
                    continue
                found, deeper = mine, folders
            count += len(found) + len(deeper)
            if count > MAX_ENTRIES:
                raise too_many()
            waiting += reversed(deeper)
            yield from found

    def open(self, path: bytes) -> BinaryIO:
        """See :class:`Tree`."""
        with self._parent(path) as (parent, name):
            descriptor = os.open(name, _OPEN_FILE, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("no plain file")
        return os.fdopen(descriptor, "rb")

    def read_link(self, path: bytes) -> bytes:
        """See :class:`Tree`."""
        with self._parent(path) as (parent, name):
            return os.readlink(name, dir_fd=parent)

    def _list(self, path: bytes, unread: list[bytes]) -> tuple[list[Entry], list[bytes]]:
        """Give one folder's files and links, and its folders; both in order."""
        found: list[Entry] = []
        deeper: list[bytes] = []
        try:
            descriptor = self._folder(path)
            try:
                with os.scandir(descriptor) as listing:
                    names = sorted(os.fsencode(entry.name) for entry in listing)
                for name in names:
                    try:
                        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    except OSError as error:
                        if error.errno in _GONE:
                            continue
                        raise  # listed, but not to be entered: nothing is known of what is in it
                    whole = b"%b/%b" % (path, name) if path else name
                    kind = _kind(status.st_mode)
                    if kind == "folder":
                        deeper.append(whole)
                    elif kind == "file":
                        runs = bool(status.st_mode & stat.S_IXUSR)
                        found.append(Entry(path=whole, executable=runs, size=status.st_size))
                    elif kind == "link":
                        found.append(Entry(path=whole, link=True))
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in _GONE:
                unread.append(path)
        return found, deeper

    def _parent(self, path: bytes) -> _Held:
        folder, _, name = path.rpartition(b"/")
        return _Held(self._folder(folder), name)

    def _folder(self, path: bytes) -> int:
        parts = path.split(b"/") if path else []
        if not is_below(parts):
            raise OSError("no path below the workspace that is looked at")
        current = os.dup(self._top)
        for part in parts:
            try:
                below = os.open(part, _OPEN_DIR, dir_fd=current)
            finally:
                os.close(current)
            current = below
        return current


class _Held:
    """A folder's descriptor for as long as it is needed, with a name in it."""

    def __init__(self, descriptor: int, name: bytes) -> None:
        self._descriptor, self._name = descriptor, name

    def __enter__(self) -> tuple[int, bytes]:
        return self._descriptor, self._name

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def last_part(path: bytes) -> bytes:
    """Give a path's last name."""
    return path.rpartition(b"/")[2]


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "other"
