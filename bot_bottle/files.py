"""Files that must be private and whole: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_DIR = 0o700


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


def remove_tree(path: Path) -> None:
    """Remove a folder that may hold anything an agent made: folders without permission, links, sockets.

    Links are removed, never followed. Raises ``OSError`` where something stays.
    """
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        _open_up(path)
        shutil.rmtree(path)


def _open_up(path: Path) -> None:
    """Give the operator back the folders that an agent closed to its own account.

    No bottle runs any more when its state is removed, so nobody can swap a folder for a link meanwhile.
    """
    path.chmod(PRIVATE_DIR)
    for parent, folders, _files in os.walk(path, followlinks=False):
        for name in folders:
            folder = path.__class__(parent, name)
            if not folder.is_symlink():
                folder.chmod(PRIVATE_DIR)
