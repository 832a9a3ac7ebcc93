"""Archives made by a hostile party: nothing lands outside, nothing is followed."""

from __future__ import annotations

import io
import stat
import tarfile
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.unpack import unpack

if TYPE_CHECKING:
    from pathlib import Path


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def unpack_members(destination: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> int:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    destination.mkdir()
    with tarfile.open(fileobj=buffer, mode="r|") as archive:
        return unpack(archive, destination)


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_ordinary_files_arrive_with_content_and_safe_modes(tmp_path: Path) -> None:
    placed = unpack_members(
        tmp_path / "out",
        [
            (member("tree", tarfile.DIRTYPE, mode=0o777), b""),
            (member("tree/run", mode=0o4777), b"#!/bin/sh\n"),
            (member("tree/inner", tarfile.SYMTYPE, link="run"), b""),
            (member("tree/hard", tarfile.LNKTYPE, link="tree/run"), b""),
        ],
    )
    assert placed == 4
    run = tmp_path / "out" / "tree" / "run"
    assert run.read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE(run.stat().st_mode) == 0o755
    assert (tmp_path / "out" / "tree" / "inner").readlink().name == "run"
    assert (tmp_path / "out" / "tree" / "hard").stat().st_ino == run.stat().st_ino


@pytest.mark.parametrize("name", ["/abs", "../up", "a/../../up", "tree/../../up", "nul\0byte", ""])
def test_names_that_lead_out_are_left_out(tmp_path: Path, name: str) -> None:
    assert unpack_members(tmp_path / "out", [(member(name), b"x")]) in {0, 1}
    assert everything_below(tmp_path) - {"out"} <= {"out/nul"}


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "..", "../..", "../../etc", "a/../../..", "sub/../../../x", "./../../x", ""]
)
def test_links_that_lead_out_are_left_out(tmp_path: Path, target: str) -> None:
    members = [
        (member("tree", tarfile.DIRTYPE, mode=0o755), b""),
        (member("tree/link", tarfile.SYMTYPE, link=target), b""),
    ]
    unpack_members(tmp_path / "out", members)
    assert everything_below(tmp_path / "out") == {"tree"}


def test_a_link_is_never_a_way_to_go(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    members = [
        (member("tree", tarfile.DIRTYPE, mode=0o755), b""),
        (member("tree/a", tarfile.DIRTYPE, mode=0o755), b""),
        (member("tree/a/b", tarfile.SYMTYPE, link="../a"), b""),
        (member("tree/a/b/through"), b"written through a link"),
        (member("tree/a/b"), b"replaced the link"),
        (member("tree/stolen", tarfile.LNKTYPE, link="tree/a/b/x"), b""),
    ]
    unpack_members(tmp_path / "out", members)
    assert everything_below(tmp_path / "out") == {"tree", "tree/a", "tree/a/b"}
    assert (tmp_path / "out" / "tree" / "a" / "b").is_symlink()
    assert not any(victim.iterdir())


def test_chain_of_links_cannot_climb(tmp_path: Path) -> None:
    """The shape of CVE-2025-4517: each link looks fine alone, together they would leave the tree."""
    deep = "tree/" + "/".join("d" for _ in range(8))
    members = [
        (member("tree", tarfile.DIRTYPE, mode=0o755), b""),
        (member(deep, tarfile.DIRTYPE, mode=0o755), b""),
    ]
    members += [(member("tree/l1", tarfile.SYMTYPE, link=deep.removeprefix("tree/")), b"")]
    members += [(member("tree/l2", tarfile.SYMTYPE, link="l1/../../../../../../../../../.."), b"")]
    members += [(member("tree/l2/escaped"), b"x")]
    unpack_members(tmp_path / "out", members)
    assert not (tmp_path / "out" / "tree" / "l2").is_symlink()
    assert not (tmp_path / "escaped").exists()


def test_a_link_is_not_taken_to_another_depth_by_a_hard_one(tmp_path: Path) -> None:
    """Its text stays inside where it stands, and leads out from the top."""
    deep = "/".join(str(number) for number in range(1, 10))
    (tmp_path / "secret").write_text("the host's")
    members = [
        (member(deep, tarfile.DIRTYPE, mode=0o755), b""),
        (member(f"{deep}/l", tarfile.SYMTYPE, link="../" * 8 + "secret"), b""),
        (member("notes.txt", tarfile.LNKTYPE, link=f"{deep}/l"), b""),
        (member("real"), b"content"),
        (member("again", tarfile.LNKTYPE, link="real"), b""),
    ]
    unpack_members(tmp_path / "out", members)
    assert (tmp_path / "out" / deep / "l").is_symlink()
    assert not (tmp_path / "out" / "notes.txt").is_symlink()
    assert not (tmp_path / "out" / "notes.txt").exists()
    assert (tmp_path / "out" / "again").read_bytes() == b"content"


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    members = [
        (member("p", tarfile.FIFOTYPE), b""),
        (member("c", tarfile.CHRTYPE), b""),
        (member("ok"), b"1"),
    ]
    assert unpack_members(tmp_path / "out", members) == 1
    assert everything_below(tmp_path / "out") == {"ok"}
