"""``start`` and ``resume`` on a real terminal with a real bottle: questions, size, Ctrl-C, exit codes."""

from __future__ import annotations

import json
import signal
import termios
from typing import TYPE_CHECKING

import pytest

from tests.support.family import Family

if TYPE_CHECKING:
    from tests.support.lab import Lab
    from tests.support.terminal import Terminal

pytestmark = pytest.mark.integration


def declare(lab: Lab, name: str, argv: list[str], extra: str = "") -> None:
    lab.declare(name, f"agent_provider: {{template: command, argv: {json.dumps(argv)}}}\n{extra}")


def identity_of(lab: Lab, name: str) -> str:
    (state,) = lab.states(name)
    return str(state["identity"])


def family_of(lab: Lab, terminal: Terminal, name: str) -> Family:
    return Family(lab, terminal.pid, identity_of(lab, name))


def test_a_session_from_question_to_resume(lab: Lab) -> None:
    declare(lab, "asks", ["/bin/sh"], 'env: {KEY: "?the key please"}\n')
    with lab.terminal("start", "asks") as terminal:
        assert "the key please" not in terminal.wait_for("Start this bottle? [y/N] ")
        terminal.enter("y\n")
        terminal.wait_for("the key please (KEY): ")
        terminal.enter("typed-secret\n")
        assert "typed-secret" not in terminal.wait_for("$ ")
        terminal.enter('stty size; echo "<$KEY>"\n')
        terminal.wait_for("33 101")
        terminal.wait_for("<typed-secret>")
        terminal.enter("until stty size | grep '44 111'; do :; done; echo resi''zed\n")
        for _ in range(20):
            # A client program that has only just been started does not hear of a new size yet.
            terminal.resize(44, 110)
            terminal.resize(44, 111)
            if terminal.comes("resized", 3):
                break
        terminal.wait_for("resized")
        terminal.enter("echo kept > file; exit 5\n")
        terminal.wait_for("bot-bottle resume asks-")
        assert terminal.exit_code() == 5
    (state,) = lab.states("asks")
    assert (state["status"], state["exit_code"]) == ("preserved", 5)
    with lab.terminal("resume", state["identity"], "--yes") as terminal:
        terminal.wait_for("(KEY): ")
        terminal.enter("again\n")
        terminal.wait_for("$ ")
        terminal.enter("cat file; exit 0\n")
        terminal.wait_for("kept\r\n")
        assert terminal.exit_code() == 0
    assert lab.states("asks") == []


_TTY_AGENT = """
import os, signal, sys, termios
def show(*_):
    os.write(1, ("size %d %d\\n" % os.get_terminal_size(0)).encode())  # print() cannot interrupt itself
signal.signal(signal.SIGWINCH, show)
interrupts = []
signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
assert all(os.isatty(fd) for fd in (0, 1, 2)) and os.ttyname(0).startswith("/dev/pts/")
assert os.tcgetpgrp(0) == os.getpgrp()
show()
while True:
    line = sys.stdin.readline()
    if not line:
        print("end of input", flush=True)
        continue
    print("line", line.strip(), len(interrupts), flush=True)
    if line.startswith("quit"):
        sys.exit(int(line.split()[1]))
"""


def test_the_terminal_passes_size_keys_and_code_through(lab: Lab) -> None:
    declare(lab, "typist", [lab.inside_python, "-I", "-S", "-c", _TTY_AGENT])
    with lab.terminal("start", "typist", "--yes") as terminal:
        terminal.wait_for("size 101 33\r\n")
        terminal.enter("héllo\r")
        terminal.wait_for("line héllo 0")
        # What the agent writes in that moment is lost with the terminal's buffers, as on any terminal.
        terminal.enter("\x03")
        terminal.enter("after\r")
        terminal.wait_for("line after 1")
        terminal.enter("\x04")
        terminal.wait_for("end of input")
        terminal.resize(50, 120)
        terminal.wait_for("size 120 50\r\n")
        terminal.enter("quit 9\r")
        assert terminal.exit_code() == 9
        assert terminal.settings() == terminal.before


def test_a_terminated_launcher_gives_the_terminal_back(lab: Lab) -> None:
    declare(lab, "ended", [lab.inside_python, "-I", "-S", "-c", _TTY_AGENT])
    with lab.terminal("start", "ended", "--yes") as terminal:
        terminal.wait_for("size 101 33\r\n")
        assert not terminal.settings()[3] & termios.ECHO
        with family_of(lab, terminal, "ended") as family:
            terminal.signal(signal.SIGTERM)
            assert terminal.exit_code() == 128 + signal.SIGTERM
            family.wait_until_gone()
        assert terminal.settings() == terminal.before
    assert lab.cli("cleanup", identity_of(lab, "ended"), "--yes").returncode == 0


def test_much_output_on_a_terminal_arrives_whole(lab: Lab) -> None:
    declare(lab, "talker", ["/bin/sh", "-c", "printf '\\033]52;c;c3Rv''bGVu\\007'; seq 1 20000; exit 3"])
    with lab.terminal("start", "talker", "--yes") as terminal:
        before = terminal.wait_for("\r\n20000\r\n")
        numbers = before[before.index("1\r\n2\r\n3\r\n") :].split("\r\n")
        assert numbers == [str(number) for number in range(1, 20000)]
        assert "c3RvbGVu" not in before, "the agent writes the operator's clipboard"
        assert terminal.exit_code() == 3


def test_ctrl_c_belongs_to_the_agent(lab: Lab) -> None:
    script = "trap 'echo cau''ght; exit 9' INT; echo rea''dy; while :; do sleep 0.05; done"
    declare(lab, "stubborn", ["/bin/sh", "-c", script])
    with lab.terminal("start", "stubborn", "--yes") as terminal:
        terminal.wait_for("ready")
        terminal.enter("\x03")
        terminal.wait_for("caught")
        assert terminal.exit_code() == 9


def test_ctrl_c_at_the_question_leaves_nothing(lab: Lab) -> None:
    declare(lab, "unasked", ["/bin/true"])
    with lab.terminal("start", "unasked") as terminal:
        terminal.wait_for("[y/N] ")
        assert terminal.interrupt() == 130
    assert lab.states("unasked") == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_however_the_launcher_ends_the_bottle_ends_and_the_work_is_kept(
    lab: Lab, number: signal.Signals, code: int
) -> None:
    declare(lab, "works", ["/bin/sh", "-c", "echo work > file; echo rea''dy; while :; do sleep 0.05; done"])
    with lab.terminal("start", "works", "--yes") as terminal:
        terminal.wait_for("ready")
        with family_of(lab, terminal, "works") as family:
            assert family.below()
            terminal.signal(number)
            assert terminal.exit_code() == code
            family.wait_until_gone()
    (state,) = lab.states("works")
    assert state["status"] == "preserved"
    assert lab.cli("cleanup", state["identity"], "--yes").returncode == 0


def test_ctrl_c_of_an_unattended_run_is_130_and_nothing_runs_on(lab: Lab) -> None:
    declare(lab, "alone", ["/bin/sh", "-c", "echo rea''dy; while :; do sleep 0.05; done"])
    with lab.terminal("start", "alone", "--yes", "--headless") as terminal:
        terminal.wait_for("ready")
        with family_of(lab, terminal, "alone") as family:
            terminal.enter("\x03")
            assert terminal.exit_code() == 130
            family.wait_until_gone()
    assert lab.cli("cleanup", identity_of(lab, "alone"), "--yes").returncode == 0
