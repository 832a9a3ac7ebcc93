"""Removing what an agent made, however it was made."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bot_bottle.files import remove_tree

_DEPTH = 6000
_NOBODY = 65534


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def dig(folder: Path, depth: int, *, mode: int = 0o755, beside: bool = True) -> None:
    """Make folders in each other, each with a file beside, as an agent does: by a path of one name each."""
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    levels = []
    for _ in range(depth):
        os.mkdir("d", dir_fd=at)
        if beside:
            os.close(os.open("f", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=at))
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
        if mode == 0o755:
            os.close(at)
        else:
            levels.append(at)
        at = below
    os.close(at)
    for level in reversed(levels):
        os.fchmod(level, mode)
        os.close(level)


def test_a_tree_deeper_than_any_path_is_removed(tree: Path) -> None:
    dig(tree, _DEPTH)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 8, files[1]))
    try:
        remove_tree(tree)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, files)
    assert not tree.exists()


_AS_NOBODY = """
import ctypes, os, sys
from pathlib import Path
from bot_bottle.files import remove_tree
from tests.unit.test_files import dig
tree = Path(sys.argv[1])
if os.getuid() == 0:
    os.chown(tree, {nobody}, {nobody})
    os.setgroups([])
    os.setresgid({nobody}, {nobody}, {nobody})
    os.setresuid({nobody}, {nobody}, {nobody})
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: /proc/self is its own, as after exec
home = tree / "home"
home.mkdir()
dig(home, 40, mode=0)
assert home.stat().st_mode & 0o777 == 0
remove_tree(home)
assert os.listdir(tree) == []
"""


def test_an_ordinary_user_removes_closed_folders_in_closed_folders(tree: Path) -> None:
    # By a descriptor, since the folders above belong to root alone.
    top = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        subprocess.run(
            [sys.executable, "-c", _AS_NOBODY.format(nobody=_NOBODY), f"/proc/self/fd/{top}"],
            cwd=Path(__file__).parents[2],
            pass_fds=(top,),
            check=True,
            timeout=60,
        )
    finally:
        os.close(top)


def test_a_closed_tree_is_removed_whoever_the_operator_is(tree: Path) -> None:
    dig(tree, 200, mode=0)
    remove_tree(tree)
    assert not tree.exists()


def test_wide_folders_of_everything_are_removed_and_links_lead_nowhere(tree: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o750)
    (outside / "keep").write_text("kept")
    for parent in (tree, tree / "a", tree / "a" / "b"):
        parent.mkdir(exist_ok=True)
        for number in range(1500):
            (parent / f"f{number}").touch()
            (parent / f"d{number}").mkdir()
        (parent / "link").symlink_to(outside)
        (parent / "nowhere").symlink_to("nothing")
        os.mkfifo(parent / "fifo")
        (parent / "d7" / "deep").mkdir()
        (parent / "d7" / "deep" / "link").symlink_to(outside)
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "keep").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o750


def test_a_link_a_file_and_nothing_at_the_top(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("kept")
    link, file = tmp_path / "link", tmp_path / "file"
    link.symlink_to(outside)
    file.touch()
    for path in (link, file, tmp_path / "nothing"):
        remove_tree(path)
        assert not os.path.lexists(path)
    assert (outside / "keep").exists()


def test_what_cannot_be_removed_is_an_error() -> None:
    with pytest.raises(OSError, match=r"not permitted|[Pp]ermission denied"):
        remove_tree(Path("/proc/self/fdinfo"))
