"""Repositories that borrow objects: real ``git clone --shared`` and ``--reference``, and planted files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bot_bottle.errors import BotBottleError, LaunchError, UsageError
from bot_bottle.lenders import Trust, find_lenders, lend
from bot_bottle.workspace import open_workspace
from tests.integration.test_workspace import copy, git

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.workspace import WorkspaceSource

pytestmark = pytest.mark.integration


@pytest.fixture
def lender(tmp_path: Path) -> Path:
    """Make a repository with a large pack and a loose object."""
    folder = tmp_path / "lender"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "large").write_bytes(os.urandom(2_000_000))
    (folder / "a.txt").write_text("first")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    git(folder, "repack", "-q", "-a", "-d")
    (folder / "b.txt").write_text("second")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "two")
    return folder


@pytest.fixture(autouse=True)
def own_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    home = tmp_path / "bot-bottle-home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(home))
    return home / "config.toml"


def alternates(folder: Path) -> Path:
    return folder / ".git" / "objects" / "info" / "alternates"


def assert_whole(place: Path, like: Path) -> None:
    """Hold a copy against its source, and see that it has all it needs and borrows nothing."""
    expected = git(like, "rev-list", "--objects", "--all")
    away = like.parent.with_name(f"{like.parent.name}-away")
    moved = away / place.relative_to(like.parent)
    like.parent.rename(away)  # whatever it might borrow still is elsewhere
    assert not alternates(moved).exists()
    assert git(moved, "fsck", "--full", "--strict") == ""
    assert git(moved, "rev-list", "--objects", "--all") == expected
    away.rename(like.parent)


def refusal(folder: Path) -> str:
    with pytest.raises(BotBottleError) as raised, open_workspace(folder):
        pytest.fail("it was opened")
    return str(raised.value)


def opened(folder: Path, shown: tuple[Path, ...] | None = None) -> WorkspaceSource:
    with open_workspace(folder, shown=shown) as source:
        return source


@pytest.mark.parametrize("kind", ["shared", "reference", "nested", "relative", "quoted", "worktree"])
def test_what_is_borrowed_comes_in_whole_and_alone(lender: Path, tmp_path: Path, kind: str) -> None:
    ours = tmp_path / "ours"
    source = ours
    if kind == "reference":
        git(tmp_path, "clone", "-q", "--no-local", "--reference", str(lender), f"file://{lender}", "ours")
    else:
        git(tmp_path, "clone", "-q", "--shared", str(lender), "ours")
    (ours / "own.txt").write_text("ours alone")
    git(ours, "add", ".")
    git(ours, "commit", "-q", "-m", "three")
    if kind == "nested":
        git(tmp_path, "clone", "-q", "--shared", str(ours), "outer")
        source = tmp_path / "outer"
        assert git(source, "rev-list", "--count", "HEAD") == "3"
    elif kind == "relative":
        alternates(ours).write_text("# as some tools write it\n\n../../../lender/.git/objects\n")
    elif kind == "quoted":
        alternates(ours).write_text(f'"{str(lender).replace("l", chr(92) + "154", 1)}/.git/objects"\n')
    elif kind == "worktree":
        git(ours, "worktree", "add", "-q", "-b", "side", str(tmp_path / "tree"))
        source = tmp_path / "tree"
    place = copy(source, tmp_path / "copy")
    assert (place / "own.txt").read_text() == "ours alone"
    assert git(place, "status", "--porcelain") == ""
    assert_whole(place, ours)


def test_a_submodule_that_borrows_comes_along_and_is_one_of_its_own(lender: Path, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    add = ["submodule", "--quiet", "add", "--reference", str(lender), f"file://{lender}", "inner"]
    git(outer, "-c", "protocol.file.allow=always", *add)
    assert (outer / ".git" / "modules" / "inner" / "objects" / "info" / "alternates").exists()
    place = copy(outer, tmp_path / "copy")
    assert (place / "inner" / "b.txt").read_text() == "second"
    alone = copy(outer / "inner", tmp_path / "alone")
    assert git(alone, "rev-list", "--count", "HEAD") == "2"
    assert git(alone, "fsck", "--full", "--strict") == ""


def test_a_large_pack_is_taken_as_it_is_unless_it_holds_more(lender: Path, tmp_path: Path) -> None:
    packs = [path.name for path in (lender / ".git" / "objects" / "pack").glob("*.pack")]
    place = copy(lender, tmp_path / "copy")
    assert packs[0] in {path.name for path in (place / ".git" / "objects" / "pack").iterdir()}
    assert_whole(place, lender)
    # What was amended away is in the operator's pack, and must not be in the copy's.
    (lender / "b.txt").write_text("amended-away")
    git(lender, "commit", "-q", "-a", "--amend", "-m", "secret")
    gone = git(lender, "rev-parse", "HEAD")
    (lender / "b.txt").write_text("clean")
    git(lender, "commit", "-q", "-a", "--amend", "-m", "clean")
    git(lender, "gc", "-q")
    assert len(list((lender / ".git" / "objects" / "pack").glob("*.pack"))) == 1
    assert git(lender, "cat-file", "-t", gone) == "commit"
    place = copy(lender, tmp_path / "second")
    assert_whole(place, lender)
    ours = git(place, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()
    reached = git(place, "rev-list", "--objects", "--no-object-names", "--all").split()
    assert sorted(ours) == sorted(set(reached))
    assert gone not in ours


def test_a_planted_file_brings_only_what_it_can_name(lender: Path, tmp_path: Path) -> None:
    """The history of another project is not there to be found, not even as objects that lead nowhere."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "own.txt").write_text("x")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "ours")
    alternates(folder).write_text(f"{lender}/.git/objects\n")
    place = copy(folder, tmp_path / "copy")
    assert git(place, "cat-file", "--batch-all-objects", "--batch-check").count("\n") == 2
    with open_workspace(folder) as source:
        assert source.git is not None
        assert source.git.packs == ()
    # What was shown is what counts: a line more is a start anew.
    with pytest.raises(UsageError, match="borrows objects from other places than a moment ago"):
        opened(folder, shown=())
    opened(folder, shown=(lender / ".git" / "objects",))


def test_the_operators_config_says_who_may_lend(lender: Path, tmp_path: Path, own_config: Path) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(lender), "ours")
    own_config.write_text("lenders = []\n")
    assert f"borrows objects from {lender}/.git/objects, which is in none of the lenders" in refusal(
        tmp_path / "ours"
    )
    own_config.write_text(f'lenders = ["{tmp_path}/lend"]\n')  # not a folder above it
    assert "is in none of the lenders" in refusal(tmp_path / "ours")
    own_config.write_text(f'lenders = ["{lender}"]\n')
    assert_whole(copy(tmp_path / "ours", tmp_path / "copy"), tmp_path / "ours")
    own_config.write_text("lenders = ['cache']\n")
    assert "lenders: must be a list of absolute paths" in refusal(tmp_path / "ours")


def test_another_accounts_objects_are_refused(lender: Path) -> None:
    borrower = lender.with_name("borrower") / "objects"
    (borrower / "info").mkdir(parents=True)
    theirs = lender / ".git" / "objects"
    (borrower / "info" / "alternates").write_text(f"{theirs}\n")
    nobody = Trust(owners=frozenset({theirs.stat().st_uid + 1}))
    with pytest.raises(UsageError, match=r"belongs to another account \(uid \d+\)"):
        find_lenders(borrower, nobody)
    assert find_lenders(borrower, Trust(owners=nobody.owners, listed=(lender,))) == (theirs,)
    (borrower / "info" / "alternates").write_text("/proc/self/task\n")
    with pytest.raises(UsageError, match="belongs to another account"):
        find_lenders(borrower, nobody)


def test_what_is_planted_is_neither_followed_nor_waited_for(lender: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(lender), "ours")
    ours, file = tmp_path / "ours", alternates(tmp_path / "ours")
    good = file.read_text()

    def planted(text: str) -> str:
        file.unlink(missing_ok=True)
        file.write_text(text)
        return refusal(ours)

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "plain").write_text("x")
    up = "../" * len(tmp_path.parts)  # beyond the root there is the root
    for name in ("pipe", "plain", f"{up}dev/null"):
        assert "which is no folder" in planted(f"{good}{tmp_path / name}\n"), name
    assert "has a line that is no path" in planted('"unfinished\n')
    assert "longer than any list of lenders" in planted("/x\n" * 40_000)
    file.unlink()
    file.symlink_to(tmp_path / "plain")
    assert "is a link out of the repository" in refusal(ours)
    file.unlink()
    os.mkfifo(file)
    assert "is neither file nor folder" in refusal(ours)

    # In a lender: objects that lie elsewhere, and pipes that a reader would wait at.
    odd = lender / ".git" / "objects" / "pack" / "pack-odd.idx"
    odd.symlink_to(tmp_path / "plain")
    assert f"{odd}: is a link out of the repository" in planted(good)
    odd.unlink()
    os.mkfifo(odd)
    assert f"{odd}: is neither file nor folder" in planted(good)
    odd.unlink()
    os.mkfifo(alternates(lender))
    assert "is neither file nor folder" in planted(good)
    alternates(lender).unlink()

    # Loops end; a lender that is gone lends nothing, and what is missing then is told.
    alternates(lender).write_text(f"{ours}/.git/objects\n{lender}/.git/objects\n")
    file.write_text(good)
    assert_whole(copy(ours, tmp_path / "copy"), ours)
    alternates(lender).unlink()
    lender.rename(tmp_path / "gone")
    with pytest.raises(LaunchError, match=r"alternates names is not all there"), open_workspace(ours):
        pytest.fail("it was opened")


def test_no_chain_is_followed_further_than_git_does(lender: Path, tmp_path: Path) -> None:
    before = lender
    for number in range(7):
        place = tmp_path / f"deep-{number}"
        git(tmp_path, "init", "-q", str(place))
        alternates(place).write_text(f"{before}/.git/objects\n")
        before = place
    assert "6 one behind the other" in refusal(before)
    assert len(find_lenders(tmp_path / "deep-5" / ".git" / "objects", Trust.of_operator())) == 6


def test_the_environments_lenders_are_not_used(
    lender: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "-q", "--shared", str(lender), "ours")
    alternates(tmp_path / "ours").unlink()
    monkeypatch.setenv("GIT_ALTERNATE_OBJECT_DIRECTORIES", f"{lender}/.git/objects")
    with pytest.raises(LaunchError, match="GIT_ALTERNATE_OBJECT_DIRECTORIES is not used"):
        opened(tmp_path / "ours")


def test_git_reads_what_was_found_and_nothing_that_is_named_later(
    lender: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lender that appears between the look and the reading is none."""
    git(tmp_path, "clone", "-q", "--shared", str(lender), "ours")

    def late(stores: tuple[Path, ...], target: Path, place: Path) -> None:
        lender.rename(tmp_path / "moved")
        alternates(tmp_path / "ours").write_text(f"{tmp_path}/moved/.git/objects\n")
        lend(stores[:1], target, place)

    monkeypatch.setattr("bot_bottle.fresh_git.lend", late)
    with pytest.raises(LaunchError, match="cannot be copied"):
        opened(tmp_path / "ours")
