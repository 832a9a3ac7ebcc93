"""What runs in a bottle, on every backend, for every account: scripts, streams, codes, files, the agent."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from bot_bottle.agent_account import AGENT_HOME, AGENT_WORKSPACE
from tests.support.family import wait_until
from tests.support.lab import RaisedError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.lab import Lab, RunningBottle

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(lab: Lab, request: pytest.FixtureRequest) -> Path:
    """Give an empty folder of the account that launches."""
    place: Path = lab.user_home / request.node.name.partition("[")[0]
    place.mkdir(mode=0o700)
    lab.own()
    return place


def test_a_script_gets_its_input_and_gives_output_and_code(room: RunningBottle) -> None:
    result = room.sh("cat; echo to-err >&2; exit 7", stdin=b"to-in")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"to-in", b"to-err\n")


def test_a_script_runs_as_the_agent_in_its_workspace(room: RunningBottle) -> None:
    assert room.sh("id -u; id -un; pwd; echo ~; hostname").out.split("\n")[:5] == [
        "1000",
        "agent",
        AGENT_WORKSPACE,
        AGENT_HOME,
        "bottle",
    ]


def test_a_signal_counts_as_128_and_its_number(room: RunningBottle) -> None:
    assert room.sh("kill -TERM $$").returncode == 128 + signal.SIGTERM
    assert room.sh("kill -SEGV $$").returncode == 128 + signal.SIGSEGV


@pytest.mark.parametrize("code", [0, 1, 2, 124, 125, 126, 127, 128, 137, 255])
def test_a_code_of_the_scripts_own_is_passed_on_as_it_is(room: RunningBottle, code: int) -> None:
    assert room.sh(f"exit {code}").returncode == code


def test_much_input_and_output_at_the_same_time(room: RunningBottle) -> None:
    data = os.urandom(1 << 20) * 12
    result = room.sh("rm -f f; mkfifo f; cat f >&2 & tee f; wait", stdin=data)
    assert result.stdout == data
    assert result.stderr == data


def test_input_that_nobody_reads_does_no_harm(room: RunningBottle) -> None:
    assert room.sh("exit 4", stdin=b"x" * (4 << 20)).returncode == 4


def test_output_beyond_the_bound_ends_the_script(room: RunningBottle) -> None:
    with pytest.raises(RaisedError, match="64 MiB"):
        room.sh("cat /dev/zero")
    wait_until(lambda: room.sh("pgrep -x cat || echo gone").stdout == b"gone\n", "the script has ended")


def test_a_timeout_kills_all_that_the_script_started(room: RunningBottle) -> None:
    with pytest.raises(RaisedError, match="TimeoutError"):
        room.sh("sleep 700 & (sleep 700 &) ; sleep 700", timeout=0.5)
    wait_until(
        lambda: room.sh("pgrep -f 'sleep 70[0]' || echo gone").stdout == b"gone\n", "the script has ended"
    )


def test_a_process_left_in_the_background_neither_blocks_nor_dies(room: RunningBottle) -> None:
    assert room.sh("sleep 900 & echo started").stdout == b"started\n"
    assert room.sh("pkill -f 'sleep 90[0]'").returncode == 0


def test_orphans_are_reaped(room: RunningBottle) -> None:
    room.sh("for i in 1 2 3 4 5; do (sh -c 'exec sleep 0' &); done")
    wait_until(
        lambda: room.sh("ps -eo comm= | grep -c -e sleep -e defunct").stdout == b"0\n",
        "nothing that ended is left in the process table",
    )


def test_streams_pass_files_through(room: RunningBottle, folder: Path) -> None:
    source, sink = folder / "source", folder / "sink"
    source.write_bytes(os.urandom(3 << 20))
    result = room.stream("cat; echo words >&2", source=source, sink=sink)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"words\n")
    assert sink.read_bytes() == source.read_bytes()
    assert room.stream("cat; echo end", sink=None).stdout == b"end\n"
    assert room.stream("head -c 5; exit 3", source=source).returncode == 3


def test_no_unknown_user_and_no_endless_script(room: RunningBottle) -> None:
    with pytest.raises(RaisedError, match=r"UsageError.*mallory"):
        room.sh("true", user="mallory")
    with pytest.raises(RaisedError, match=r"UsageError.*128 KiB"):
        room.sh("#" * (128 << 10))
    assert room.sh(": " + "x" * (100 << 10)).returncode == 0


def test_scripts_have_the_plans_environment_and_nothing_else(room: RunningBottle) -> None:
    raw = room.sh("exec cat /proc/self/environ").out
    _assert_environment(room, raw)


def test_the_agent_runs_with_the_plans_environment_and_nothing_else(room: RunningBottle) -> None:
    result = room.agent("cat", "/proc/self/environ")
    assert result.returncode == 0, result.err
    _assert_environment(room, result.out)
    assert room.guest_env["MARK"] == "one two\nthree 'four' \"$five\" `six`\\"


def _assert_environment(room: RunningBottle, raw: str) -> None:
    seen = dict(part.split("=", 1) for part in raw.split("\0") if part)
    # An image may have programs in places of its own; ours come first.
    assert (seen.pop("PATH") + ":").startswith(room.guest_env["PATH"] + ":")
    seen.pop("PWD", None)  # the shell's own addition
    assert seen == {name: value for name, value in room.guest_env.items() if name != "PATH"}


def test_the_agents_streams_and_code_pass_through(room: RunningBottle) -> None:
    result = room.agent("sh", "-c", "cat; echo err >&2; exit 5", stdin=b"from the operator", tty=True)
    assert (result.returncode, result.out, result.err) == (5, "from the operator", "err\n")


def test_the_agent_ended_by_a_signal_counts_as_128_and_its_number(room: RunningBottle) -> None:
    assert room.agent("sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM


def test_the_agents_arguments_are_passed_on_as_they_are(room: RunningBottle) -> None:
    arguments = ("", "two words", "'", '"', "$HOME", "`id`", "\\", "new\nline", "-n", "ünï")
    result = room.agent("printf", "%s\\0", *arguments)
    assert result.out.split("\0")[:-1] == list(arguments)


def test_a_program_that_is_not_there_is_told(room: RunningBottle) -> None:
    with pytest.raises(RaisedError, match=r"UsageError.*no-such-agent cannot be run in the bottle"):
        room.agent("no-such-agent")


def test_a_process_gets_three_descriptors_and_a_session(room: RunningBottle) -> None:
    code = """
import json, os
fds = sorted(int(name) for name in os.listdir("/proc/self/fd"))
print(json.dumps([fds[:-1], os.umask(0)]))
"""
    # The last descriptor is the listing's own.
    assert room.py(code).json() == [[0, 1, 2], 0o022]


def test_a_folder_goes_in_and_comes_out(room: RunningBottle, folder: Path) -> None:
    source = folder / "tree"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("content")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    room.cp_in(source, "/home/agent/workspace/tree")
    look = "cat tree/deep/file; test -x tree/run && find tree -prune -printf '%u\\n'"
    assert room.sh(look).stdout == b"contentagent\n"
    room.cp_out("/home/agent/workspace/tree", folder / "back")
    assert (folder / "back" / "deep" / "file").read_text() == "content"


def test_copying_what_is_not_there_is_told(room: RunningBottle, folder: Path) -> None:
    with pytest.raises(RaisedError, match=r"UsageError.*no such file or folder"):
        room.cp_in(folder / "missing", "/home/agent/x")
    with pytest.raises(RaisedError, match="missing"):
        room.cp_out("/home/agent/missing", folder / "y")
    assert not (folder / "y").exists()


def test_nothing_that_comes_out_leads_anywhere(room: RunningBottle, folder: Path) -> None:
    outside = folder / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    room.sh(
        f"mkdir -p evil; ln -s {outside} evil/way; ln -s /etc/passwd evil/passwd; mkfifo evil/pipe; "
        "cp /bin/sh evil/sh; chmod 6755 evil/sh; ln -s ../../.. evil/up; echo fine > evil/fine"
    )
    room.cp_out("/home/agent/workspace/evil", folder / "evil")
    names = {path.name for path in (folder / "evil").iterdir()}
    assert "fine" in names
    assert not names & {"way", "passwd", "pipe", "up"}
    assert (folder / "evil" / "sh").stat().st_mode & 0o7000 == 0
    assert (outside / "victim").read_text() == "untouched"


def test_nothing_that_goes_in_follows_a_link_of_the_agents(room: RunningBottle, folder: Path) -> None:
    (folder / "note").write_text("from the operator")
    room.sh("mkdir -p inside; ln -sfn /usr inside/link; rm -f note; ln -s /tmp/elsewhere note")
    room.cp_in(folder / "note", "/home/agent/workspace/note")
    assert room.sh("cat note; test -e /tmp/elsewhere || echo not followed").out.endswith("not followed\n")
    with pytest.raises(RaisedError):
        room.cp_in(folder / "note", "/home/agent/workspace/inside/link/note")
