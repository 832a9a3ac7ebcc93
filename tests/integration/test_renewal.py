"""A token that ends while its bottle runs: what the command prints next is what the upstream sees next."""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from typing import TYPE_CHECKING

import pytest

from bot_bottle.renewal import MARGIN
from tests.support.family import wait_until
from tests.support.outside import PACE, new_marker
from tests.support.watch import Watch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.lab import Lab
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

#: Stands for the program: asks its model until the test has seen enough and ends it.
_PROGRAM = """#!/bin/sh
while :; do
  curl -s https://api.anthropic.com/MARK | grep -aE 'credential_expired|newer one|operator was' >> answers
  sleep 0.2
done
"""


def _jwt(ends: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": int(ends)}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.{secrets.token_hex(16)}"


def _put(path: Path, token: str) -> None:
    """Let a file hold another token, at no moment none."""
    new = path.with_suffix(".new")
    new.write_text(token)
    new.chmod(0o600)
    os.chown(new, path.stat().st_uid, path.stat().st_gid)
    new.replace(path)


def test_a_token_is_renewed_while_the_bottle_runs_and_refused_once_it_has_ended(
    lab: Lab, world: World
) -> None:
    if lab.engine_host or lab.machine_image:
        pytest.skip("the program that stands for the real one is a script of this host's")
    mark = new_marker("renewal")
    folder = lab.user_home / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "claude"
    program.write_text(_PROGRAM.replace("MARK", mark))
    program.chmod(0o755)
    first, second = _jwt(time.time() + MARGIN + 8), _jwt(time.time() + 10 * MARGIN)
    filed = [f"opaque-{secrets.token_hex(12)}" for _ in range(2)]
    printed, file = lab.user_home / "printed", lab.user_home / "file"
    logs = {name: lab.user_home / f"{name}.log" for name in ("printed", "filed")}
    for path, content in ((printed, first), (file, filed[0]), *((log, "") for log in logs.values())):
        path.write_text(content)
        path.chmod(0o600)
    lab.declare("printed", f"agent_provider: {{template: claude, token_command: [cat, {printed}]}}\n")
    lab.declare("filed", f"agent_provider: {{template: claude, token_file: {file}}}\n")

    def seen(token: str) -> bool:
        asked = [one for one in world.records().requests if mark in one.target]
        return any(one.values("authorization") == [f"Bearer {token}"] for one in asked)

    def record(name: str) -> str:
        (log,) = (lab.home / "audit").glob(f"{name}-?????.jsonl")
        return log.read_text()

    env = {"PATH": f"{folder}:{lab.env['PATH']}"}
    pids = {}
    with Watch(second, lab.home) as watch:
        try:
            for name, log in logs.items():
                argv = ("start", name, "--yes", "--headless", "--prompt", "go")
                pids[name] = lab.spawn(*argv, log=log, env=env)
            wait_until(lambda: seen(first) and seen(filed[0]), "the first tokens", seconds=60 * PACE)
            _put(file, filed[1])
            _put(printed, second)
            wait_until(lambda: seen(second) and seen(filed[1]), "the second tokens", seconds=90 * PACE)
            # One that ends soon, and that nothing renews: it is refused, and good again once it is renewed.
            ending, last = _jwt(time.time() + 12), _jwt(time.time() + 10 * MARGIN)
            _put(file, ending)
            wait_until(lambda: '"reason":"credential_expired"' in record("filed"), "its end", 90 * PACE)
            _put(file, last)
            wait_until(lambda: seen(last), "the last one", seconds=60 * PACE)
        finally:
            for pid in pids.values():
                lab.world.call("kill", pid=pid, number=15)
            ends = [lab.world.call("wait", pid=pid, timeout=60 * PACE) for pid in pids.values()]
    assert ends == [143, 143], [log.read_text() for log in logs.values()]
    assert watch.found == set()
    told = logs["filed"].read_text()
    assert "good until" in told
    assert "has ended: what needs it is refused until its source has a newer one" in told
    denial = "there is no newer one yet"
    (state,) = lab.states("filed")
    answers = (lab.home / "state" / state["identity"] / "workspace" / "answers").read_text()
    assert denial in answers
    assert "the operator was told" in answers
    for name, log in logs.items():
        (state,) = lab.states(name)
        text = record(name)
        assert '"decision":"renewed"' in text
        for token in (first, second, *filed, ending, last):
            assert token not in text + log.read_text()
        assert lab.cli("audit", "verify", state["identity"]).returncode == 0
        assert lab.cli("cleanup", state["identity"], "--yes").returncode == 0
