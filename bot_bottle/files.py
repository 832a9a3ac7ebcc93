"""Files that must be private and whole: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700
_FOLDER_ITSELF = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_private_dir(path: Path) -> None:
    """Create ``path`` and its missing parents, each readable by the operator alone."""
    missing = []
    probe = path
    while not probe.exists():
        missing.append(probe)
        probe = probe.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=PRIVATE_DIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was found at a path: its bytes, None where it is no plain file; whether others cannot write it.

    ``own`` is false, too, for a file of another account's than this one and root.
    """

    content: bytes | None = field(repr=False)
    own: bool


def read_plain(path: Path, *, limit: int) -> Opened:
    """Read at most ``limit`` bytes of a file that may be anything; waits for nothing. Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        content = file.read(limit) if stat.S_ISREG(info.st_mode) else None
    others = info.st_uid not in {0, os.geteuid()} or bool(info.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return Opened(content=content, own=not others)


def write_atomic(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Replace ``path`` by ``data`` so that a reader sees the old file or the new one, never a part."""
    with _whole_file(path, data, mode) as temporary:
        temporary.replace(path)


def write_new(path: Path, data: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Create ``path`` holding ``data``, whole or not at all; ``FileExistsError`` if anything is there."""
    with _whole_file(path, data, mode) as temporary:
        os.link(temporary, path, follow_symlinks=False)
        temporary.unlink()


@contextlib.contextmanager
def _whole_file(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """Write ``data`` beside ``path`` under a name of its own, which is gone again after any failure."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def open_folder(name: str | os.PathLike[str], *, dir_fd: int | None = None) -> int:
    """Open a folder, never through a link; gives a descriptor for ``fstat`` and :func:`open_up` only.

    The folder's own permissions are not asked. Raises ``OSError`` for a link or anything else that is none.
    """
    return os.open(name, _FOLDER_ITSELF, dir_fd=dir_fd)


def open_up(folder: int) -> int:
    """Give the folder's owner back reading, writing and searching in it, and open it to be read.

    ``folder`` comes from :func:`open_folder`. Raises ``OSError`` for somebody else's folder.
    """
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    if mode & PRIVATE_DIR != PRIVATE_DIR:
        # fchmod(2) refuses an O_PATH descriptor; this name leads to the open folder itself, whatever has
        # happened to its path meanwhile.
        Path(f"/proc/self/fd/{folder}").chmod(mode | PRIVATE_DIR)
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)


def remove_tree(path: Path) -> None:
    """Remove a folder that may hold anything an agent made: folders without permission, links, sockets.

    However deep or wide it is, this takes a few descriptors, no recursion and no path longer than
    ``path``: what is not empty below the top is renamed up into it before its turn comes. Links are removed,
    never followed. Raises ``OSError`` where something stays.
    """
    try:
        top = _open_to_empty(path)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        path.unlink()
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    path.rmdir()


def _empty(top: int) -> None:
    """Remove all that is in the folder ``top``, a level at a time."""
    mark = f"{secrets.token_hex(16)}-"
    lifted = _strip(top, top, mark, 0)
    done = 0
    while done < lifted:
        name = f"{mark}{done}"
        folder = _open_to_empty(name, dir_fd=top)
        try:
            lifted = _strip(folder, top, mark, lifted)
        finally:
            os.close(folder)
        os.rmdir(name, dir_fd=top)
        done += 1


def _strip(folder: int, top: int, mark: str, lifted: int) -> int:
    """Remove what can go at once from ``folder`` and rename the rest into ``top``; counts on from ``lifted``.

    Read again until nothing more is found: what removing does to a reading under way is not defined.
    """
    found = True
    while found:
        found = False
        with os.scandir(folder) as entries:
            for entry in entries:
                if folder == top and entry.name.startswith(mark):
                    continue
                found = True
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=folder)
                elif not _removed_empty(entry.name, folder):
                    # A folder that moves has its own ".." rewritten, so it must be writable itself.
                    os.close(_open_to_empty(entry.name, dir_fd=folder))
                    os.rename(entry.name, f"{mark}{lifted}", src_dir_fd=folder, dst_dir_fd=top)
                    lifted += 1
    return lifted


def _removed_empty(name: str, parent: int) -> bool:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
            return False
        raise
    return True


def _open_to_empty(name: str | os.PathLike[str], *, dir_fd: int | None = None) -> int:
    folder = open_folder(name, dir_fd=dir_fd)
    try:
        return open_up(folder)
    finally:
        os.close(folder)
