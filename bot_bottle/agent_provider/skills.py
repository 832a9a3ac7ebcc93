"""Skills: folders of the operator's that an agent brings along, copied as they are.

An agent of a repository names them, so nothing but the named folder itself may come in: no link out of it,
nothing that others could have written, a bounded amount.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider.plan import ProvisionFile
from bot_bottle.errors import UsageError
from bot_bottle.manifest.problem import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

#: The bounds of one skill; texts and a few scripts need far less.
MAX_FILES = 500
MAX_BYTES = 4 * 1024 * 1024
_MAX_DEPTH = 16


def skill_files(names: Iterable[str], folder: str, home: Path) -> tuple[ProvisionFile, ...]:
    """Read the skills ``names`` from ``home / folder`` for the same place below the agent's home.

    Raises ``UsageError`` with one sentence for a skill that is missing or may not come in.
    """
    return tuple(file for name in names for file in _skill(name, folder, home))


def _skill(name: str, folder: str, home: Path) -> Iterator[ProvisionFile]:
    root = home / folder / name
    if os.path.realpath(root) != os.path.join(os.path.realpath(home / folder), name):  # noqa: PTH118
        raise UsageError(f"{root} is a link out of {home / folder}; put the folder itself there")
    if not root.is_dir():
        there = ", ".join(sorted(path.name for path in _children(home / folder))) or "none"
        raise UsageError(f"there is no folder {root}; those that exist: {shown(there, 300)}")
    left_files, left_bytes = MAX_FILES, MAX_BYTES
    for path in _walk(root, _MAX_DEPTH):
        content, mode = _read(path, left_bytes, root)
        left_files, left_bytes = left_files - 1, left_bytes - len(content)
        if left_files < 0:
            raise UsageError(f"{root} holds more than {MAX_FILES} files; a skill is smaller")
        place = f"{AGENT_HOME}/{folder}/{name}/{path.relative_to(root)}"
        yield ProvisionFile(path=place, content=content, mode=mode)


def _children(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Give every regular file below ``folder``; raises ``UsageError`` for links, pipes and the like."""
    _refuse_foreign(folder, folder.lstat())
    if depth == 0:
        raise UsageError(f"{shown(str(folder), 400)} lies too deep; a skill is flatter")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder} cannot be read ({error.strerror})") from error
    for path in entries:
        kind = path.lstat().st_mode
        if stat.S_ISDIR(kind):
            yield from _walk(path, depth - 1)
        elif stat.S_ISREG(kind):
            yield path
        else:
            what = "a link" if stat.S_ISLNK(kind) else "no regular file"
            raise UsageError(f"{shown(str(path), 400)} is {what}; a skill holds plain files only")


def _read(path: Path, limit: int, root: Path) -> tuple[bytes, int]:
    """Read one file by what was opened, so that nothing can be swapped for a link in between."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise UsageError(f"{shown(str(path), 400)} cannot be read ({error.strerror})") from error
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(descriptor)
        _refuse_foreign(path, info)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UsageError(f"{root} is larger than {MAX_BYTES >> 20} MiB; a skill is smaller")
    return content, 0o700 if info.st_mode & stat.S_IXUSR else 0o600


def _refuse_foreign(path: Path, info: os.stat_result) -> None:
    place = shown(str(path), 400)
    if info.st_mode & stat.S_IWOTH:
        raise UsageError(f"{place} can be written by every user; run: chmod -R o-w '{place}'")
    if info.st_uid not in {0, os.geteuid()}:
        raise UsageError(f"{place} belongs to another user of this machine")
