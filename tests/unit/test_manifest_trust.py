"""Whose manifests are read: nothing that others could have written, whichever way leads there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bot_bottle.errors import ManifestError
from bot_bottle.manifest.model import Manifest
from tests.support.manifest_tree import Tree, put

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_can_write_is_refused(tree: Tree, mode: int) -> None:
    tree.agent()
    tree.bottle("").chmod(mode)
    assert "run: chmod go-w" in tree.refusal()


@pytest.mark.parametrize("folder", ["bottles", "."])
def test_a_folder_that_others_can_write_is_refused(tree: Tree, folder: str) -> None:
    tree.agent()
    tree.bottle("")
    (tree.home / folder).chmod(0o777)
    assert "can be written by every user" in tree.refusal()


def test_a_repositorys_file_may_be_its_groups_but_not_everybodys(tree: Tree) -> None:
    tree.bottle("")
    path = tree.repo_agent()
    path.chmod(0o664)
    assert tree.resolve().bottle_for("a").name == "b"
    path.chmod(0o666)
    assert "every user" in tree.refusal()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another account")
def test_a_file_of_another_account_is_refused(tree: Tree) -> None:
    tree.agent()
    os.chown(tree.bottle(""), 12345, 12345)
    assert "belongs to another user" in tree.refusal()


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_followed(tree: Tree) -> None:
    outside = put(tree.home.parent / "elsewhere.md", "---\nbottle: b\n---\n")
    tree.bottle("")
    tree.agent(name="real")
    (tree.home / "agents" / "a.md").symlink_to(outside)
    (tree.home / "agents" / "alias.md").symlink_to("real.md")
    assert "is a link out of" in tree.refusal()
    assert tree.resolve().bottle_for("alias").name == "b"


@pytest.fixture
def elsewhere(tree: Tree) -> Path:
    """Give a folder that everybody can write, with the operator's bottles moved to a folder below it."""
    tree.agent()
    tree.bottle("")
    folder = tree.home.parent.parent / "shared"
    folder.mkdir()
    (tree.home / "bottles").rename(folder / "bottles")
    (tree.home / "bottles").symlink_to(folder / "bottles")
    folder.chmod(0o777)
    return folder


def test_a_folder_that_is_a_link_is_judged_by_where_it_leads(tree: Tree, elsewhere: Path) -> None:
    said = tree.refusal()
    assert f"{elsewhere} can be written by every user of this machine; run: chmod go-w" in said
    assert f"(it is on the way to {tree.home}/bottles)" in said
    elsewhere.chmod(0o755)
    assert tree.resolve().bottle_for("a").name == "b"


def test_a_home_that_is_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    tree = Tree(shared)
    tree.agent()
    tree.bottle("")
    link = tmp_path / "link"
    link.symlink_to("shared/home/.bot-bottle")
    assert Manifest.resolve(tmp_path, link).bottle_for("a").name == "b"
    (shared / "home").chmod(0o777)
    with pytest.raises(ManifestError, match="can be written by every user"):
        Manifest.resolve(tmp_path, link).bottle_for("a")


def test_in_a_sticky_folder_only_the_operators_own_entries_count(tree: Tree, elsewhere: Path) -> None:
    elsewhere.chmod(0o1777)
    assert tree.resolve().bottle_for("a").name == "b"
    if os.geteuid() != 0:
        return  # only root can make an entry of another account
    (elsewhere / "bottles").rename(elsewhere / "real")
    (elsewhere / "bottles").symlink_to("real")
    assert tree.resolve().bottle_for("a").name == "b"
    os.chown(elsewhere / "bottles", 12345, 12345, follow_symlinks=False)
    assert f"{elsewhere}/bottles belongs to another user of this machine" in tree.refusal()


def test_a_links_way_within_the_folder_is_judged_too(tree: Tree) -> None:
    tree.agent()
    open_to_all = tree.home / "bottles" / "open"
    open_to_all.mkdir()
    put(open_to_all / "x.md", "---\n---\n")
    (tree.home / "bottles" / "b.md").symlink_to("open/x.md")
    assert tree.resolve().bottle_for("a").name == "b"
    open_to_all.chmod(0o777)
    assert f"{open_to_all} can be written by every user" in tree.refusal()


def test_links_that_go_round_are_a_sentence(tree: Tree) -> None:
    tree.agent()
    (tree.home / "bottles").rmdir()
    (tree.home / "bottles").symlink_to("bottles")
    assert "there is no bottle 'b'" in tree.refusal()


def test_a_repositorys_agents_folder_that_leads_elsewhere_is_ignored(tree: Tree) -> None:
    tree.bottle("")
    tree.agent(name="private")
    (tree.cwd / ".bot-bottle").mkdir()
    (tree.cwd / ".bot-bottle" / "agents").symlink_to(tree.home / "agents")
    manifest = tree.resolve()
    assert manifest.require_agent("private").origin == "operator"
    assert any("link out of" in text for text in manifest.warnings)


def test_pipes_folders_and_dangling_links_never_hang_or_break_the_loader(tree: Tree) -> None:
    tree.bottle("")
    agents = tree.cwd / ".bot-bottle" / "agents"
    agents.mkdir(parents=True)
    os.mkfifo(agents / "pipe.md")
    (agents / "folder.md").mkdir()
    (agents / "loop.md").symlink_to("loop.md")
    (agents / "gone.md").symlink_to("missing.md")
    for name in ("pipe", "folder", "loop", "gone"):
        tree.refusal(name)
