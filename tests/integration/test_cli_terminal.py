"""``start`` and ``resume`` on a real terminal with a real bottle: questions, size, Ctrl-C, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bot_bottle.backend.registry import get_bottle_backend
from tests.conftest import cannot
from tests.support.own_terminal import OwnTerminal

pytestmark = pytest.mark.integration

_PATIENCE = 30.0


class Terminal(OwnTerminal):
    """One ``bot-bottle`` on a pseudo-terminal of its own."""

    def __init__(self, home: Path, *args: str) -> None:
        env = {**os.environ, "BOT_BOTTLE_HOME": str(home), "TERM": "xterm"}
        super().__init__([sys.executable, "-m", "bot_bottle", *args], env, home)


def descendants(pid: int) -> set[int]:
    """Give every process below ``pid`` at this moment."""
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                children = {int(word) for word in (task / "children").read_text().split()}
                waiting += children - found
                found |= children
    return found


def alive(pid: int) -> bool:
    """Tell whether a process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def wait_until_gone(pids: set[int]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while left := {pid for pid in pids if alive(pid)}:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    result = get_bottle_backend("bubblewrap").probe()
    if result.level == "unavailable":
        cannot(f"bubblewrap: {result.detail} {result.remedy}")
    base = tmp_path / "bb"
    for folder in ("bottles", "agents"):
        (base / folder).mkdir(parents=True, mode=0o755)
    base.chmod(0o700)
    return base


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


def states(home: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-m", "bot_bottle", "list", "--json"],
        env={**os.environ, "BOT_BOTTLE_HOME": str(home)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    listed: list[dict[str, object]] = json.loads(done.stdout)
    return listed


def test_a_session_from_question_to_resume(home: Path) -> None:
    declare(home, "", 'env: {KEY: "?the key please"}\n')
    with Terminal(home, "start", "a") as terminal:
        assert "the key please" not in terminal.wait_for("Start this bottle? [y/N] ")
        terminal.enter("y\n")
        terminal.wait_for("the key please (KEY): ")
        terminal.enter("typed-secret\n")
        assert "typed-secret" not in terminal.wait_for("$ ")
        terminal.enter('stty size; echo "<$KEY>"\n')
        terminal.wait_for("33 101")
        terminal.wait_for("<typed-secret>")
        terminal.resize(44, 111)
        terminal.enter("until stty size | grep '44 111'; do :; done; echo resi''zed\n")
        terminal.wait_for("resized")
        terminal.enter("echo kept > file; exit 5\n")
        terminal.wait_for("bot-bottle resume a-")
        assert terminal.exit_code() == 5
    (state,) = states(home)
    assert (state["status"], state["exit_code"]) == ("preserved", 5)
    with Terminal(home, "resume", str(state["identity"]), "--yes") as terminal:
        terminal.wait_for("(KEY): ")
        terminal.enter("again\n")
        terminal.wait_for("$ ")
        terminal.enter("cat file; exit 0\n")
        terminal.wait_for("kept\r\n")
        assert terminal.exit_code() == 0
    assert states(home) == []


def test_ctrl_c_belongs_to_the_agent(home: Path) -> None:
    declare(home, "trap 'echo cau''ght; exit 9' INT; echo rea''dy; while :; do sleep 0.05; done")
    with Terminal(home, "start", "a", "--yes") as terminal:
        terminal.wait_for("ready")
        terminal.enter("\x03")
        terminal.wait_for("caught")
        assert terminal.exit_code() == 9


def test_ctrl_c_at_the_question_leaves_nothing(home: Path) -> None:
    declare(home, "exit 0")
    with Terminal(home, "start", "a") as terminal:
        terminal.wait_for("[y/N] ")
        terminal.enter("\x03")
        assert terminal.exit_code() == 130
    assert states(home) == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_however_the_launcher_ends_the_bottle_ends_and_the_work_is_kept(
    home: Path, number: signal.Signals, code: int
) -> None:
    declare(home, "echo work > file; echo rea''dy; while :; do sleep 0.05; done")
    with Terminal(home, "start", "a", "--yes") as terminal:
        terminal.wait_for("ready")
        below = descendants(terminal.pid)
        assert below
        os.kill(terminal.pid, number)
        assert terminal.exit_code() == code
    wait_until_gone(below)
    (state,) = states(home)
    assert state["status"] == "preserved"


def test_ctrl_c_of_an_unattended_run_is_130_and_nothing_runs_on(home: Path) -> None:
    declare(home, "echo rea''dy; while :; do sleep 0.05; done")
    with Terminal(home, "start", "a", "--yes", "--headless") as terminal:
        terminal.wait_for("ready")
        below = descendants(terminal.pid)
        terminal.enter("\x03")
        assert terminal.exit_code() == 130
    wait_until_gone(below)


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
