"""What servers said of a bottle's credentials reaches its operator wherever they look; no value does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle import bottle_state, paths
from bot_bottle.announce import Announcer
from bot_bottle.audit import AuditLog
from bot_bottle.cli import main
from bot_bottle.refused_credentials import LIKELY, MAX_HOSTS, OTHERS, refused_since_start, sentences
from tests.support.cli_home import declare, scripted_home, state
from tests.support.family import wait_until
from tests.support.scripted_backend import ScriptedBackend, ScriptedBottle
from tests.support.served_log import served

if TYPE_CHECKING:
    from pathlib import Path

ONE = "worker-abcde"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BOT_BOTTLE_DRY_RUN", raising=False)
    return scripted_home(tmp_path, monkeypatch)


def refusal(host: str = "api.test", status: int = 401, count: int = 1) -> dict[str, Any]:
    return {
        "decision": "refused",
        "host": host,
        "credential": "API_TOKEN",
        "status": status,
        "count": count,
        "message": LIKELY,
    }


def write(identity: str, *refusals: dict[str, Any]) -> None:
    log = AuditLog.open(paths.audit_path(identity))
    log.append("start", identity=identity, routes=1, pid=1)
    for fields in refusals:
        log.append("credential_refused", **fields)
    log.close()


def test_refusals_are_summed_up_since_the_last_start_and_are_bounded(home: Path) -> None:
    write(ONE, refusal("old.test"))
    write(ONE, refusal(), refusal(status=403), refusal(), *(refusal(f"h{n}.test") for n in range(100)))
    found = refused_since_start(paths.audit_path(ONE))
    sums = [(one.host, one.status, one.count) for one in found]
    assert sums[:3] == [("api.test", 401, 2), ("api.test", 403, 1), ("h0.test", 401, 1)]
    assert sums[-1] == (OTHERS, 401, 102 - MAX_HOSTS)
    assert len(sums) == MAX_HOSTS + 1
    assert not refused_since_start(paths.audit_path("other-abcde"))


def test_the_sentence_names_host_credential_and_what_to_do(home: Path) -> None:
    write(ONE, refusal("a\x9bb.test"), refusal("a\x9bb.test"))
    (one,) = refused_since_start(paths.audit_path(ONE))
    (said,) = sentences([one], ONE, status="running")
    assert said == (
        f"a?b.test refused the credential API_TOKEN (401) 2 times, last at {one.last[:19]}Z: the token may "
        f"be expired or lack rights; mend it where it is read from, then: bot-bottle stop {ONE}, "
        f"bot-bottle resume {ONE}"
    )
    assert sentences([one], ONE, status="preserved")[0].endswith(f"read from, then: bot-bottle resume {ONE}")
    assert sentences([one], ONE, status="ended")[0].endswith("mend it where it is read from")


def test_listings_info_and_logs_tell_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state(ONE, kept=True)
    write(ONE, refusal(), refusal(count=2))
    assert main(["list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    (told,) = listed["refused_credentials"]
    assert (told.pop("last")[:2], told) == (
        "20",
        {"host": "api.test", "credential": "API_TOKEN", "status": 401, "count": 2},
    )
    said = "api.test refused the credential API_TOKEN (401) 2 times, last at 20"
    for command in (["info", ONE], ["dashboard", "--once"]):
        assert main(command) == 0
        assert said in capsys.readouterr().out
    for command, at in ((["info", ONE], ()), (["dashboard", "--once"], ("bottles", 0))):
        assert main([*command, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        for step in at:
            found = found[step]
        assert [one["count"] for one in found["refused_credentials"]] == [2]
    assert main(["logs", ONE, "--denied"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "credential_refused decision=refused host=api.test count=1 credential=API_TOKEN" in first
    assert first.endswith(f'message="{LIKELY}" status=401')


def test_a_session_ends_with_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(home, "agent_provider: {template: command, argv: [x, '{prompt_file}']}\n")

    def run(_self: ScriptedBottle, *_args: object, **_more: object) -> int:
        write(ScriptedBackend.launched[-1].identity, refusal())
        return 3

    monkeypatch.setattr(ScriptedBottle, "exec_agent", run)
    arguments = ["start", "a", "--yes", "--headless", "--prompt", "go"]
    assert main([*arguments, "--json"]) == 3
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert [one["status"] for one in result["refused_credentials"]] == [401]
    said = err.splitlines()[-1]
    assert said.startswith("bot-bottle: api.test refused the credential API_TOKEN (401) once at ")
    assert said.endswith(f"then: bot-bottle resume {result['identity']}")
    assert bottle_state.is_preserved(result["identity"])


def test_the_operator_is_told_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    sink, program = tmp_path / "sink", tmp_path / "tell"
    program.write_text(f"#!/bin/sh\ncat >>{sink}\n")
    program.chmod(0o755)
    with served() as bottle, Announcer(bottle.identity, on_request=[str(program)], env={"PATH": "/bin"}):
        for count, host in ((1, "api.test"), (2, "api.test"), (1, "other.test")):
            bottle.append("credential_refused", **refusal(host, count=count))
        wait_until(lambda: sink.exists() and sink.read_text().count("\n") == 2, "both hosts are told of")
    told = [json.loads(line) for line in sink.read_text().splitlines()]
    assert [(one["kind"], one["host"], one["credential"]) for one in told] == [
        ("credential", "api.test", "API_TOKEN"),
        ("credential", "other.test", "API_TOKEN"),
    ]
    assert told[0]["summary"] == "api.test refused the credential API_TOKEN (401)"
