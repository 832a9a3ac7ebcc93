"""How an absent operator hears of what an agent asks for."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle import announce, paths
from bot_bottle.announce import Announcer, details, without_secrets
from bot_bottle.secret import Secret
from bot_bottle.supervise.request import AgentRequest
from tests.support.family import wait_until
from tests.support.served_log import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.served_log import ServedLog


@pytest.fixture
def bottle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedLog]:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    with served() as one:
        yield one


def program(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def announced(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def env(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **more}


def test_a_command_is_given_each_request_on_its_standard_input(bottle: ServedLog, tmp_path: Path) -> None:
    sink, arguments = tmp_path / "sink", tmp_path / "arguments"
    command = program(tmp_path, "tell", f'cat >>{sink}; echo "$*" >>{arguments}')
    bottle.ask("a2345678", host="before.test")
    wait_until(lambda: b"before.test" in paths.audit_path(bottle.identity).read_bytes(), "a record")
    with Announcer(bottle.identity, on_request=[command, "one $HOME"], about={"agent": "worker"}, env=env()):
        bottle.request(path='/"event":"asked"')
        bottle.ask("b2345678", host="docs.test", paths=["/3/"], reason="read\x1b[2J\u202eit\nnow")
        wait_until(arguments.exists, "the first request")
        bottle.ask("c2345678", kind="capability", text="jq")
        wait_until(lambda: len(announced(sink)) == 2, "two requests")
    first, second = announced(sink)
    assert (first["identity"], first["agent"], first["request"]) == (bottle.identity, "worker", "b2345678")
    assert (first["kind"], first["host"], first["paths"]) == ("egress", "docs.test", ["/3/"])
    assert first["why"] == "read?[2J?it\nnow", "no control character reaches the command"
    assert second["summary"] == "jq"
    assert arguments.read_text() == "one $HOME\none $HOME\n", "no shell, nothing of the agent's"


def test_a_credential_that_ended_is_told_and_one_that_was_renewed_is_not(
    bottle: ServedLog, tmp_path: Path
) -> None:
    sink, shown = tmp_path / "sink", tmp_path / "shown"
    command = program(tmp_path, "tell", f"cat >>{sink}")
    program(tmp_path, "notify-send", f'echo "$*" >>{shown}')
    found = env(PATH=f"{tmp_path}:{os.environ['PATH']}")
    with Announcer(bottle.identity, on_request=[command], notify=True, env=found):
        bottle.append("credential", decision="renewed", credentials=["OLD"])
        bottle.append("credential", decision="expired", credentials=["TOKEN"], message="has ended")
        wait_until(shown.exists, "the notification")
    (told,) = announced(sink)
    assert (told["kind"], told["credential"], told["request"]) == ("credential", "TOKEN", "")
    assert "TOKEN has ended" in told["summary"]
    assert "the credential TOKEN has ended" in shown.read_text()


def test_what_cannot_be_told_is_a_notice_and_the_next_one_is_told(bottle: ServedLog, tmp_path: Path) -> None:
    said: list[str] = []
    with Announcer(bottle.identity, on_request=["/no/such"], env=env(), say=said.append):
        bottle.ask("a2345678", host="docs.test")
        wait_until(lambda: len(said) == 1, "a notice")
    assert "/no/such cannot be run: No such file" in said[0]
    once = program(tmp_path, "once", f"[ -e {tmp_path}/done ] && exit 0; touch {tmp_path}/done; exit 7")
    with Announcer(bottle.identity, on_request=[once], env=env(), say=said.append):
        bottle.ask("b2345678", host="a.test")
        wait_until(lambda: len(said) == 2, "a notice")
        bottle.ask("c2345678", host="b.test")
    assert said[1].endswith("once ended with exit code 7")
    assert len(said) == 2


def test_a_desktop_without_notifications_is_told_of_once(bottle: ServedLog, tmp_path: Path) -> None:
    sink, said = tmp_path / "sink", list[str]()
    command = program(tmp_path, "tell", f"/bin/cat >>{sink}")
    alone = {"PATH": str(tmp_path)}
    with Announcer(bottle.identity, on_request=[command], notify=True, env=alone, say=said.append):
        bottle.ask("a2345678", host="a.test")
        bottle.ask("b2345678", host="b.test")
        wait_until(lambda: len(announced(sink)) == 2, "two requests")
    assert said == ["a2345678: notify of config.toml: notify-send cannot be run: No such file or directory"]


def test_a_command_that_hangs_is_ended_with_all_it_started(
    bottle: ServedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "RUN_SECONDS", 0.2)
    said: list[str] = []
    pids = tmp_path / "pids"
    hanging = program(tmp_path, "hang", f"sleep 600 & echo $! >>{pids}; wait")
    with Announcer(bottle.identity, on_request=[hanging], env=env(), say=said.append):
        bottle.ask("a2345678", host="docs.test")
        wait_until(lambda: bool(said), "a notice")
    assert "was ended after 0.2 s" in said[0]
    for pid in pids.read_text().split():
        wait_until(lambda pid=pid: not _lives(pid), "its child to end")  # type: ignore[misc]


def test_the_end_of_a_session_does_not_wait_for_a_command_that_hangs(
    bottle: ServedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "_END_SECONDS", 0.2)
    began = tmp_path / "began"
    hanging = program(tmp_path, "hang", f"echo $$ >{began}.new; mv {began}.new {began}; sleep 600")
    with Announcer(bottle.identity, on_request=[hanging], env=env(), say=lambda _text: None):
        bottle.ask("a2345678", host="docs.test")
        wait_until(began.exists, "the command")
    wait_until(lambda: not _lives(began.read_text().strip()), "the command to end")


def test_an_agent_that_asks_too_often_is_told_of_so_often(bottle: ServedLog, tmp_path: Path) -> None:
    sink = tmp_path / "sink"
    said: list[str] = []
    command = program(tmp_path, "tell", f"cat >>{sink}")
    with Announcer(bottle.identity, on_request=[command], env=env(), say=said.append, clock=lambda: 5.0):
        for number in range(announce.PACE + 3):
            bottle.ask(f"a{number:07}", host=f"h{number}.test")
        wait_until(lambda: len(said) == 3, "three notices")
    assert len(announced(sink)) == announce.PACE
    assert "a0000010: not announced" in said[0]


def test_the_desktop_is_shown_nothing_that_the_agent_wrote(bottle: ServedLog, tmp_path: Path) -> None:
    sink = tmp_path / "sink"
    program(tmp_path, "notify-send", f'printf "%s|" "$@" >>{sink}.new; mv {sink}.new {sink}')
    path = f"{tmp_path}:{os.environ['PATH']}"
    with Announcer(bottle.identity, notify=True, env=env(PATH=path)):
        bottle.ask("a2345678", host="evil.test", reason="--icon=/etc/passwd <b>")
        wait_until(sink.exists, "a notification")
    words = (
        f"--app-name=bot-bottle|--|{bottle.identity}|asks for egress (a2345678); see: bot-bottle requests|"
    )
    assert sink.read_text() == words


def test_a_sidecar_that_ends_ends_nothing_else(bottle: ServedLog) -> None:
    with Announcer(bottle.identity, on_request=["true"], env=env()):
        bottle.end()


def test_the_command_gets_no_credential() -> None:
    given = without_secrets({"A": "token-of-mine", "B": "b"}, [Secret("token-of-mine")])
    assert given == {"B": "b"}


def test_a_credential_is_known_by_its_name_and_with_a_line_feed_behind_it() -> None:
    mine = {"A": "token-of-mine\n", "B": "b", "TOKEN": "another value of it", "EMPTY": ""}
    given = without_secrets(mine, [Secret("token-of-mine"), Secret("")], names=["TOKEN", ""])
    assert given == {"B": "b", "EMPTY": ""}


def test_a_record_that_was_not_cleaned_is_cleaned() -> None:
    request = AgentRequest(
        id="a2345678", kind="git", reason="\x1b]0;x\x07", asked=1, remote="o", refs=("refs/\x9b",)
    )
    obj = json.loads(details(request, "worker-abcde", {}))
    assert obj["why"] == "?]0;x?"
    assert obj["refs"] == ["refs/?"]


def _lives(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
