"""``edit``: the old file stays until the new one is right, and no text is lost."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle.cli import main
from tests.support.manifest_tree import Tree, put

if TYPE_CHECKING:
    from pathlib import Path

Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tree.home))
    monkeypatch.chdir(tree.cwd)
    monkeypatch.delenv("VISUAL", raising=False)
    tree.bottle("env: {A: x}\n")
    tree.agent()
    return tree


def editor(tree: Tree, monkeypatch: pytest.MonkeyPatch, *scripts: str) -> None:
    """Make $EDITOR run these shell scripts, one a call, with the file as ``$1``."""
    folder = tree.cwd / "an editor"
    folder.mkdir()
    for number, script in enumerate(scripts):
        (folder / str(number)).write_text(script)
    (folder / "run").write_text(
        f'cd "{folder}"\nn=$(cat count 2>/dev/null || echo 0)\necho $((n+1)) >count\n. ./$n\n'
    )
    monkeypatch.setenv("EDITOR", f"sh '{folder}/run'")


def leftovers(tree: Tree) -> list[Path]:
    return list((tree.cwd.parent / "tmp").rglob("*.md"))


def test_a_right_text_takes_the_old_ones_place(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tree.home / "bottles" / "b.md"
    editor(tree, monkeypatch, 'sed -i s/x/y/ "$1"')
    assert main(["edit", "b"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert "env: {A: y}" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert leftovers(tree) == []


def test_an_unchanged_text_changes_nothing(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    editor(tree, monkeypatch, "true")
    assert main(["edit", "a"]) == 0
    assert "nothing was changed in" in capsys.readouterr().err
    assert leftovers(tree) == []


def test_a_wrong_text_leaves_the_old_file_and_is_kept(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tree.home / "bottles" / "b.md"
    old = path.read_bytes()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    editor(tree, monkeypatch, 'echo "---\nenv: {A: 5}\n---" >"$1"')
    assert main(["edit", "b"]) == 2
    err = capsys.readouterr().err
    (draft,) = leftovers(tree)
    assert f"{path}:2:10: env.A: must be text" in err
    assert f"{path} is as it was; your text is in {draft}" in err
    assert path.read_bytes() == old
    assert "env: {A: 5}" in draft.read_text()


def test_a_wrong_text_can_be_edited_again(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal("\n"))
    monkeypatch.setattr(sys, "stderr", shown)
    editor(tree, monkeypatch, 'sed -i s/A:/A-B:/ "$1"', 'sed -i s/A-B:/AB:/ "$1"')
    assert main(["edit", "b"]) == 0
    assert "env.A-B: is no variable name" in shown.getvalue()
    assert "Edit it again? [Y/n] " in shown.getvalue()
    assert "env: {AB: x}" in (tree.home / "bottles" / "b.md").read_text()


def test_a_bottle_is_judged_by_what_extends_it_too(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    child = tree.bottle("extends: b\nenv: {GH: '${T}'}\n", name="child")
    tree.bottle("unrelated: mistake\n", name="other")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    editor(tree, monkeypatch, 'sed -i "s/^env.*/agent_provider: {auth_token: T}/" "$1"')
    assert main(["edit", "b"]) == 2
    err = capsys.readouterr().err
    assert f"{child}:3:11: env.GH: would put T into the bottle" in err
    assert "unrelated" not in err


def test_an_editor_that_fails_changes_nothing(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    old = (tree.home / "bottles" / "b.md").read_bytes()
    editor(tree, monkeypatch, 'sed -i s/x/y/ "$1"; exit 3')
    assert main(["edit", "b"]) == 2
    assert "the editor ended with exit code 3" in capsys.readouterr().err
    assert (tree.home / "bottles" / "b.md").read_bytes() == old


@pytest.mark.parametrize("words", ["/nowhere/editor --wait", "'"])
def test_without_a_usable_editor_nothing_is_left(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture, words: str
) -> None:
    monkeypatch.setenv("VISUAL", words)
    assert main(["edit", "b"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert leftovers(tree) == []


def test_somebody_elses_change_is_not_lost(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    path = tree.home / "bottles" / "b.md"
    editor(tree, monkeypatch, f'sed -i s/x/y/ "$1"; sed -i s/x/z/ "{path}"')
    assert main(["edit", "b"]) == 2
    assert "was changed by somebody else meanwhile; your text is in" in capsys.readouterr().err
    assert "env: {A: z}" in path.read_text()


def test_an_agent_comes_before_a_bottle_of_its_name(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    put(tree.home / "agents" / "b.md", "---\nbottle: b\n---\n")
    editor(tree, monkeypatch, 'echo more >>"$1"', 'sed -i s/x/y/ "$1"')
    assert main(["edit", "b"]) == 0
    assert capsys.readouterr().out == f"{tree.home}/agents/b.md\n"
    assert main(["edit", "b", "--bottle"]) == 0
    assert capsys.readouterr().out == f"{tree.home}/bottles/b.md\n"


@pytest.mark.parametrize("name", ["none", "../bottles/b", "/etc/passwd", ""])
def test_only_what_is_declared_can_be_edited(tree: Tree, capsys: Capture, name: str) -> None:
    assert main(["edit", name]) == 2
    assert "those that exist: a, b" in capsys.readouterr().err


@pytest.mark.parametrize("harm", ["rm '{path}'", "chmod 666 '{path}'"])
def test_a_file_that_goes_bad_meanwhile_never_costs_the_text(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: Capture, harm: str
) -> None:
    path = tree.home / "bottles" / "b.md"
    editor(tree, monkeypatch, f'sed -i s/x/y/ "$1"; {harm.format(path=path)}')
    assert main(["edit", "b"]) == 2
    (draft,) = leftovers(tree)
    assert "env: {A: y}" in draft.read_text()
    assert f"your text is in {draft}" in capsys.readouterr().err
