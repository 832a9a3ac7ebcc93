"""On every backend: an agent asks from inside, the operator answers outside, and only then a host is open."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.sidecar.listeners import SUPERVISE_PORT
from tests.support.family import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.lab import Lab, RunningBottle

pytestmark = pytest.mark.integration

_BOTTLE = "agent_provider: {template: command, argv: [/bin/sh]}\nsupervise: true\n"
_CURL = "curl -sS -m 60 -H 'Accept: application/json, text/event-stream' -H 'Content-Type: application/json'"


def _call(tool: str, **arguments: object) -> str:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    }
    return f"{_CURL} -d '{json.dumps(body)}' $BOT_BOTTLE_SUPERVISE_URL"


def _said(out: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(json.loads(out)["result"]["content"][0]["text"])
    return said


def _requests(lab: Lab, identity: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = lab.cli("requests", identity, "--json").json()
    return listed


def _reason(bottle: RunningBottle, url: str) -> str:
    return str(bottle.sh(f"curl -sS -m 10 {url}").out)


@pytest.fixture
def told(lab: Lab) -> Iterator[Path]:
    """Let the operator's own command hear of requests; gives where it writes what it was given."""
    config, sink = lab.home / "config.toml", lab.user_home / "told.json"
    before = config.read_text()
    lab.write(
        "config.toml", f'on_request = ["/bin/sh", "-c", "cat >{sink}.new; mv {sink}.new {sink}"]\n{before}'
    )
    yield sink
    lab.write("config.toml", before)


def test_an_agent_asks_and_a_yes_opens_a_host_for_a_while(lab: Lab, told: Path) -> None:
    lab.declare("asking", _BOTTLE)
    with lab.launch("asking") as bottle:
        assert "host_not_allowed" in _reason(bottle, "https://asked.test/docs/")
        # A page that a browser in the bottle has open asks in nobody's name.
        status = f"{_CURL} -o /dev/null -w '%{{http_code}} ' -d '{{}}' $BOT_BOTTLE_SUPERVISE_URL"
        page = f"{status} -H 'Origin: https://evil.test'; {status} -H 'Host: evil.test:9100'; {status}"
        assert bottle.sh(page).out.split() == ["403", "403", "400"]
        answers: list[str] = []
        script = _call(
            "request_egress",
            host="asked.test",
            paths=["/docs/"],
            methods=["GET"],
            reason="to \x1b[2J read",
        )
        asking = threading.Thread(target=lambda: answers.append(bottle.sh(script, timeout=60).out))
        asking.start()
        wait_until(lambda: bool(_requests(lab, bottle.identity)), "a request")
        shown = lab.cli("requests")
        assert "GET asked.test /docs/" in shown.out
        assert "\x1b" not in shown.out
        (request,) = _requests(lab, bottle.identity)
        wait_until(told.exists, "the operator's command")
        heard = json.loads(told.read_text())
        assert (heard["request"], heard["identity"]) == (request["request"], bottle.identity)
        assert heard["why"] == "to ?[2J read"
        assert lab.cli("approve", request["request"]).returncode == 2, "nobody is asked without a terminal"
        said = lab.cli("approve", request["request"], "--yes", "--for", "2h", "--words", "read on")
        assert said.returncode == 0, said.err
        assert "this opens: GET asked.test /docs/, until" in said.err
        asking.join(60)
        assert (_said(answers[0])["status"], _said(answers[0])["message"]) == ("approved", "read on")
        assert "bot_bottle_denied" not in _reason(bottle, "https://asked.test/docs/x")
        assert "bot_bottle_denied" in _reason(bottle, "https://asked.test/other")
        assert lab.cli("approve", request["request"], "--yes").returncode == 2, "answered already"
        events = [line["event"] for line in bottle.audit()]
        assert events.index("asked") < events.index("answered")


def test_a_no_is_told_and_a_bottle_that_may_not_ask_finds_nobody(lab: Lab) -> None:
    lab.declare("asking", _BOTTLE)
    lab.declare("silent", "agent_provider: {template: command, argv: [/bin/sh]}\n")
    with lab.launch("asking") as bottle:
        answers: list[str] = []
        script = _call("request_capability", text="the program jq", reason="to read JSON")
        asking = threading.Thread(target=lambda: answers.append(bottle.sh(script, timeout=60).out))
        asking.start()
        wait_until(lambda: bool(_requests(lab, bottle.identity)), "a request")
        (request,) = _requests(lab, bottle.identity)
        assert lab.cli("deny", request["request"], "python3 -m json.tool does it").returncode == 0
        asking.join(60)
        assert _said(answers[0])["status"] == "denied"
        assert _said(answers[0])["message"] == "python3 -m json.tool does it"
    with lab.launch("silent") as bottle:
        assert bottle.sh("echo ${BOT_BOTTLE_SUPERVISE_URL-none}").out.strip() == "none"
        url = f"http://{lab.sidecar_address}:{SUPERVISE_PORT}/mcp"
        assert bottle.sh(f"{_CURL} -d '{{}}' {url}").returncode != 0
