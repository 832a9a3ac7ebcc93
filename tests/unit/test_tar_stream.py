"""The archive as Python's own reader and GNU tar find it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest

from bot_bottle.tar_stream import ChangedError, TarStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONG = b"deep/" * 60 + b"name"
ODD = "ümlaut\udcff and 'quotes'\n".encode("utf-8", "surrogateescape")


def written(write: Callable[[TarStream], None]) -> bytes:
    """Give what a stream's reader gets of it."""
    read_end, write_end = os.pipe()
    got: list[bytes] = []

    def read() -> None:
        with os.fdopen(read_end, "rb") as source:
            got.append(source.read())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        with os.fdopen(write_end, "wb") as sink:
            stream = TarStream(sink)
            write(stream)
            stream.finish()
    finally:
        reader.join()
    return got[0]


@pytest.mark.parametrize("name", [b"plain", b"x" * 100, b"x" * 101, LONG, ODD])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 64 * 1024, 64 * 1024 + 1, 1_000_000])
def test_a_file_is_read_back_as_it_was(tmp_path: Path, name: bytes, size: int) -> None:
    data = os.urandom(size)
    file = tmp_path / "f"
    file.write_bytes(data)
    file.chmod(0o6754)
    os.utime(file, (1_600_000_000.5, 1_600_000_000.5))
    with file.open("rb") as opened:
        archive = written(lambda stream: _check(stream.file(name, opened.fileno()) == size))
    assert len(archive) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        (member,) = found.getmembers()
        assert os.fsencode(member.name) == name
        assert (member.isreg(), member.mode, member.mtime) == (True, 0o754, 1_600_000_000)
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        opened_again = found.extractfile(member)
        assert opened_again is not None
        assert opened_again.read() == data


@pytest.mark.parametrize("target", [b"near", b"../" * 20 + b"far", b"t" * 100, b"t" * 3000, ODD])
def test_tar_unpacks_links_and_folders_as_they_were(tmp_path: Path, target: bytes) -> None:
    def write(stream: TarStream) -> None:
        stream.folder(b"folder")
        stream.link(b"folder/link", target)
        stream.link(LONG, target)

    archive = written(write)
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive, check=True)
    for name in (b"folder/link", LONG):
        assert os.fsencode((tmp_path / os.fsdecode(name)).readlink()) == target
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mtime", [-1, 8**11])
def test_a_time_that_no_plain_header_can_say_is_said_all_the_same(tmp_path: Path, mtime: int) -> None:
    file = tmp_path / "f"
    file.touch()
    os.utime(file, (mtime, mtime))
    if int(file.stat().st_mtime) != mtime:
        pytest.skip("this file system has no such time")
    with file.open("rb") as opened:
        archive = written(lambda stream: _check(stream.file(b"f", opened.fileno()) == 0))
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        assert found.getmember("f").mtime == mtime


def test_a_file_that_becomes_shorter_meanwhile_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 1_000_000)

    def write(stream: TarStream) -> None:
        with file.open("r+b", buffering=0) as opened:
            opened.seek(600_000)  # as if so much of it were gone
            stream.file(b"f", opened.fileno())

    with pytest.raises(ChangedError, match="became shorter"):
        written(write)


def _check(held: bool) -> None:
    assert held
