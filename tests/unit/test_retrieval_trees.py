"""A workspace as a folder and as an archive: the same work, and no way out of either."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from bot_bottle.errors import UsageError
from bot_bottle.retrieval.archive import ArchiveTree
from bot_bottle.retrieval.changes import patch_lines, visible
from bot_bottle.retrieval.tree import MAX_DEPTH, Entry, FolderTree, read_small

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.retrieval.tree import Tree


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    top = tmp_path / "workspace"
    for folder in ("src/deep", ".git/refs/heads", "nested/.git", "nested/inner"):
        (top / folder).mkdir(parents=True)
    (top / "src" / "deep" / "a.txt").write_text("a" * 10)
    (top / "run.sh").write_text("#!/bin/sh")
    (top / "run.sh").chmod(0o755)
    (top / "link").symlink_to("/etc/passwd")
    (top / "out").symlink_to("/etc", target_is_directory=True)
    (top / ".git" / "HEAD").write_text("ref: refs/heads/main")
    (top / "nested" / "inner" / "x").write_text("x")
    os.link(top / "run.sh", top / "same.sh")
    os.mkfifo(top / "pipe")
    (top / os.fsdecode(b"odd\xff\n")).write_text("odd")
    return top


def as_archive(folder: Path) -> io.BytesIO:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(folder, arcname="workspace")
    data.seek(0)
    return data


def listed(tree: Tree) -> tuple[set[Entry], list[bytes]]:
    nested: list[bytes] = []
    return set(tree.entries(nested=nested)), nested


def test_a_folder_that_cannot_be_listed_is_told(workspace: Path) -> None:
    """A folder's owner may close it to everybody; and nothing is looked for without end."""
    (workspace / "src").chmod(0)
    deep = workspace.joinpath(*["d"] * (MAX_DEPTH + 1))
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    unread: list[bytes] = []
    with FolderTree(workspace) as tree:
        own = os.geteuid()
        os.seteuid(own or 65534)  # to root no folder is closed
        try:
            found = {one.path for one in tree.entries(unread=unread)}
        finally:
            os.seteuid(own)
            (workspace / "src").chmod(0o755)
    assert b"run.sh" in found
    assert unread[0] == b"/".join([b"d"] * (MAX_DEPTH + 1))
    assert unread[1:] == [b"src"]
    unread.clear()
    assert list(ArchiveTree(as_archive(workspace), "workspace").entries(unread=unread))
    assert unread == [b"/".join([b"d"] * MAX_DEPTH)]


def test_a_folder_that_can_be_listed_and_not_entered_is_told(workspace: Path) -> None:
    (workspace / "src").chmod(0o644)
    unread: list[bytes] = []
    with FolderTree(workspace) as tree:
        own = os.geteuid()
        if own == 0:
            os.chown(workspace / "src", 65534, -1)
            os.seteuid(65534)
        try:
            found = {one.path for one in tree.entries(unread=unread)}
        finally:
            os.seteuid(own)
            (workspace / "src").chmod(0o755)
    assert not any(path.startswith(b"src/") for path in found)
    assert unread == [b"src"]


def test_a_name_that_no_file_can_have_is_none_of_an_archives(workspace: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(workspace, arcname="workspace")
        odd = tarfile.TarInfo("workspace/odd")
        odd.pax_headers = {"path": "workspace/a\0b/.gitignore"}
        archive.addfile(odd)
    data.seek(0)
    assert not any(b"\0" in one.path for one in ArchiveTree(data, "workspace").entries())


def test_both_show_the_same_work(workspace: Path) -> None:
    archive = ArchiveTree(as_archive(workspace), "workspace")
    with FolderTree(workspace) as folder:
        assert listed(folder) == listed(archive)
        entries, nested = listed(folder)
        assert nested == [b"nested"]
        assert Entry(path=b"link", link=True) in entries
        assert Entry(path=b"run.sh", executable=True, size=9) in entries
        assert {one.path for one in entries} == {
            b"src/deep/a.txt", b"run.sh", b"same.sh", b"link", b"out", b"odd\xff\n",
        }  # fmt: skip
        for tree in (folder, archive):
            assert tree.kind(b".git") == "folder"
            assert tree.kind(b"link") == "link"
            assert tree.kind(b"pipe") == "other"
            assert tree.kind(b"nothing") == ""
            assert tree.read_link(b"link") == b"/etc/passwd"
            assert read_small(tree, b"same.sh", 100) == b"#!/bin/sh"
            assert read_small(tree, b".git/HEAD", 100) == b"ref: refs/heads/main"
            assert read_small(tree, b".git/HEAD", 3) is None
            assert [one.path for one in tree.entries(b"src")] == [b"src/deep/a.txt"]
            for path in (
                b"link",
                b"out/passwd",
                b"pipe",
                b"src",
                b"../../etc/passwd",
                b"/etc/passwd",
                b"a//b",
            ):
                assert read_small(tree, path, 1 << 20) is None, path


def test_a_folder_below_is_reached_through_folders_alone(workspace: Path) -> None:
    with FolderTree(workspace, "nested") as tree:
        assert {one.path for one in tree.entries(nested=[])} == {b"inner/x"}
    assert {
        one.path for one in ArchiveTree(as_archive(workspace), "workspace", "nested").entries(nested=[])
    } == {b"inner/x"}
    for place in ("out", "link", "run.sh", "..", "nested/../..", "/etc", "nothing"):
        with pytest.raises(UsageError, match="is no folder that can be read"):
            FolderTree(workspace, place)
        with pytest.raises(UsageError, match="is no folder that can be read"):
            ArchiveTree(as_archive(workspace), "workspace", place)


def hostile(*members: tuple[str, bytes, bytes | str]) -> ArchiveTree:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, kind, what in members:
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(what, str):
                member.linkname = what
                archive.addfile(member)
            else:
                member.size = len(what)
                archive.addfile(member, io.BytesIO(what))
    data.seek(0)
    return ArchiveTree(data, "workspace")


def test_a_hostile_archive_is_data() -> None:
    tree = hostile(
        ("workspace/twice", tarfile.REGTYPE, b"first"),
        ("workspace/twice", tarfile.REGTYPE, b"second"),
        ("workspace/../../etc/passwd", tarfile.REGTYPE, b"climbs"),
        ("/etc/passwd", tarfile.REGTYPE, b"absolute"),
        ("other/file", tarfile.REGTYPE, b"beside"),
        ("workspace/way", tarfile.SYMTYPE, "/etc"),
        ("workspace/way/passwd", tarfile.REGTYPE, b"through a link"),
        ("workspace/hard", tarfile.LNKTYPE, "/etc/passwd"),
        ("workspace/loop", tarfile.LNKTYPE, "workspace/loop"),
        ("workspace/device", tarfile.CHRTYPE, ""),
        ("workspace/" + "d/" * 300 + "deep", tarfile.REGTYPE, b"deep"),
    )
    assert {one.path: one.link for one in tree.entries()} == {b"twice": False, b"way": True, b"hard": False}
    assert read_small(tree, b"twice", 100) == b"second"
    assert read_small(tree, b"hard", 100) == b"absolute"  # the archive's, not this machine's


def test_what_is_no_archive_is_a_sentence() -> None:
    for data in (b"x" * 2000, os.urandom(4096)):
        with pytest.raises(UsageError, match="the archive of the workspace cannot be read"):
            ArchiveTree(io.BytesIO(data), "workspace")


def test_a_patch_is_coloured_by_us_alone(tmp_path: Path) -> None:
    place = tmp_path / "patch"
    place.write_bytes(
        b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n"
        b"-old\x1b[2J\n+new\r\n --- kept\xff\n\\ No newline\n"
    )
    plain = list(patch_lines(place, colour=False))
    assert plain[4:7] == ["-old\\x1b[2J\n", "+new\\r\n", " --- kept\ufffd\n"]
    coloured = list(patch_lines(place, colour=True))
    assert coloured[0] == "\x1b[1mdiff --git a/x b/x\x1b[0m\n"
    assert coloured[4] == "\x1b[31m-old\\x1b[2J\x1b[0m\n"
    assert coloured[5] == "\x1b[32m+new\\r\x1b[0m\n"
    assert coloured[6] == plain[6]


@pytest.mark.parametrize(
    "char", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\r", "\u202e", "\u2066", "\u200b", "\ue000"]
)
def test_no_steering_character_is_shown_as_itself(char: str) -> None:
    assert char not in visible(f"a{char}b")
    assert visible("a\tb ü 漢 ✔\ufe0f") == "a\tb ü 漢 ✔\ufe0f"


def test_a_program_of_characters_that_nobody_sees_is_shown() -> None:
    """Bytes as variation selectors, and names of nothing but fillers."""
    hidden = "".join(chr(0xFE00 + byte) if byte < 16 else chr(0xE0100 + byte - 16) for byte in range(256))
    shown = visible(f"eval('{hidden}')")
    assert shown.isascii()
    assert shown.count("\\") == 256
    assert visible("✔\ufe0f\ufe0f\ufe0f") == "✔\ufe0f\\ufe0f\\ufe0f"
    assert visible("if \u3164:") == "if \\u3164:"
