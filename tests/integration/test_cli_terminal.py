"""``edit`` on a real terminal: Ctrl-C belongs to the editor. Sessions on one are the contract's to prove."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.own_terminal import OwnTerminal

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration


class Terminal(OwnTerminal):
    """One ``bot-bottle`` on a pseudo-terminal of its own."""

    def __init__(self, home: Path, *args: str) -> None:
        env = {**os.environ, "BOT_BOTTLE_HOME": str(home), "TERM": "xterm"}
        super().__init__([sys.executable, "-m", "bot_bottle", *args], env, home)


def declare(home: Path, script: str, extra: str = "") -> None:
    argv = json.dumps(["/bin/sh", *(["-c", script] if script else [])])
    for path, text in (
        (
            home / "bottles" / "b.md",
            f"---\nagent_provider: {{template: command, argv: {argv}}}\n{extra}---\n",
        ),
        (home / "agents" / "a.md", "---\nbottle: b\n---\n"),
    ):
        path.write_text(text)
        path.chmod(0o644)


def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Declare a bottle whose editor is a shell script; gives the bottle's file."""
    for folder in ("bottles", "agents"):
        (tmp_path / "bb" / folder).mkdir(parents=True, mode=0o755)
    declare(tmp_path / "bb", "exit 0", "env: {A: old}\n")
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\n{script}\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path / "bb" / "bottles" / "b.md"


@pytest.mark.parametrize("key", ["\x03", "\x1c"])
def test_ctrl_c_belongs_to_the_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    path = edited(
        tmp_path,
        monkeypatch,
        "trap 'echo cau''ght; over=1' INT QUIT; echo rea''dy\n"
        'while [ -z "$over" ]; do sleep 0.05; done; sed -i s/old/new/ "$1"',
    )
    with Terminal(tmp_path / "bb", "edit", "b") as terminal:
        terminal.wait_for("ready")
        terminal.enter(key)
        terminal.wait_for("caught")
        assert terminal.exit_code() == 0
    assert "env: {A: new}" in path.read_text()


def test_ctrl_c_ends_an_editor_that_takes_it_and_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edited(
        tmp_path, monkeypatch, "sed -i s/old/new/ \"$1\"; echo rea''dy; while :; do sleep 0.05; done"
    )
    with Terminal(tmp_path / "bb", "edit", "b") as terminal:
        terminal.wait_for("ready")
        terminal.enter("\x03")
        terminal.wait_for("the editor ended with exit code 130")
        terminal.wait_for("your text is in")
        assert terminal.exit_code() == 2
    assert "env: {A: old}" in path.read_text()
