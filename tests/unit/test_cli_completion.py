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
from tests.support.own_terminal import OwnTerminal

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
        ("bot-bottle res", ["resume"]),
        ("bot-bottle start ", ["helper", "hopeless", "theirs"]),
        ("bot-bottle start he", ["helper"]),
        ("bot-bottle start --backend b", ["bubblewrap"]),
        ("bot-bottle start --backend = b", ["bubblewrap"]),  # as bash splits --backend=b
        ("bot-bottle start --backend = bubblewrap he", ["helper"]),
        ("bot-bottle start --prompt = a = b he", ["helper"]),
        ("bot-bottle start --backend=b", ["--backend=bubblewrap"]),  # without = in COMP_WORDBREAKS
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


#: How each shell is started bare, and made to take the script it is given.
_SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], "source <(bot-bottle completion bash)"),
    "zsh": (["-f", "-i"], "autoload -U compinit; compinit -u -D; source <(bot-bottle completion zsh)"),
    "fish": (["--no-config", "-i"], "bot-bottle completion fish | source"),
}


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("bot-bottle start hel", "start helper"),
        ("bot-bottle start --backend b", "start --backend bubblewrap"),
        ("bot-bottle start --backend=b", "start --backend=bubblewrap"),
        ("bot-bottle start --backend=bubblewrap hel", "start --backend=bubblewrap helper"),
    ],
)
@pytest.mark.parametrize("shell", list(_SHELLS))
def test_a_real_shell_completes_what_is_typed(tree: Tree, shell: str, typed: str, line: str) -> None:
    """Type on the shell's own terminal and let a program in ``bot-bottle``'s place say what came of it."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not on this machine")
    stand_in = tree.cwd / "bot-bottle"
    stand_in.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "if '_BOT_BOTTLE_COMPLETE' in os.environ or sys.argv[1] == 'completion':\n"
        "    from bot_bottle.cli import main\n"
        "    sys.exit(main())\n"
        "print('called', 'with', *sys.argv[1:], '.')\n"
    )
    stand_in.chmod(0o755)
    arguments, setup = _SHELLS[shell]
    env = {
        **os.environ,
        "BOT_BOTTLE_HOME": str(tree.home),
        "HOME": str(tree.cwd),
        "PATH": f"{tree.cwd}:{os.environ['PATH']}",
        "TERM": "dumb" if shell == "bash" else "xterm",
    }
    with OwnTerminal([program, *arguments], env, tree.cwd) as terminal:
        # What is written by an arithmetic expansion cannot be the echo of what was typed.
        terminal.enter(f"{setup}; echo ready-{'(math 20 + 22)' if shell == 'fish' else '$((20 + 22))'}\n")
        terminal.wait_for("ready-42")
        terminal.enter(f"{typed}\t\n")
        terminal.wait_for(f"called with {line} .")
