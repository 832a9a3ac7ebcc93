"""Archives whose headers are the attack: each is refused, and costs neither memory nor a crash."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from bot_bottle import hostile_tar
from bot_bottle.backend import transfer
from bot_bottle.backend.base import ExecResult
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.hostile_tar import MAX_HEADER
from bot_bottle.retrieval.archive import ArchiveTree

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

FILE = tarfile.TarInfo("workspace/file").tobuf(tarfile.USTAR_FORMAT)


def header(kind: bytes, size: int) -> bytes:
    one = tarfile.TarInfo("@header")
    one.type, one.size = kind, size
    return one.tobuf(tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 512)


def extended(kind: bytes, name: str, value: bytes) -> bytes:
    """Write one record (pax(1)): its own length in digits, then NAME=VALUE."""
    rest = b" %b=%b\n" % (name.encode(), value)
    length = len(rest) + len(str(len(rest)))
    length = len(rest) + len(str(length))
    data = str(length).encode() + rest
    return header(kind, len(data)) + padded(data)


def backwards() -> bytes:
    """Write a member whose size, in base 256, is that of its header below zero."""
    block = bytearray(header(tarfile.REGTYPE, 0))
    block[124:136] = (-512).to_bytes(12, "big", signed=True)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def sparse_map() -> bytes:
    records = b"".join(
        b"%d %b" % (len(text) + 3, text) for text in (b"GNU.sparse.major=1\n", b"GNU.sparse.minor=0\n")
    )
    return header(tarfile.XHDTYPE, len(records)) + padded(records)


HOSTILE = {
    "a header that claims more than there is memory": header(tarfile.XHDTYPE, 7 << 30),
    "a name of a gigabyte": header(tarfile.GNUTYPE_LONGNAME, 1 << 30),
    "a header beyond the bound": extended(tarfile.XHDTYPE, "comment", b"x" * MAX_HEADER) + FILE,
    "a header for all members": extended(tarfile.XGLTYPE, "comment", b"x") + FILE,
    "headers before headers": extended(tarfile.XHDTYPE, "comment", b"x") * 5000 + FILE,
    "many headers": (extended(tarfile.XHDTYPE, "comment", b"x" * 400) + FILE) * 12,
    "a size that leads back": FILE + backwards(),
    "a size that leads back, in a header before it": FILE + extended(tarfile.XHDTYPE, "size", b"-512") + FILE,
    "a map of a sparse file": sparse_map() + FILE + b"1000000000\n" + b"1\n" * 300,
}


@pytest.fixture(params=HOSTILE, ids=str)
def hostile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bytes:
    if request.param == "many headers":  # the bound itself would make this slow
        monkeypatch.setattr(hostile_tar, "MAX_HEADERS", 4096)
    return HOSTILE[request.param] + b"\0" * 1024


class Guest:
    """A bottle whose ``tar`` writes what it likes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        del script, stdin
        assert stdout is not None
        try:
            stdout.write(self.data)
            stdout.flush()
        except BrokenPipeError:
            pass
        return ExecResult(returncode=0, stdout=b"", stderr=b"")


def test_a_workspaces_archive_with_such_headers_is_refused(hostile: bytes) -> None:
    with pytest.raises(UsageError, match="the archive of the workspace cannot be read"):
        ArchiveTree(io.BytesIO(hostile), "workspace")


def test_what_is_copied_out_with_such_headers_is_refused_and_leaves_nothing(
    hostile: bytes, tmp_path: Path
) -> None:
    with pytest.raises(LaunchError, match="could not be copied out of the bottle: an archive from a bottle"):
        transfer.cp_out(Guest(hostile), "/home/agent/workspace", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_honest_headers_pass(tmp_path: Path) -> None:
    name = "workspace/" + "/".join(["d" * 200] * 15) + "/é"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=form) as archive:
            member = tarfile.TarInfo(name)
            member.size = 4
            if form == tarfile.PAX_FORMAT:
                member.pax_headers = {"SCHILY.xattr.user.note": "x" * 60_000}
            archive.addfile(member, io.BytesIO(b"text"))
        place = tmp_path / str(form)
        transfer.cp_out(Guest(data.getvalue()), "/home/agent/workspace", place)
        assert (place.parent / str(form) / name.removeprefix("workspace/")).read_text() == "text"
        data.seek(0)
        tree = ArchiveTree(data, "workspace")
        assert [one.size for one in tree.entries()] == [4]
