"""What is sent to the engine to build from: the same files always make the same bytes.

No owner, no time of day and no umask of this machine enters an archive, so equal inputs give equal layers.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Self

from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: An agent's image wants a few files of its own, not a disk.
_MAX_TOTAL = 1024 * 1024 * 1024
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One member of a context: ``name`` is relative to its root, with ``/``.

    Exactly one of ``data`` (a file's bytes), ``source`` (a file of the host) and ``link`` (a symbolic link's
    target) is set, or none of them for a folder.
    """

    name: str
    data: bytes | None = field(default=None, repr=False)
    source: Path | None = None
    link: str | None = None
    executable: bool = False


class Context:
    """An archive in a temporary file that nobody else can open; close it, or use it as a context manager."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Write the archive; raises ``UsageError`` where a file of the host cannot be read."""
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            with tarfile.open(fileobj=self.file, mode="w", format=tarfile.GNU_FORMAT) as archive:
                for entry in _whole(entries):
                    _add(archive, entry)
            self.digest = self._digest()
        except BaseException:
            self.file.close()
            raise

    def rewind(self) -> IO[bytes]:
        """Give the archive, to be read from its beginning."""
        self.file.seek(0)
        return self.file

    def close(self) -> None:
        """Let the archive go; safe to call again."""
        self.file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _digest(self) -> str:
        digest = hashlib.sha256()
        file = self.rewind()
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
        return digest.hexdigest()


def entries_digest(entries: Iterable[Entry]) -> str:
    """Give what stands for entries whose contents are at hand, without an archive of them."""
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.name):
        if entry.source is not None:
            raise ValueError(f"{entry.name}: its content has not been read")
        data = entry.data or b""
        kind = (entry.name, entry.executable, entry.link, entry.data is None, len(data))
        digest.update(repr(kind).encode())
        digest.update(data)
    return digest.hexdigest()


def folder_entries(folder: Path, *, under: str = "", skip: frozenset[str] = frozenset()) -> Iterator[Entry]:
    """List everything below ``folder``, named below ``under``; links stay links, other things are left out.

    ``skip`` are names that are left out at any depth, with all that is below them.
    """
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skip)
        here = Path(path)
        for name in [*folders, *files]:
            if name in skip:
                continue
            full = here / name
            relative = full.relative_to(folder).as_posix()
            entry = file_entry(full, f"{under}/{relative}" if under else relative)
            if entry is not None:
                yield entry


def chosen_entries(folder: Path, names: Iterable[str]) -> Iterator[Entry]:
    """Read the named members of ``folder``; ``UsageError`` where they are too much for a build."""
    total = 0
    for name in names:
        entry = file_entry(folder / name, Path(name).as_posix())
        if entry is None:
            continue
        if entry.source is not None:
            total += entry.source.lstat().st_size
            if total > _MAX_TOTAL:
                raise UsageError(
                    f"{folder} holds more than {_MAX_TOTAL >> 20} MiB to build from; "
                    "leave out what the image does not need with a .dockerignore file"
                )
        yield entry


def file_entry(path: Path, name: str) -> Entry | None:
    """Describe one thing of the host; None for what an image cannot hold (sockets, devices, pipes)."""
    try:
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode):
            return Entry(name=name, link=str(path.readlink()))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read to build from ({error.strerror})") from error
    if stat.S_ISDIR(info.st_mode):
        return Entry(name=name)
    if stat.S_ISREG(info.st_mode):
        return Entry(name=name, source=path, executable=bool(info.st_mode & stat.S_IXUSR))
    return None


def _whole(entries: Iterable[Entry]) -> list[Entry]:
    """Sort the entries and put in the folders above them: one that the engine had to make bears a time."""
    by_name = {entry.name: entry for entry in entries}
    for name in list(by_name):
        for parent in PurePosixPath(name).parents:
            if str(parent) != ".":
                by_name.setdefault(str(parent), Entry(name=str(parent)))
    return [by_name[name] for name in sorted(by_name)]


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.name)
    member.mode = 0o644
    if entry.data is not None:
        member.size = len(entry.data)
        member.mode = 0o755 if entry.executable else 0o644
        archive.addfile(member, io.BytesIO(entry.data))
    elif entry.link is not None:
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.link, 0o777
        archive.addfile(member)
    elif entry.source is not None:
        member.mode = 0o755 if entry.executable else 0o644
        _add_file(archive, member, entry.source)
    else:
        member.type, member.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(member)


def _add_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise UsageError(f"{path}: changed into something else while it was read to build from")
            member.size = info.st_size
            archive.addfile(member, file)
    except OSError as error:
        # tarfile says so, without a number, of a file that got shorter meanwhile
        raise UsageError(
            f"{path}: cannot be read to build from ({error.strerror or 'it changed meanwhile'})"
        ) from error
