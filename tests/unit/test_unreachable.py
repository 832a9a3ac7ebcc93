"""A host that was allowed and never met is told at the end of a session, and no other is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot_bottle import paths
from bot_bottle.audit import AuditLog
from bot_bottle.cli import main
from bot_bottle.unreachable import MOST, unreachable_sentences, unreachable_since_start
from tests.support.cli_home import declare, scripted_home
from tests.support.scripted_backend import ScriptedBackend, ScriptedBottle

if TYPE_CHECKING:
    from pathlib import Path

ONE = "worker-abcde"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BOT_BOTTLE_DRY_RUN", raising=False)
    return scripted_home(tmp_path, monkeypatch)


def write(identity: str, *requests: tuple[str, str]) -> None:
    """Write a sidecar's log of requests: each a host, and what failed (``""``: nothing)."""
    log = AuditLog.open(paths.audit_path(identity))
    log.append("start", identity=identity, routes=1, pid=1)
    for host, reason in requests:
        log.append("request", decision="allow", host=host, method="GET", path="/")
        if reason:
            message = f"{host} is lost"
            log.append("request", decision="error", host=host, reason=reason, message=message)
    log.append("request", decision="deny", host="denied.test", reason="host_not_allowed")
    log.close()


def test_hosts_that_were_never_met_since_the_last_start(home: Path) -> None:
    write(ONE, ("before.test", "upstream_dns"))
    write(
        ONE,
        *[("never.test", "upstream_dns")] * 3,
        ("once.test", "upstream_unreachable"),
        ("once.test", ""),
        ("broken.test", "upstream_closed"),
    )
    found = unreachable_since_start(paths.audit_path(ONE))
    assert [(one.host, one.count) for one in found] == [("never.test", 3)]
    (said,) = unreachable_sentences(found, ONE)
    assert said == (
        "never.test is lost; 3 requests to it met no server: bot-bottle logs worker-abcde --host never.test"
    )
    assert unreachable_since_start(paths.audit_path("other-abcde")) == ()


def test_no_more_than_a_few_are_named(home: Path) -> None:
    write(ONE, *((f"h{number}\x1b.test", "upstream_tls") for number in range(MOST + 2)))
    said = unreachable_sentences(unreachable_since_start(paths.audit_path(ONE)), ONE)
    assert len(said) == MOST + 1
    assert said[-1].startswith("2 more hosts met no server")
    assert all(sentence.isprintable() for sentence in said)


def test_a_session_ends_with_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_self: ScriptedBottle, *_args: object, **_more: object) -> int:
        (plan,) = ScriptedBackend.launched
        write(plan.identity, ("never.test", "upstream_dns"))
        return 3

    monkeypatch.setattr(ScriptedBottle, "exec_agent", run)
    declare(home, "agent_provider: {template: command, argv: [x, '{prompt_file}']}\n")
    assert main(["start", "a", "--yes", "--headless", "--prompt", "x"]) == 3
    assert "bot-bottle: never.test is lost; 1 request to it met no server" in capsys.readouterr().err
