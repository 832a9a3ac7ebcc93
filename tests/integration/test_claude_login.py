"""Claude Code believes in its login: the subscription is recognised, nothing is asked, nothing is refused.

On a terminal, and as its own ``auth status`` sees it; against the scripted Messages API.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.support.outside import new_marker
from tests.support.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.lab import Lab
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TOKEN_REF = "BOT_BOTTLE_CLAUDE_OAUTH_TOKEN"
API_ADDRESS = "203.0.113.9:8443"


def _declare(lab: Lab, name: str, more: str = "") -> None:
    config = lab.home / "config.toml"
    if "api.anthropic.com" not in config.read_text():
        lab.write("config.toml", config.read_text() + f'[pins]\n"api.anthropic.com" = "{API_ADDRESS}"\n')
    lab.declare(name, f"agent_provider:\n  template: claude\n  auth_token: {TOKEN_REF}\n{more}")


def test_claude_knows_its_plan_wherever_its_settings_are(lab: Lab, claude: Path) -> None:
    _declare(lab, "status", "  plan: max\nenv: {CLAUDE_CONFIG_DIR: /home/agent/.config/claude}\n")
    token = f"sk-ant-oat01-{secrets.token_hex(24)}"
    with lab.program(claude) as env, lab.launch("status", env={TOKEN_REF: token, **env}) as bottle:
        said = bottle.sh("unset CLAUDE_CODE_OAUTH_TOKEN; claude auth status", timeout=60)
        assert said.returncode == 0, said.out + said.err
        status = json.loads(said.out)
        assert status["loggedIn"] is True
        assert (status["authMethod"], status["subscriptionType"]) == ("claude.ai", "max")
        assert bottle.sh("ls -A ~/.claude").returncode != 0
        refused = [line for line in bottle.audit() if line.get("decision") == "deny"]
        assert refused == []


def test_claude_on_a_terminal_asks_nothing_and_streams(lab: Lab, world: World, claude: Path) -> None:
    token, task, answer = f"sk-ant-oat01-{secrets.token_hex(24)}", new_marker("task"), new_marker("answer")
    _declare(lab, "typed", "  plan: max\n")
    world.call("model", final_text=answer)
    with (
        lab.program(claude) as env,
        Watch(token, lab.home) as watch,
        lab.terminal("start", "typed", "--yes", "--keep", env={TOKEN_REF: token, **env}) as terminal,
    ):
        # Words are set apart by moves of the cursor, so one word at a time is looked for.
        for word in ("Claude", "Max", "permissions"):
            terminal.wait_for(word)
        terminal.enter(task)
        terminal.wait_for(task)
        terminal.enter("\r")
        terminal.wait_for(answer)
        terminal.enter("\x04")
        terminal.wait_for("again")
        terminal.enter("\x04")
        assert terminal.exit_code() == 0
    requests = [seen for seen in world.records().requests if task.encode() in seen.body]
    assert requests
    assert all(seen.values("authorization") == [f"Bearer {token}"] for seen in requests)
    assert watch.found == set()
    (state,) = lab.states("typed")
    records = [
        json.loads(line)
        for line in (lab.home / "audit" / f"{state['identity']}.jsonl").read_text().splitlines()
    ]
    requested = {(one["decision"], one["host"]) for one in records if one["event"] == "request"}
    assert requested == {("allow", "api.anthropic.com")}
    assert lab.cli("cleanup", state["identity"], "--yes").returncode == 0
