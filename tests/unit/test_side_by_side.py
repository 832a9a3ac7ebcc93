"""The table of sessions side by side."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from bot_bottle.cli import main
from bot_bottle.side_by_side import Run, row, table
from tests.support.cli_home import declare, scripted_home

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def run_of(tmp_path: Path, out: str, log: str, code: int) -> Run:
    (tmp_path / "out").write_text(out)
    (tmp_path / "log").write_text(log)
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    return Run(agent="a", process=process, log=tmp_path / "log", out=tmp_path / "out", began=0.0)


def test_a_run_shows_what_its_session_came_to(tmp_path: Path) -> None:
    out = (
        '{"identity": "a-12345", "exit_code": 7, "ended_by": "agent",'
        ' "decisions": {"allowed": 3, "denied": 1},'
        ' "pushes": [{"taken": true}, {"taken": false}],'
        ' "tokens": {"answers": 2, "input_tokens": 900, "output_tokens": 42}}'
    )
    run = run_of(tmp_path, out, "", 7)
    assert row(run, 3725.0)[:3] == ("a", "running", "1:02:05")
    assert run.look()
    assert not run.look()
    run.took = 61
    assert row(run, 0) == ("a", "ended by agent", "1:01", "7", "3", "1", "1", "900+42", "a-12345")
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_refused_shows_its_own_sentence(tmp_path: Path) -> None:
    run = run_of(tmp_path, "", "bot-bottle: env.X: the host variable Y is not set\n", 2)
    assert run.look()
    assert run.result["error"] == "env.X: the host variable Y is not set"
    assert row(run, 0)[3] == "2"


def test_a_table_is_as_wide_as_its_cells_and_safe_to_print() -> None:
    head, first, second = table([["a", "running", "0:01", *[""] * 6], ["b\x1b", *["x"] * 7, "b-1"]])
    assert head.index("STATE") == first.index("running")
    assert second.startswith("b?")


def test_run_refuses_what_it_cannot_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = scripted_home(tmp_path, monkeypatch)
    declare(home, "agent_provider: {template: command, argv: [x]}\n")
    assert main(["run", "a"]) == 2
    assert "add --headless" in capsys.readouterr().err
    assert main(["run", "a", "b", "--headless", "--prompt", "x", "--yes"]) == 2
    assert "there is no agent 'b'" in capsys.readouterr().err
    assert not (home / "runs").exists()
