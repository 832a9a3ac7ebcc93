"""Unpack an archive made by a hostile party without ever following what it says.

Python's own ``data`` filter (PEP 706) is missing before 3.11.4 and has been bypassed through chains of
links (CVE-2025-4517), so each member is placed through folder descriptors opened with ``O_NOFOLLOW``: a
link is data here, never a way to go. A link is created only if, by its text alone, it stays in the tree.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Iterator
    from pathlib import Path

_MAX_MEMBERS = 1_000_000
_MAX_BYTES = 64 << 30
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(archive: tarfile.TarFile, destination: Path) -> int:
    """Place the archive's files, folders and inner links below ``destination``; gives how many.

    Members with an absolute or climbing name, devices, pipes, and links that lead out are left out. Set-id
    bits and write permission for others are dropped. Raises ``LaunchError`` where the archive is larger
    than 64 GiB or a million members.
    """
    placed = total = 0
    root = os.open(destination, _OPEN_DIR)
    try:
        for count, member in enumerate(archive):
            total += member.size
            if count >= _MAX_MEMBERS or total > _MAX_BYTES:
                raise LaunchError("the archive from the bottle is larger than is accepted")
            parts = _parts(member.name)
            if not parts:
                continue
            with suppress(FileExistsError, NotADirectoryError, IsADirectoryError, _LinkOnTheWayError):
                placed += _place(archive, member, root, parts)
    finally:
        os.close(root)
    return placed


class _LinkOnTheWayError(OSError):
    """A member's parent is a link; the member is left out."""


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in PurePosixPath(name).parts if part != ".")
    if name.startswith("/") or ".." in parts or "\0" in name:
        return ()
    return parts


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, root: int, parts: tuple[str, ...]) -> int:
    with _folder(root, parts[:-1]) as parent:
        name = parts[-1]
        mode = member.mode & 0o755
        if member.isdir():
            os.mkdir(name, mode | 0o700, dir_fd=parent)
        elif member.isreg():
            source = archive.extractfile(member)
            with os.fdopen(os.open(name, _NEW_FILE, mode | 0o600, dir_fd=parent), "wb") as sink:
                if source is not None:
                    shutil.copyfileobj(source, sink)
                os.fchmod(sink.fileno(), mode | 0o600)
        elif member.issym():
            if not _stays_inside(member.linkname, depth=len(parts) - 1):
                return 0
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.islnk():
            target = _parts(member.linkname)
            if not target:
                return 0
            with _folder(root, target[:-1]) as target_parent:
                # A link's text was judged at the depth where it stands; at another it leads elsewhere.
                if not stat.S_ISREG(os.stat(target[-1], dir_fd=target_parent, follow_symlinks=False).st_mode):
                    return 0
                os.link(target[-1], name, src_dir_fd=target_parent, dst_dir_fd=parent, follow_symlinks=False)
        else:
            return 0
    return 1


@contextmanager
def _folder(root: int, parts: tuple[str, ...]) -> Iterator[int]:
    """Open the folder ``parts`` below ``root``, making what is missing and following no link."""
    current = os.dup(root)
    try:
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=current)
            try:
                below = os.open(part, _OPEN_DIR, dir_fd=current)
            except OSError as error:
                raise _LinkOnTheWayError from error
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _stays_inside(target: str, *, depth: int) -> bool:
    """Tell whether a link ``depth`` folders below the root stays in the tree, by its text alone.

    Climbing is allowed only at the start, where the folders climbed are real ones: ``a/../b`` could climb
    from wherever a link named ``a`` leads.
    """
    if not target or target.startswith("/") or "\0" in target:
        return False
    climbed = 0
    descending = False
    for part in target.split("/"):
        if part in {"", "."}:
            continue
        if part == "..":
            climbed += 1
            if descending or climbed > depth - 1:
                return False
        else:
            descending = True
    return True
