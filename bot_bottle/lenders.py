"""Who lends a repository its objects (``objects/info/alternates``, gitrepository-layout(5)), and who may.

``git clone --shared`` and ``--reference`` write that file, and so can whoever made the archive that a project
came in. It may name any folder of this machine, so it is a question and no answer: a lender is one that
belongs to the operator, or one that the operator's config lists, and everything else is refused. What was
found here is all that is read: :func:`lend` shows git the objects of those folders without their own
``info``, so that git itself follows no such file.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Git itself follows lenders of lenders so many times and no further (``link_alt_odb_entries``).
_MOST_DEPTH = 6
_MOST_LENDERS = 32
_MOST_BYTES = 64 * 1024
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_ESCAPE = re.compile(rb'\\(?:([abfnrtv"\\])|([0-3][0-7]{2}))')
_ESCAPED = dict(zip(b'abfnrtv"\\', b'\a\b\f\n\r\t\v"\\', strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Who may lend: folders of the accounts ``owners``, or, where ``listed`` is given, what lies in those."""

    owners: frozenset[int]
    listed: tuple[Path, ...] | None = None

    @classmethod
    def of_operator(cls, listed: Sequence[str] | None = None) -> Trust:
        """Give the operator's: this account, and behind ``sudo`` the one that called it, as git has it.

        ``listed`` is the config's ``lenders``, None where it says nothing of it.
        """
        owners = {os.geteuid()}
        caller = os.environ.get("SUDO_UID", "")
        if os.geteuid() == 0 and caller.isascii() and caller.isdigit():
            owners.add(int(caller))
        folders = None if listed is None else tuple(Path(os.path.realpath(one)) for one in listed)
        return cls(owners=frozenset(owners), listed=folders)


def find_lenders(objects: Path, trust: Trust) -> tuple[Path, ...]:
    """Give the objects folders that ``objects`` borrows from, the lenders' lenders too, each once.

    One that is not there lends nothing, as for git. Raises ``UsageError`` for a lender that may not lend, for
    a file that says what git would not write, and for more, or deeper, than a repository of work has.
    """
    found: dict[tuple[int, int], Path] = {}
    known = {_key(objects.stat())}
    waiting = [(objects, 0)]
    while waiting:
        borrower, depth = waiting.pop()
        for place in _named_in(borrower):
            try:
                info = place.stat()
            except OSError:
                continue
            if _key(info) in known:  # a loop, or two ways to the same
                continue
            _check(place, info, borrower, trust)
            if depth >= _MOST_DEPTH or len(found) >= _MOST_LENDERS:
                raise UsageError(
                    f"{_file(borrower)}: borrows from {place}, and that is more than {_MOST_LENDERS} "
                    f"repositories or {_MOST_DEPTH} one behind the other; make this one whole first: "
                    "git repack -a -d && rm .git/objects/info/alternates"
                )
            known.add(_key(info))
            found[_key(info)] = place
            waiting.append((place, depth + 1))
    return tuple(found.values())


def check_store(folder: Path, *, within: Path | None = None) -> None:
    """Raise ``UsageError`` for what git would follow or wait at in a folder of objects or refs.

    That is a link out of ``within`` (by default the folder itself), a pipe, a device.
    """
    for path, is_link in _odd(folder):
        if not is_link:
            raise UsageError(f"{path}: is neither file nor folder; remove it from the repository")
        if not path.resolve().is_relative_to(within or folder):
            raise UsageError(f"{path}: is a link out of the repository; replace it by what it leads to")


def lend(stores: Sequence[Path], target: Path, place: Path) -> None:
    """Let the objects folder ``target`` borrow from ``stores`` and from no other; ``place`` is a new folder.

    Each store is shown by a folder of links to its objects, which has no ``info`` and so no lenders.
    """
    views = []
    for number, store in enumerate(stores):
        view = place / str(number)
        view.mkdir(parents=True)
        for name in os.listdir(store):  # noqa: PTH208 - names are all it takes
            if name == "pack" or _FAN_OUT.fullmatch(name):
                (view / name).symlink_to(store / name)
        views.append(view)
    file = target / "info" / "alternates"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"".join(quoted(view) + b"\n" for view in views))


def _named_in(objects: Path) -> Iterator[Path]:
    """Give what the file of an objects folder names, without links and relative to it, as git reads it."""
    for line in _read(_file(objects)).split(b"\n"):
        if not line or line.startswith(b"#"):
            continue
        name = _unquoted(line) if line.startswith(b'"') else line
        if not name or b"\0" in name:
            raise UsageError(f"{_file(objects)}: has a line that is no path; write one folder a line")
        yield Path(os.path.realpath(objects / os.fsdecode(name)))


def _read(file: Path) -> bytes:
    try:
        descriptor = os.open(file, _OPEN)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror}); it must be a plain file") from error
    with os.fdopen(descriptor, "rb") as opened:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{file}: is no plain file, so what it lends is not known; remove it")
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{file}: is longer than any list of lenders; make this repository whole first")
    return data


def _check(place: Path, info: os.stat_result, borrower: Path, trust: Trust) -> None:
    file = _file(borrower)
    whole = "or make this repository whole: git repack -a -d && rm .git/objects/info/alternates"
    if not stat.S_ISDIR(info.st_mode):
        raise UsageError(f"{file}: borrows objects from {place}, which is no folder; remove that line")
    if trust.listed is not None:
        if not any(place.is_relative_to(folder) for folder in trust.listed):
            raise UsageError(
                f"{file}: borrows objects from {place}, which is in none of the lenders that config.toml "
                f"lists; add it there if its history may come along, {whole}"
            )
    elif info.st_uid not in trust.owners:
        raise UsageError(
            f"{file}: borrows objects from {place}, which belongs to another account (uid {info.st_uid}); if "
            f'its history may come along, write lenders = ["{place}"] in config.toml, {whole}'
        )
    check_store(place)


def _odd(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Give what is neither file nor folder below ``folder``, each with whether it is a link."""
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                found = list(entries)
        except OSError as error:
            raise UsageError(f"{here}: cannot be read ({error.strerror}); make it readable") from error
        for entry in found:
            if entry.is_symlink():
                yield Path(entry.path), True
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                yield Path(entry.path), False


def _file(objects: Path) -> Path:
    return objects / "info" / "alternates"


def _key(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino


def quoted(path: Path) -> bytes:
    """Write a folder as git reads it in a list of lenders, whatever characters it has."""
    escaped = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'


def _unquoted(line: bytes) -> bytes:
    """Undo git's C-style quotes; ``b""`` for what is not quoted so."""
    if not re.fullmatch(rb'"(?:[^"\\]|\\(?:[abfnrtv"\\]|[0-3][0-7]{2}))*"', line):
        return b""
    return _ESCAPE.sub(lambda m: bytes([_ESCAPED[m[1][0]] if m[1] else int(m[2], 8)]), line[1:-1])
