"""Bottles that outlive their terminal, on every backend and account: started, joined, left, ended."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.family import Family, containers, wait_until

if TYPE_CHECKING:
    from tests.support.lab import Lab
    from tests.support.terminal import Terminal

pytestmark = pytest.mark.integration

_INTERRUPTIBLE = """sh -c 'trap "echo cau\\"\\"ght; exit" INT; echo rea""dy; while :; do sleep 0.05; done'"""
LEAVE = "\x10\x11"


def declare(lab: Lab, name: str, argv: list[str], extra: str = "") -> None:
    lab.declare(name, f"agent_provider: {{template: command, argv: {json.dumps(argv)}}}\n{extra}")


def state_of(lab: Lab, name: str) -> dict[str, object]:
    (state,) = lab.states(name)
    return state


def family_of(lab: Lab, identity: str) -> Family:
    return Family(lab, int((lab.home / "state" / identity / "lock").read_text()), identity)


def join(lab: Lab, identity: str) -> Terminal:
    terminal = lab.terminal("attach", identity)
    terminal.wait_for("Ctrl-P Ctrl-Q leaves it to itself")
    return terminal


def test_a_detached_session_outlives_its_terminal_and_is_joined_left_and_ended(lab: Lab) -> None:
    declare(lab, "lives-on", ["/bin/sh"])
    with lab.terminal("start", "lives-on", "--detach") as terminal:
        terminal.wait_for("[y/N] ")
        terminal.enter("y\n")
        terminal.wait_for("runs without this terminal")
        assert terminal.exit_code() == 0
        assert terminal.settings() == terminal.before
    # That terminal is closed now, and what hung up with it was not the bottle.
    state = state_of(lab, "lives-on")
    identity = str(state["identity"])
    assert (state["status"], state["detached"]) == ("running", True)
    folder = lab.home / "state" / identity
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in ("terminal", "output")}
    assert modes == {"terminal": 0o600, "output": 0o600}
    with join(lab, identity) as first:
        first.enter("until stty size | grep '33 101'; do sleep 0.1; done; echo si''zed\r")
        first.wait_for("sized")
        first.resize(40, 99)
        first.enter("until stty size | grep '40 99'; do sleep 0.1; done; echo resi''zed\r")
        for _ in range(20):
            if first.comes("resized", 3):
                break
            first.resize(40, 98)  # a client program that has only just been started hears of no new size yet
            first.resize(40, 99)
        first.wait_for("resized")
        first.enter("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c ptmx; echo cou''nted\r")
        assert first.wait_for("counted").split()[-1] == "0", "the other end of a terminal is in the bottle"
        first.enter("echo seen-''before\r")
        first.wait_for("seen-before")
        first.enter(LEAVE)
        first.wait_for("goes on")
        assert first.exit_code() == 0
        assert first.settings() == first.before
    with join(lab, identity) as second, lab.terminal("attach", identity) as third:
        second.wait_for("seen-before")
        third.wait_for("seen-before")
        second.wait_for("another terminal has joined")
        assert second.exit_code() == 1
        third.enter(f"{_INTERRUPTIBLE}\r")
        third.wait_for("ready")
        third.enter("\x03")
        third.wait_for("caught")
        third.enter("echo kept > file; exit 7\r")
        third.wait_for("exit code 7")
        assert third.exit_code() == 7
    state = state_of(lab, "lives-on")
    assert (state["status"], state["exit_code"], state["detached"]) == ("preserved", 7, False)
    told = lab.cli("info", identity, "--json").json()
    assert (told["ended"], told["next"]) == (
        "the agent ended with exit code 7",
        f"bot-bottle resume {identity}",
    )
    assert containers(lab, identity) == []
    refused = lab.cli("attach", identity)
    assert (refused.returncode, "bot-bottle resume" in refused.err) == (2, True), refused.err

    resumed = lab.cli("resume", identity, "--detach", "--yes")
    assert (resumed.returncode, resumed.out) == (0, f"{identity}\n"), resumed.err
    with join(lab, identity) as fourth, family_of(lab, identity) as family:
        fourth.enter("cat file\r")
        fourth.wait_for("kept")
        stopped = lab.cli("stop", identity)
        assert stopped.returncode == 0, stopped.err
        fourth.wait_for("was ended")
        assert fourth.exit_code() == 4
        family.wait_until_gone()
    assert lab.cli("info", identity, "--json").json()["ended"] == "the session was ended by SIGTERM"
    assert lab.cli("cleanup", identity, "--yes").returncode == 0


_UNATTENDED = """
[ -e been ] && exit 0
touch been; echo beg"un"
until curl -sf -m 5 -o /dev/null https://allowed.test/; do sleep 0.1; done
echo on; echo err >&2; exit 3
"""


def test_a_detached_unattended_run_is_followed_and_its_output_is_kept(lab: Lab) -> None:
    declare(lab, "alone", ["/bin/sh", "-c", _UNATTENDED])
    started = lab.cli("start", "alone", "--detach", "--yes", "--headless", "--json")
    assert started.returncode == 0, started.err
    report = started.json()
    identity = str(report["identity"])
    log = lab.user_home / "follow.log"
    log.write_bytes(b"")
    follower = lab.spawn("attach", identity, log=log)
    wait_until(lambda: b"begun\n" in log.read_bytes(), "what was written before is shown")
    declare(lab, "alone", ["/bin/sh", "-c", _UNATTENDED], "egress: {routes: [{host: allowed.test}]}\n")
    applied = lab.cli("apply", identity, "--yes")
    assert applied.returncode == 0, applied.err
    assert lab.world.call("wait", pid=follower, timeout=60) == 3
    words = log.read_text()
    assert "on\n" in words
    assert "err\n" in words
    assert f"bot-bottle resume {identity}" in words
    assert sorted(Path(report["output"]).read_text().split()) == ["begun", "err", "on"]
    assert state_of(lab, "alone")["exit_code"] == 3
    again = lab.cli("resume", identity, "--detach", "--yes", "--headless")
    assert again.returncode == 0, again.err
    wait_until(lambda: lab.states("alone") == [], "what ended well is gone")
    assert containers(lab, identity) == []
