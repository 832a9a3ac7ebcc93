"""A token that ends while its bottle runs: what the command prints next is what the upstream sees next."""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from bot_bottle.renewal import MARGIN
from tests.support.family import wait_until
from tests.support.outside import PACE, new_marker
from tests.support.watch import Watch

if TYPE_CHECKING:
    from tests.support.lab import Lab
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

#: Stands for the program: asks its model until the test has seen enough and ends it.
_PROGRAM = """#!/bin/sh
while :; do curl -s -o /dev/null https://api.anthropic.com/MARK; sleep 0.2; done
"""


def _jwt(ends: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": int(ends)}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.{secrets.token_hex(16)}"


def test_a_token_is_renewed_while_the_bottle_runs(lab: Lab, world: World) -> None:
    if lab.engine_host or lab.machine_image:
        pytest.skip("the program that stands for the real one is a script of this host's")
    mark = new_marker("renewal")
    folder = lab.user_home / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "claude"
    program.write_text(_PROGRAM.replace("MARK", mark))
    program.chmod(0o755)
    first, second = _jwt(time.time() + MARGIN + 8), _jwt(time.time() + 10 * MARGIN)
    source = lab.user_home / "token"
    source.write_text(first)
    log = lab.user_home / "renewal.log"
    log.touch()
    lab.declare(
        "renewed",
        f"agent_provider: {{template: claude, token_command: [cat, {source}]}}\n",
    )

    def seen(token: str) -> bool:
        asked = [one for one in world.records().requests if mark in one.target]
        return any(one.values("authorization") == [f"Bearer {token}"] for one in asked)

    with Watch(second, lab.home) as watch:
        env = {"PATH": f"{folder}:{lab.env['PATH']}"}
        pid = lab.spawn("start", "renewed", "--yes", "--headless", "--prompt", "go", log=log, env=env)
        try:
            wait_until(lambda: seen(first), "the first token", seconds=60 * PACE)
            source.write_text(second)
            wait_until(lambda: seen(second), "the second token", seconds=90 * PACE)
        finally:
            lab.world.call("kill", pid=pid, number=15)
            assert lab.world.call("wait", pid=pid, timeout=60 * PACE) == 143, log.read_text()
    assert watch.found == set()
    (state,) = lab.states("renewed")
    record = (lab.home / "audit" / f"{state['identity']}.jsonl").read_text()
    assert '"event":"reload"' in record
    assert first not in record
    assert second not in record
    assert lab.cli("cleanup", state["identity"], "--yes").returncode == 0
