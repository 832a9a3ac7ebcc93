"""The dashboard as a program on a terminal, over a real bottle: an agent asks, keys answer, a key ends it."""

from __future__ import annotations

import json
import threading

import pytest

from tests.support.family import wait_until
from tests.support.lab import Lab

pytest.importorskip("textual", reason="the extra dashboard is not installed")
pytestmark = pytest.mark.integration

_BOTTLE = "agent_provider: {template: command, argv: [/bin/sh]}\nsupervise: true\n"
_CURL = "curl -sS -m 60 -H 'Accept: application/json, text/event-stream' -H 'Content-Type: application/json'"


def test_an_agent_is_answered_and_its_bottle_stopped_from_the_screen(lab: Lab) -> None:
    if lab.backend != "bubblewrap":
        pytest.skip("what the screen shows of other backends comes from the same files")
    # An installation of its own: on the shared one other tests' bottles are on the screen as well.
    lab = Lab(world=lab.world, account=lab.account, backend=lab.backend)
    lab.declare("watched", _BOTTLE)
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "request_egress",
            "arguments": {"host": "asked.test", "methods": ["GET"], "reason": "[bold]to \x1b[2J read[/]"},
        },
    }
    bottle = lab.launch("watched")
    try:
        with lab.terminal("dashboard") as screen:
            screen.wait_for("1 running")
            script = f"{_CURL} -d '{json.dumps(body)}' $BOT_BOTTLE_SUPERVISE_URL"
            answers: list[str] = []
            asking = threading.Thread(target=lambda: answers.append(bottle.sh(script, timeout=60).out))
            asking.start()
            screen.wait_for("GET asked.test")
            screen.enter("a")
            screen.wait_for("[bold]to ?[2J read[/]")
            screen.wait_for("that is all of it")  # nothing is allowed before
            screen.enter("\x0f")  # Ctrl+O
            asking.join(60)
            assert json.loads(json.loads(answers[0])["result"]["content"][0]["text"])["status"] == "approved"
            assert "bot_bottle_denied" not in bottle.sh("curl -sS -m 10 https://asked.test/").out
            screen.enter("x")
            screen.wait_for("Its work is kept")
            screen.enter("y")
            wait_until(lambda: [one["status"] for one in lab.states("watched")] == ["preserved"], "its end")
            screen.wait_for("is stopped")
            screen.enter("q")
            assert screen.exit_code() == 0
        once = lab.cli("dashboard", "--once", "--json").json()
        (kept,) = [one for one in once["bottles"] if one["identity"] == bottle.identity]
        assert (kept["state"], kept["agent"], kept["backend"]) == ("preserved", "watched", "bubblewrap")
        assert lab.cli("rm", bottle.identity, "--yes").returncode == 0
    finally:
        bottle.abandon()
