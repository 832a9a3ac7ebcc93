"""A bubblewrap bottle as the launcher drives it: scripts, streams, files, the terminal, failures."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle import bottle_state
from bot_bottle.agent_provider.plan import AgentProvisionPlan
from bot_bottle.backend.base import BottlePlan, BottleSpec
from bot_bottle.backend.bubblewrap import bwrap
from bot_bottle.backend.bubblewrap.backend import BubblewrapBackend
from bot_bottle.backend.bubblewrap.cgroup import leftover_folders
from bot_bottle.backend.prepare import AGENT_PATH
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.manifest.model import Manifest, ManifestAgentProvider, ManifestBottle
from tests.conftest import cannot
from tests.support.outside import REPO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.backend.bubblewrap.bottle import BubblewrapBottle

pytestmark = pytest.mark.integration

_GUEST_ENV = {"PATH": AGENT_PATH, "HOME": "/home/agent", "MARK": "one two\nthree"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("operator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOT_BOTTLE_HOME", str(folder))
        yield folder


def make_plan(home: Path, identity: str, program: str = "") -> BottlePlan:
    provider = ManifestAgentProvider(template="command", argv=("true",))
    bottle = ManifestBottle(name="room", path=home / "room.md", agent_provider=provider)
    state_dir = bottle_state.create_state(bottle_state.BottleMetadata(identity=identity))
    return BottlePlan(
        spec=BottleSpec(manifest=Manifest(), agent_name="room", user_cwd=home),
        identity=identity,
        backend_name="bubblewrap",
        bottle=bottle,
        provision=AgentProvisionPlan(template="command", program=program, argv=("true",)),
        routes=(),
        state_dir=state_dir,
        audit_path=home / "audit" / f"{identity}.jsonl",
        guest_env=_GUEST_ENV,
        secrets={},
    )


@pytest.fixture(scope="module")
def backend() -> BubblewrapBackend:
    backend = BubblewrapBackend()
    result = backend.probe()
    if result.level == "unavailable":
        cannot(f"{result.detail} {result.remedy}".strip())
    return backend


@pytest.fixture(scope="module")
def bottle(home: Path, backend: BubblewrapBackend) -> Iterator[BubblewrapBottle]:
    # A descriptor that anybody's child would inherit, as a careless shell leaves them open.
    secret = os.memfd_create("operators-secret", 0)
    os.set_inheritable(secret, True)
    try:
        with backend.launch(make_plan(home, "room-aaaaa")) as running:
            yield running
    finally:
        os.close(secret)


def test_a_script_gets_its_input_and_gives_output_and_code(bottle: BubblewrapBottle) -> None:
    result = bottle.exec("cat; echo to-err >&2; exit 7", stdin=b"to-in")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"to-in", b"to-err\n")


def test_a_signal_counts_as_128_and_its_number(bottle: BubblewrapBottle) -> None:
    assert bottle.exec("kill -TERM $$").returncode == 128 + signal.SIGTERM
    assert bottle.exec("kill -SEGV $$").returncode == 128 + signal.SIGSEGV


def test_much_input_and_output_at_the_same_time(bottle: BubblewrapBottle) -> None:
    data = os.urandom(1 << 20) * 12
    assert bottle.exec("tee /dev/stderr", stdin=data).stdout == data


def test_input_that_nobody_reads_does_no_harm(bottle: BubblewrapBottle) -> None:
    assert bottle.exec("exit 4", stdin=b"x" * (4 << 20)).returncode == 4


def test_output_beyond_the_bound_ends_the_script(bottle: BubblewrapBottle) -> None:
    with pytest.raises(LaunchError, match="64 MiB"):
        bottle.exec("cat /dev/zero")
    assert bottle.exec("pgrep cat || echo gone").stdout == b"gone\n"


def test_a_timeout_kills_all_that_the_script_started(bottle: BubblewrapBottle) -> None:
    with pytest.raises(TimeoutError):
        bottle.exec("sleep 700 & (sleep 700 &) ; sleep 700", timeout=0.3)
    assert bottle.exec("pgrep -f 'sleep 70[0]' || echo gone").stdout == b"gone\n"


def test_a_process_left_in_the_background_neither_blocks_nor_dies(bottle: BubblewrapBottle) -> None:
    assert bottle.exec("sleep 900 & echo started").stdout == b"started\n"
    assert bottle.exec("pkill -f 'sleep 90[0]'").returncode == 0


def test_orphans_are_reaped(bottle: BubblewrapBottle) -> None:
    bottle.exec("for i in 1 2 3 4 5; do (sh -c 'exec sleep 0' &); done")
    deadline = time.monotonic() + 20
    while bottle.exec("ps -eo comm= | grep -c -e sleep -e defunct").stdout != b"0\n":
        assert time.monotonic() < deadline, bottle.exec("ps -e").stdout


def test_streams_pass_files_through(bottle: BubblewrapBottle, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20))
    with source.open("rb") as stdin, (tmp_path / "sink").open("wb") as stdout:
        result = bottle.exec_stream("cat; echo words >&2", stdin=stdin, stdout=stdout)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"words\n")
    assert (tmp_path / "sink").read_bytes() == source.read_bytes()
    assert bottle.exec_stream("cat", stdin=io.BytesIO(b"memory"), stdout=None).stdout == b"memory"


def test_one_user_and_no_endless_script(bottle: BubblewrapBottle) -> None:
    with pytest.raises(UsageError, match="one user"):
        bottle.exec("true", user="root")
    with pytest.raises(UsageError, match="128 KiB"):
        bottle.exec("#" * (128 << 10))
    assert bottle.exec(": " + "x" * (100 << 10)).returncode == 0


def test_an_inherited_descriptor_reaches_no_process_of_the_bottle(bottle: BubblewrapBottle) -> None:
    inside = [
        pid
        for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        if b"bwrap" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    inside += [
        child for pid in inside for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ]
    assert len(inside) >= 2
    held: list[str] = []
    for pid in inside:
        with contextlib.suppress(PermissionError):  # an ordinary user may not look into PID 1 at all
            held += [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    assert held
    assert not [name for name in held if "operators-secret" in name]
    assert b"operators-secret" not in bottle.exec("ls -l /proc/self/fd").stdout


def test_the_agent_runs_with_exactly_its_environment(
    bottle: BubblewrapBottle, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bottle.exec_agent(["cat", "/proc/self/environ"], tty=False) == 0
    out = capfd.readouterr().out
    assert dict(part.split("=", 1) for part in out.split("\0") if part) == _GUEST_ENV


def test_the_agents_streams_and_code_pass_through(
    bottle: BubblewrapBottle, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    before = os.dup(0)
    os.dup2(read_end, 0)
    try:
        os.write(write_end, b"from the operator")
        os.close(write_end)
        assert bottle.exec_agent(["sh", "-c", "cat; echo err >&2; exit 5"], tty=True) == 5
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(read_end)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("from the operator", "err\n")


def test_a_program_that_is_not_there_is_told(bottle: BubblewrapBottle) -> None:
    with pytest.raises(UsageError, match="no-such-agent cannot be run in the bottle: No such file"):
        bottle.exec_agent(["no-such-agent"], tty=False)


def test_a_folder_goes_in_and_comes_out(bottle: BubblewrapBottle, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("content")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    bottle.cp_in(source, "/home/agent/workspace/tree")
    assert bottle.exec("cat tree/deep/file; test -x tree/run && stat -c %U tree").stdout == b"contentagent\n"
    bottle.cp_out("/home/agent/workspace/tree", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "file").read_text() == "content"


def test_nothing_that_comes_out_leads_anywhere(bottle: BubblewrapBottle, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    bottle.exec(
        f"mkdir -p evil; ln -s {outside} evil/way; ln -s /etc/passwd evil/passwd; mkfifo evil/pipe; "
        "cp /bin/sh evil/sh; chmod 6755 evil/sh; ln -s ../../.. evil/up; echo fine > evil/fine"
    )
    bottle.cp_out("/home/agent/workspace/evil", tmp_path / "evil")
    names = {path.name for path in (tmp_path / "evil").iterdir()}
    assert "fine" in names
    assert not names & {"way", "passwd", "pipe", "up"}
    assert (tmp_path / "evil" / "sh").stat().st_mode & 0o7000 == 0
    assert (outside / "victim").read_text() == "untouched"


def test_a_closed_bottle_says_so_and_leaves_nothing(home: Path, backend: BubblewrapBackend) -> None:
    with backend.launch(make_plan(home, "room-bbbbb")) as bottle:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        bottle.close()
        bottle.close()
        with pytest.raises(LaunchError, match="closed"):
            bottle.exec("true")
    left = [pid for pid in children if Path(f"/proc/{pid}").exists()]
    assert not [pid for pid in left if b"room-bbbbb" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert "room-bbbbb" not in leftover_folders()


def test_an_exception_in_the_session_takes_everything_down(home: Path, backend: BubblewrapBackend) -> None:
    before = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    plan = make_plan(home, "room-ccccc")

    def session() -> None:
        with backend.launch(plan) as bottle:
            bottle.exec("sleep 1000 >/dev/null 2>&1 &")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session()
    assert Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split() == before
    assert "room-ccccc" not in leftover_folders()


def test_a_planted_link_for_a_mount_point_is_refused(home: Path, backend: BubblewrapBackend) -> None:
    plan = make_plan(home, "room-ddddd")
    with backend.launch(plan):
        pass
    mount_point = plan.state_dir / "home" / "workspace"
    mount_point.rmdir()
    mount_point.symlink_to(home)
    with pytest.raises(LaunchError, match="expected a folder"), backend.launch(plan):
        pass


def test_a_launch_that_fails_leaves_nothing(home: Path, backend: BubblewrapBackend) -> None:
    plan = make_plan(home, "room-eeeee")
    (home / "audit" / "room-eeeee.jsonl").mkdir(parents=True)  # the sidecar cannot open its log: no launch
    before = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    with pytest.raises(LaunchError), backend.launch(plan):
        pass
    assert Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split() == before
    assert "room-eeeee" not in leftover_folders()


@pytest.mark.parametrize("origin", ["system", "wheel"])
def test_either_bubblewrap_makes_bottles(
    origin: str, home: Path, backend: BubblewrapBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [candidate for candidate in bwrap.candidates() if candidate.origin == origin]
    if not chosen:
        pytest.skip(f"this machine has no usable bubblewrap from the {origin}")
    monkeypatch.setattr(bwrap, "candidates", lambda: tuple(chosen))
    assert f"{origin} bwrap" in backend.probe().detail
    with backend.launch(make_plan(home, f"room-{origin:x<6}"[:10])) as bottle:
        assert bottle.agent_argv(["x"])[0] == chosen[0].path
        status = bottle.exec("cat /proc/self/status; touch /usr/x").stdout.decode()
    assert "Seccomp:\t2" in status
    assert "CapBnd:\t0000000000000000" in status


def declare_agent(home: Path, argv: list[str]) -> None:
    (home / "bottles").mkdir(exist_ok=True)
    (home / "agents").mkdir(exist_ok=True)
    provider = f"agent_provider:\n  template: command\n  argv: {json.dumps(argv)}\n"
    (home / "bottles" / "tty.md").write_text(f"---\n{provider}---\n")
    (home / "agents" / "tty.md").write_text("---\nbottle: tty\n---\n")
    for path in (home, *home.rglob("*.md")):
        path.chmod(0o700)


class Terminal:
    """A terminal with ``bot-bottle start`` on it."""

    def __init__(self, home: Path, argv: list[str]) -> None:
        declare_agent(home, argv)
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(31, 97)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bot_bottle", "start", "tty", "--yes"],
            cwd=REPO,
            stdin=slave,
            stdout=slave,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "BOT_BOTTLE_HOME": str(home), "TERM": "xterm"},
            start_new_session=True,
        )
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def expect(self, pattern: bytes, seconds: float = 30) -> re.Match[bytes]:
        deadline = time.monotonic() + seconds
        while True:
            match = re.search(pattern, self.seen)
            if match:
                self.seen = self.seen[match.end() :]
                return match
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} did not come; there is {self.seen!r}"
            self.seen += os.read(self.master, 4096)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


_TTY_AGENT = """
import os, signal, sys, termios
def show(*_):
    print("size", *os.get_terminal_size(0), flush=True)
signal.signal(signal.SIGWINCH, show)
interrupts = []
signal.signal(signal.SIGINT, lambda *_: interrupts.append(1))
assert all(os.isatty(fd) for fd in (0, 1, 2)) and os.ttyname(0).startswith("/dev/pts/")
assert os.getsid(0) == os.getpid() and os.tcgetpgrp(0) == os.getpid()
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


@pytest.fixture
def agent_terminal(home: Path, backend: BubblewrapBackend) -> Iterator[Terminal]:
    assert backend.name == "bubblewrap"
    terminal = Terminal(home, [str(Path(sys.executable).resolve()), "-I", "-S", "-c", _TTY_AGENT])
    yield terminal
    terminal.close()


def test_the_terminal_passes_size_keys_and_code_through(agent_terminal: Terminal) -> None:
    agent_terminal.expect(rb"size 97 31\r\n")
    agent_terminal.type(b"h\xc3\xa9llo\r")
    agent_terminal.expect("line héllo 0".encode())
    # What the agent writes in that moment is lost with the terminal's buffers, as on any terminal.
    agent_terminal.type(b"\x03")
    agent_terminal.type(b"after\r")
    agent_terminal.expect(rb"line after 1")
    agent_terminal.type(b"\x04")
    agent_terminal.expect(rb"end of input")
    agent_terminal.resize(50, 120)
    os.kill(agent_terminal.process.pid, signal.SIGWINCH)
    agent_terminal.expect(rb"size 120 50\r\n")
    agent_terminal.type(b"quit 9\r")
    assert agent_terminal.process.wait(30) == 9
    assert termios.tcgetattr(agent_terminal.slave) == agent_terminal.before


def test_a_terminated_launcher_gives_the_terminal_back(agent_terminal: Terminal) -> None:
    agent_terminal.expect(rb"size 97 31\r\n")
    raw = termios.tcgetattr(agent_terminal.slave)
    assert not raw[3] & termios.ECHO
    agent_terminal.process.terminate()
    assert agent_terminal.process.wait(30) == 128 + signal.SIGTERM
    assert termios.tcgetattr(agent_terminal.slave) == agent_terminal.before


def test_a_terminated_headless_launcher_takes_everything_down(home: Path, backend: BubblewrapBackend) -> None:
    declare_agent(home, ["sh", "-c", "echo begun; exec sleep 1000"])
    with subprocess.Popen(
        [sys.executable, "-m", "bot_bottle", "start", "tty", "--yes", "--headless", "--prompt", "task"],
        cwd=REPO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "BOT_BOTTLE_HOME": str(home)},
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stderr is not None
        assert b"begun\n" in iter(launcher.stdout.readline, b"")
        launcher.terminate()
        words = launcher.stderr.read().decode()
    assert launcher.returncode == 128 + signal.SIGTERM
    identity = re.search(r"bot-bottle resume (tty-\w{5})", words)
    assert identity, words
    assert identity[1] not in leftover_folders()
    assert backend.name == "bubblewrap"


def test_much_output_on_a_terminal_arrives_whole(home: Path, backend: BubblewrapBackend) -> None:
    assert backend.name == "bubblewrap"
    terminal = Terminal(home, ["sh", "-c", "seq 1 20000; exit 3"])
    try:
        terminal.expect(rb"\r\n20000\r\n")
        assert terminal.process.wait(30) == 3
    finally:
        terminal.close()


def test_a_home_that_the_agent_closed_is_no_obstacle_to_the_next_session(
    home: Path, backend: BubblewrapBackend
) -> None:
    plan = make_plan(home, "room-chmod")
    with backend.launch(plan) as first:
        assert first.exec("echo kept > ~/note; chmod 0 ~/workspace ~").returncode == 0
    with backend.launch(plan) as second:
        assert second.exec("cat ~/note; touch ~/workspace/new").stdout == b"kept\n"
