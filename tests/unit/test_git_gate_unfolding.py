"""What is packed in content, found however its pieces are cut."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from random import Random
from typing import TYPE_CHECKING

import pytest

from bot_bottle.git_gate.unfolding import PIECE, Member, SignsError, Unfolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TEXT = b"some text that is packed, and longer than a little\n" * 40
NOISE = Random(5).randbytes(50_000)


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return made.getvalue()


def unfolded(pieces: Iterable[bytes], name: str = "deep/x.yaml.gz") -> list[tuple[str, bytes]]:
    """Give each member's name and whole content, in the order in which they begin."""
    reader = Unfolder(name)
    members: list[Member] = []
    contents: list[bytes] = []
    for piece in pieces:
        for member, data in reader.feed(piece):
            assert 0 < len(data) <= PIECE
            if not any(member is one for one in members):
                members.append(member)
                contents.append(b"")
            contents[next(at for at, one in enumerate(members) if one is member)] += data
    return [(member.name, data) for member, data in zip(members, contents, strict=True)]


def cut(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_a_packed_file_is_read_wherever_it_is_cut(pack: Callable[[bytes], bytes], step: int) -> None:
    data = b"before" + pack(TEXT) + b"between" + pack(b"second") + b"after"
    assert unfolded(cut(data, step)) == [("x.yaml", TEXT), ("x.yaml", b"second")]


@pytest.mark.parametrize("step", [1, 7, 4096, 1 << 20])
def test_members_of_a_zip_are_read_in_turn(step: int) -> None:
    data = b"#!/bin/sh\n" + zipped(("a/b.yaml", TEXT), ("empty", b""), ("c", NOISE[:3000])) + b"after"
    assert unfolded(cut(data, step)) == [("a/b.yaml", TEXT), ("c", NOISE[:3000])]


def test_archives_in_archives_are_read_to_a_depth() -> None:
    stored = zipped(("in.gz", gzip.compress(TEXT)), method=zipfile.ZIP_STORED)
    assert unfolded([stored]) == [("x.yaml", TEXT)]
    data = TEXT
    for _ in range(4):
        data = gzip.compress(data)
    found = [content for _name, content in unfolded([data])]
    assert len(found) == 3
    assert gzip.decompress(found[-1]) == TEXT


@pytest.mark.parametrize(
    "fake",
    [
        b"\x1f\x8b\x08\0" * 50,
        b"PK\3\4" + bytes(26),
        b"PK\3\4" + b"\0" * 4 + b"\x08" + bytes(21) + b"\xff" * 5,
        b"BZh91AY&SY",
        b"\xfd7zXZ\0",
    ],
)
def test_what_only_looks_packed_hides_nothing_behind_it(fake: bytes) -> None:
    assert unfolded([fake + gzip.compress(TEXT) + bytes(20)])[-1] == ("x.yaml", TEXT)


def test_a_stream_that_breaks_off_gives_what_it_had() -> None:
    data = zipped(("a", NOISE + TEXT))[:-300]
    ((name, content),) = unfolded([data[:20_000], data[20_000:]])
    assert name == "a"
    assert (NOISE + TEXT).startswith(content)
    assert len(content) > 40_000


@pytest.mark.parametrize("sign", [b"\x1f\x8b\x08\0", b"BZh91AY&SY", b"\xfd7zXZ\0"])
def test_signs_alone_without_end_are_said_to_be_that(sign: bytes) -> None:
    reader = Unfolder("x")
    with pytest.raises(SignsError):
        list(reader.feed(sign * 10_000))
    assert reader.opened < 5_000


def test_nothing_is_found_where_nothing_is_packed() -> None:
    reader = Unfolder("plain.txt")
    assert list(reader.feed(TEXT)) == []
    assert reader.opened == 0
