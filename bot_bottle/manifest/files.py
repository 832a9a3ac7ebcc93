"""The manifest folders as files: which are there, and which may be trusted to be the operator's own.

A file is opened once, without waiting and without following a last link, and judged by what was opened, so
that nothing can be swapped between the check and the read.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import ManifestError
from bot_bottle.manifest.problem import ManifestFileError, Problem, shown
from bot_bottle.manifest.values import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterator

#: No manifest file is larger; the body (a prompt) included.
MAX_FILE_SIZE = 256 * 1024

#: How many files of one folder are read; a repository could hold any number.
MAX_FILES = 1000

_SUFFIX = ".md"

#: As many links as Linux follows in one path (path_resolution(7)).
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFolder:
    """One folder of manifest files. ``writers`` are the mode bits no one but the owner may have here.

    For the operator's own folders these are group and others. A repository's agents are untrusted
    whatever their mode, and a checkout under umask 002 is writable by its group, so there it is others.
    ``within`` is a folder that is not judged, nor are those above it: the repository, or by default the
    operator's home, where whoever can write owns the account anyway (OpenSSH's StrictModes stops there too).
    """

    path: Path
    writers: int = stat.S_IWGRP | stat.S_IWOTH
    within: Path | None = None

    def names(self) -> tuple[dict[str, Path], list[str]]:
        """Give the files by manifest name, and a warning for each that is passed over."""
        try:
            entries = sorted(entry.name for entry in os.scandir(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return {}, []
        except OSError as error:
            return {}, [f"{self.path} cannot be read ({error.strerror}); its files are ignored"]
        found: dict[str, Path] = {}
        warnings: list[str] = []
        for entry in entries:
            if not entry.endswith(_SUFFIX) or entry.startswith("."):
                continue
            name = entry.removesuffix(_SUFFIX)
            if not NAME_PATTERN.fullmatch(name):
                warnings.append(
                    f"{self.path}/{shown(entry)} is ignored: a file name is small letters, digits and "
                    "hyphens, starts with a letter and ends in .md"
                )
            elif len(found) == MAX_FILES:
                warnings.append(f"{self.path} holds more than {MAX_FILES} files; the rest is ignored")
                break
            else:
                found[name] = self.path / entry
        return found, warnings

    def fault(self) -> ManifestError | None:
        """Say why nothing in this folder may be trusted, None if it may.

        The folder above it counts too, and so does every folder on the way there in which an entry could be
        renamed by another, through all links.
        """
        for folder in (self.path.parent, self.path):
            try:
                info = folder.stat()
            except OSError as error:
                return ManifestError(f"{folder} cannot be read ({error.strerror})")
            sentence = self._untrusted(folder, info)
            if sentence:
                return ManifestError(sentence)
        try:
            return self._fault_of_the_way(self.path)
        except OSError as error:
            return ManifestError(f"{self.path} cannot be read ({error.strerror})")

    def read(self, path: Path) -> str:
        """Read one file of this folder; raises ``ManifestError`` where it may not or cannot be."""
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(self.path)):
            raise ManifestError(f"{path} is a link out of {self.path}; put the file itself there")
        if path.is_symlink():
            try:
                fault = self._fault_of_the_way(path)
            except OSError as error:
                raise ManifestError(f"{path} cannot be read ({error.strerror})") from error
            if fault:
                raise fault
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            descriptor = os.open(real, flags)
        except OSError as error:
            raise ManifestError(f"{path} cannot be read ({error.strerror})") from error
        try:
            info = os.fstat(descriptor)
            sentence = self._untrusted(path, info)
            if not stat.S_ISREG(info.st_mode):
                sentence = f"{path} is no regular file; put a file there"
            if sentence:
                raise ManifestError(sentence)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return decode(file.read(MAX_FILE_SIZE + 1), path)
        finally:
            os.close(descriptor)

    def _fault_of_the_way(self, path: Path) -> ManifestError | None:
        """Judge each entry on the way to ``path`` and the folder it stands in; raises ``OSError``."""
        home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises for an account without one
        top = Path(os.path.realpath(self.within or (home if home.startswith("/") else "/")))
        for folder, entry in _way(path):
            if top.is_relative_to(folder):
                continue
            info = folder.stat()
            sentence = self._untrusted(folder, info)
            if info.st_mode & stat.S_ISVTX and info.st_uid in {0, os.geteuid()}:
                # An entry of a sticky folder (/tmp) is renamed by its owner only, so it is that one's word.
                sentence = ""
                if entry.lstat().st_uid not in {0, os.geteuid()}:
                    sentence = f"{entry} belongs to another user of this machine; remove it"
            if sentence:
                return ManifestError(f"{sentence} (it is on the way to {path})")
        return None

    def _untrusted(self, path: Path, info: os.stat_result) -> str:
        """Say in one sentence why ``path`` could have been written by somebody else, or give ``""``."""
        if info.st_mode & self.writers:
            who = "every user" if info.st_mode & stat.S_IWOTH else "its group"
            return f"{path} can be written by {who} of this machine; run: chmod go-w '{path}'"
        if info.st_uid not in {0, os.geteuid()}:
            return f"{path} belongs to another user of this machine; run: chown {os.geteuid()} '{path}'"
        return ""


def _way(path: Path) -> Iterator[tuple[Path, Path]]:
    """Give each entry that is met on the way to ``path``, after the folder it stands in, through all links.

    Raises ``OSError`` where the way does not lead anywhere.
    """
    waiting = list(reversed(path.absolute().parts[1:]))
    folder, links = Path("/"), 0
    while waiting:
        name = waiting.pop()
        if name == "..":
            folder = folder.parent
            continue
        entry = folder / name
        yield folder, entry
        if not entry.is_symlink():
            folder = entry
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = entry.readlink()
        if target.is_absolute():
            folder = Path("/")
        waiting += [part for part in reversed(target.parts) if part != "/"]


def decode(data: bytes, path: Path) -> str:
    """Give a manifest file's text; raises ``ManifestError`` if it is too large or no UTF-8."""
    if len(data) > MAX_FILE_SIZE:
        raise ManifestError(f"{path} is larger than {MAX_FILE_SIZE // 1024} KiB; shorten it")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        problem = Problem(
            file=str(path), line=line, column=column, key="", message="not UTF-8; save it as UTF-8"
        )
        raise ManifestFileError([problem]) from error
