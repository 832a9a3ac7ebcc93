"""Unattended runs: where the task comes from, when time is up, and the one object at the end."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from bot_bottle import audit, bottle_state, paths
from bot_bottle.cli import main
from bot_bottle.errors import LaunchError
from bot_bottle.session_result import MAX_DENIALS, decided
from tests.support.cli_home import declare, scripted_home
from tests.support.scripted_backend import ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_COMMAND = "agent_provider: {template: command, argv: [x, '{prompt_file}']}\n"
_START = ["start", "a", "--yes", "--headless"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BOT_BOTTLE_DRY_RUN", raising=False)
    base = scripted_home(tmp_path, monkeypatch)
    declare(base, _COMMAND)
    return base


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def task() -> str:
    (plan,) = ScriptedBackend.launched
    return plan.spec.prompt


def test_a_task_is_read_from_stdin_or_a_file(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "Fix it: é\nand test\n".encode())
    assert main([*_START, "--prompt", "-"]) == 0
    assert task() == "Fix it: é\nand test"
    ScriptedBackend.launched.clear()
    (tmp_path / "task.md").write_text("From a file\n")
    assert main([*_START, "--prompt-file", str(tmp_path / "task.md")]) == 0
    assert task() == "From a file"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the task in stdin is empty"),
        (b" \n", "the task in stdin is empty"),
        (b"a\xffb", "no UTF-8 text (byte 1)"),
        (b"a\0b", "is no text"),
        (b"x" * ((1 << 20) + 1), "longer than 1 MiB"),
    ],
)
def test_what_is_no_task_is_one_sentence(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: bytes, said: str
) -> None:
    typed(monkeypatch, data)
    assert main([*_START, "--prompt", "-"]) == 2
    assert said in capsys.readouterr().err
    assert ScriptedBackend.launched == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--headless", "--prompt", " "], "the task in --prompt is empty"),
        (["--headless", "--prompt", "a", "--prompt-file", "b"], "keep one of them"),
        (["--headless", "--prompt-file", "missing"], "--prompt-file missing cannot be read"),
        (["--headless", "--timeout", "soon"], "write for example 90s, 30m or 2h"),
        (["--headless", "--timeout", "0"], "is no time to wait"),
        (["--headless", "--timeout", "31d"], "is no time to wait"),
        (["--prompt-file", "x"], "--prompt-file goes with --headless"),
        (["--timeout", "5"], "--timeout goes with --headless"),
        (["--json"], "--json goes with --headless"),
    ],
)
def test_options_that_cannot_be_meant(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["start", "a", "--yes", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert ScriptedBackend.launched == []


def let_the_agent(monkeypatch: pytest.MonkeyPatch, work: Callable[[], int]) -> None:
    place = "tests.support.scripted_backend.ScriptedBottle.exec_agent"
    monkeypatch.setattr(place, lambda *_args, **_more: work())


def one_object(text: str) -> dict[str, object]:
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def test_stdout_holds_one_object_and_the_agents_output_goes_to_stderr(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        os.write(1, b"the agent's words\n")
        (plan,) = ScriptedBackend.launched
        log = audit.AuditLog.open(plan.audit_path)
        log.append("request", decision="allow", host="a.example")
        for _ in range(2):
            log.append("request", decision="deny", host="b.example", reason="host_not_allowed")
        log.append("request", decision="error", host="c.example", reason="upstream_unreachable")
        log.append("git_push", decision="allow", remote="origin", refs=["create refs/heads/x 0..1"])
        log.append(
            "git_push_result", remote="origin", refs=["create refs/heads/x 0..1"], taken=True, message=""
        )
        for model, cached in (("m-1", 30), ("m-1", 0), ("m-2", 0)):
            log.append(
                "usage",
                host="a.example",
                model=model,
                input_tokens=50,
                cached_tokens=cached,
                output_tokens=7,
            )
        log.close()
        return 7

    let_the_agent(monkeypatch, work)
    assert main([*_START, "--json"]) == 7
    out, err = capfd.readouterr()
    result = one_object(out)
    (state,) = bottle_state.list_states()
    assert "the agent's words" in err
    assert result["identity"] == state.identity
    assert (result["exit_code"], result["ended_by"], result["error"]) == (7, "agent", None)
    assert result["decisions"] == {"allowed": 2, "denied": 2, "failed": 1}
    assert result["denials"] == [{"host": "b.example", "reason": "host_not_allowed", "count": 2}]
    assert result["pushes"] == [
        {
            "remote": "origin",
            "refs": ["create refs/heads/x 0..1"],
            "decision": "allow",
            "reason": None,
            "taken": True,
        }
    ]
    one = {"input_tokens": 50, "cached_tokens": 0, "output_tokens": 7}
    assert result["tokens"] == {
        "answers": 3,
        "input_tokens": 150,
        "cached_tokens": 30,
        "output_tokens": 21,
        "models": [
            {"model": "m-1", "answers": 2, "input_tokens": 100, "cached_tokens": 30, "output_tokens": 14},
            {"model": "m-2", "answers": 1, **one},
        ],
    }
    assert result["preserved"] is True
    assert result["workspace"] == str(bottle_state.bottle_state_dir(state.identity) / "workspace")
    assert isinstance(result["duration_seconds"], float)
    assert result["audit_log"] == str(paths.audit_path(state.identity))


def test_a_resumed_session_counts_its_own_decisions_only(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ScriptedBackend.outcome = 1
    assert main(_START) == 1
    (state,) = bottle_state.list_states()
    log = audit.AuditLog.open(paths.audit_path(state.identity))
    log.append("request", decision="deny", host="b.example", reason="host_not_allowed")
    log.close()
    ScriptedBackend.outcome = 0
    capfd.readouterr()
    assert main(["resume", state.identity, "--yes", "--headless", "--json"]) == 0
    result = one_object(capfd.readouterr().out)
    assert result["decisions"] == {"allowed": 0, "denied": 0, "failed": 0}
    assert (result["preserved"], result["workspace"]) == (False, None)


@pytest.mark.parametrize(
    ("outcome", "code", "ended_by", "error"),
    [
        (LaunchError("the sidecar ended"), 4, "error", "the sidecar ended"),
        (KeyboardInterrupt(), 130, "signal", None),
        (RuntimeError("token=" + "hidden"), 70, "error", "unexpected RuntimeError"),
    ],
)
def test_a_session_that_fails_still_says_how(
    home: Path,
    capfd: pytest.CaptureFixture[str],
    outcome: BaseException,
    code: int,
    ended_by: str,
    error: str | None,
) -> None:
    ScriptedBackend.outcome = outcome
    assert main([*_START, "--json"]) == code
    out = capfd.readouterr().out
    result = one_object(out)
    assert (result["exit_code"], result["ended_by"], result["error"]) == (code, ended_by, error)
    assert "hidden" not in out


def test_when_time_is_up_the_agent_is_ended_and_its_work_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    never = threading.Event()

    def work() -> int:
        never.wait(60)
        return 0

    let_the_agent(monkeypatch, work)
    assert main([*_START, "--timeout", "0.2s", "--json"]) == 124
    out, err = capfd.readouterr()
    result = one_object(out)
    assert (result["exit_code"], result["ended_by"], result["preserved"]) == (124, "timeout", True)
    assert "the agent was ended after 0.2 s (--timeout)" in err
    assert "bot-bottle resume" in err
    (state,) = bottle_state.list_states()
    assert state.metadata is not None
    assert state.metadata.exit_code == 124
    assert state.metadata.ended == "the agent was ended after 0.2 s (--timeout)"


def test_an_agents_own_124_is_no_timeout(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ScriptedBackend.outcome = 124
    assert main([*_START, "--timeout", "1h", "--json"]) == 124
    assert one_object(capfd.readouterr().out)["ended_by"] == "agent"


def test_refusals_are_listed_by_how_often_and_bounded() -> None:
    records = [
        {"event": "request", "decision": "deny", "host": f"h{number}", "reason": "host_not_allowed"}
        for number in range(MAX_DENIALS + 5)
    ]
    summed = decided([*records, records[-1], {"event": "dns", "decision": "answered"}, {"event": "end"}])
    assert summed.denied == MAX_DENIALS + 6
    assert len(summed.denials) == MAX_DENIALS
    assert summed.denials[0] == (f"h{MAX_DENIALS + 4}", "host_not_allowed", 2)


def test_a_result_belongs_to_the_latest_allowed_push_of_its_refs() -> None:
    push = {"event": "git_push", "remote": "o", "refs": ["update r a..b"]}
    denied = {**push, "decision": "deny", "reason": "secret_found"}
    result = {
        "event": "git_push_result",
        "remote": "o",
        "refs": ["update r a..b"],
        "taken": False,
        "message": "no",
    }
    pushes = decided([{**push, "decision": "allow"}, denied, result]).pushes
    assert [(push.decision, push.taken, push.reason) for push in pushes] == [
        ("allow", False, "no"),
        ("deny", False, "secret_found"),
    ]
