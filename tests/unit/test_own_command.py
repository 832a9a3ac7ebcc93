"""What we start of ourselves is ourselves, whatever lies in the folder that the operator works in."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bot_bottle
from bot_bottle import process

_STRANGER = "import pathlib\npathlib.Path('ran').write_text('a stranger ran')\n"


@pytest.fixture
def strangers_folder(tmp_path: Path) -> Path:
    package = tmp_path / "project" / "bot_bottle"
    package.mkdir(parents=True)
    for name in ("__init__.py", "__main__.py"):
        (package / name).write_text(_STRANGER)
    for name in ("click.py", "resource.py", "subprocess.py"):
        (package.parent / name).write_text(_STRANGER)
    return package.parent


def test_a_package_of_our_name_in_the_working_folder_does_not_run(
    strangers_folder: Path, tmp_path: Path
) -> None:
    env = {**os.environ, "BOT_BOTTLE_HOME": str(tmp_path / "home")}
    env.pop("PYTHONSAFEPATH", None)
    plain = [sys.executable, "-m", "bot_bottle", "--version"]
    subprocess.run(plain, cwd=strangers_folder, env=env, capture_output=True, check=False, timeout=60)
    assert (strangers_folder / "ran").exists(), "what is planted there runs nowhere, so this proves nothing"
    (strangers_folder / "ran").unlink()
    for words in (["--version"], ["list", "--json"], ["run", "a", "--headless", "--prompt", "x", "--yes"]):
        argv = [*process.OWN_COMMAND, *words]
        subprocess.run(argv, cwd=strangers_folder, env=env, capture_output=True, check=False, timeout=60)
        assert not (strangers_folder / "ran").exists(), words


def test_no_module_is_started_by_its_name_without_closing_the_working_folder() -> None:
    """``-m`` puts the working folder first on the path (python(1)); ``-P`` and ``-I`` leave it out."""
    found = []
    for file in Path(bot_bottle.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.List | ast.Tuple):
                words = [one.value if isinstance(one, ast.Constant) else None for one in node.elts]
                if "-m" in words:
                    at = words.index("-m")
                    if any(str(word).startswith("--") for word in words[:at]):
                        continue  # git's: Python has no long option to stand before it
                    found.append((file.name, bool({"-P", "-I"} & set(words[:at]))))
    assert len(found) >= 3
    assert all(closed for _file, closed in found), found
