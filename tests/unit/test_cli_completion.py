"""What a shell completes, through the very call that the printed script makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle.cli import main
from bot_bottle.cli.commands import COMMANDS
from tests.support.manifest_tree import Tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.agent(name="helper")
    tree.agent("broken: [\n", name="hopeless")
    tree.repo_agent(name="theirs")
    tree.repo_agent(name="$(touch pwned)")
    tree.bottle("", name="base")
    (tree.home / "state" / "helper-abcde").mkdir(parents=True)
    (tree.home / "audit").mkdir()
    (tree.home / "audit" / "gone-abcde.jsonl").touch()
    return tree


def complete(tree: Tree, words: str, *, shell: str = "bash") -> tuple[list[str], str]:
    """Give the completions of the last word of ``words``, and what was written to stderr."""
    parts = words.split(" ")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from bot_bottle.cli import main; sys.exit(main())"],
        env={
            **os.environ,
            "BOT_BOTTLE_HOME": str(tree.home),
            "_BOT_BOTTLE_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(parts) - 1),
        },
        cwd=tree.cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line], done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("bot-bottle ", list(COMMANDS)),
        ("bot-bottle re", ["resume"]),
        ("bot-bottle start ", ["helper", "hopeless", "theirs"]),
        ("bot-bottle start he", ["helper"]),
        ("bot-bottle start --backend b", ["bubblewrap"]),
        ("bot-bottle info h", ["helper", "helper-abcde", "hopeless"]),
        ("bot-bottle edit ", ["base", "helper", "hopeless"]),
        ("bot-bottle resume ", ["helper-abcde"]),
        ("bot-bottle cleanup ", ["helper-abcde"]),
        ("bot-bottle audit ", ["gone-abcde", "verify"]),
        ("bot-bottle audit verify ", ["gone-abcde"]),
        ("bot-bottle schema a", ["agent"]),
        ("bot-bottle completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_names_are_completed(tree: Tree, words: str, expected: list[str]) -> None:
    assert complete(tree, words) == (expected, "")


def test_without_any_folder_there_is_nothing_and_no_noise(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    shutil.rmtree(tree.home)
    assert complete(tree, "bot-bottle start ") == ([], "")
    assert complete(tree, "bot-bottle resume ") == ([], "")


_HEAVY = """
import os, sys
from click.shell_completion import BashComplete
from bot_bottle.cli.commands import cli
*before, last = sys.argv[1:]
assert BashComplete(cli, {}, "bot-bottle", "_BOT_BOTTLE_COMPLETE").get_completions(before, last)
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize("words", [[""], ["start", ""], ["info", ""], ["resume", ""], ["edit", ""]])
def test_completing_imports_nothing_heavy(tree: Tree, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HEAVY, *words],
        env={**os.environ, "BOT_BOTTLE_HOME": str(tree.home)},
        cwd=tree.cwd,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"pydantic", "yaml", "cryptography", "asyncio", "uvloop", "httptools", "rich", "ssl"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_calls_the_program_back(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_BOT_BOTTLE_COMPLETE={shell}_complete" in script
    assert "bot-bottle" in script


_IN_BASH = """
source <(bot-bottle completion bash)
COMP_WORDS=(bot-bottle start he)
COMP_CWORD=2
_bot_bottle_completion bot-bottle
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_takes_the_script(tree: Tree) -> None:
    program = tree.cwd / "bot-bottle"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom bot_bottle.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", _IN_BASH],
        env={**os.environ, "BOT_BOTTLE_HOME": str(tree.home), "PATH": f"{tree.cwd}:{os.environ['PATH']}"},
        cwd=tree.cwd,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "helper\n"
