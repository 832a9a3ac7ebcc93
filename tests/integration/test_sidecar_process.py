"""The sidecar as a process: hardened, tied to its launcher, silent about secrets, gone without a trace."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bot_bottle.audit import AuditLog
from bot_bottle.audit_reading import read_records, verify
from bot_bottle.backend.host_sidecar import HostSidecar
from bot_bottle.errors import LaunchError
from bot_bottle.secret import Secret
from bot_bottle.sidecar import harden
from bot_bottle.sidecar.client import SidecarProcess
from bot_bottle.sidecar.config import SidecarConfig
from bot_bottle.sidecar.control import control_pair, receive_message, send_message
from bot_bottle.sidecar.listeners import LISTENER_PORTS
from bot_bottle.sidecar.service import Reporter
from tests.integration.egress_lab import SECONDS, TOKEN, Sidecar, config, listeners, route
from tests.support.family import wait_until

pytestmark = pytest.mark.integration

REPO = Path(__file__).parents[2]


def status(pid: int, field: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text()
    return text.partition(f"{field}:")[2].split("\n")[0].strip()


def wait_gone(pid: int) -> None:
    """Wait until process ``pid`` (no child of ours) has ended."""
    fd = os.pidfd_open(pid)
    try:
        assert select.select([fd], [], [], SECONDS)[0], "the process stays"
    finally:
        os.close(fd)


def test_ready_and_orderly_end(tmp_path: Path) -> None:
    with Sidecar(tmp_path, config(tmp_path, [route("a.test")])) as sidecar:
        assert sidecar.process.alive()
        assert "BEGIN CERTIFICATE" in sidecar.process.ca_pem
    assert not sidecar.process.alive()
    sidecar.process.close()
    events = [record["event"] for record in read_records(sidecar.audit_file)]
    assert (events[0], events[-1]) == ("start", "end")
    with pytest.raises(LaunchError):
        sidecar.process.give_listeners([])


def test_it_is_hardened_and_holds_no_secret_where_others_look(tmp_path: Path) -> None:
    with Sidecar(tmp_path, config(tmp_path, [route("a.test", auth=True)])) as sidecar:
        pid = sidecar.process.pid
        assert TOKEN.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert limits.partition("Max core file size")[2].split()[:2] == ["0", "0"]
        assert os.getsid(pid) == pid
        ignored = int(status(pid, "SigIgn"), 16)
        assert ignored & (1 << (signal.SIGINT - 1))
        assert int(status(pid, "VmRSS").split()[0]) <= 60 * 1024
        # Not dumpable: what belongs to the process belongs to root in /proc (proc(5)).
        assert Path(f"/proc/{pid}/mem").stat().st_uid == 0
        if os.geteuid() != 0:
            for closed in ("environ", "maps"):
                with pytest.raises(PermissionError):
                    Path(f"/proc/{pid}/{closed}").read_bytes()
            return
        assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
        env = Path(f"/proc/{pid}/environ").read_bytes()
        assert TOKEN.encode() not in env
        names = {entry.partition(b"=")[0] for entry in env.split(b"\0") if entry}
        assert names <= {b"PATH", b"PYTHONPATH", b"LANG", b"LC_CTYPE", b"SSL_CERT_FILE", b"SSL_CERT_DIR"}
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
        assert not any("bot-bottle-leaf" in str(fd.readlink()) for fd in descriptors)
        assert "pydantic" not in Path(f"/proc/{pid}/maps").read_text()


def test_not_dumpable_closes_proc_to_the_same_user(tmp_path: Path) -> None:
    """As an ordinary user: another process of that very user reads neither environment nor memory."""
    if os.geteuid() != 0:
        with Sidecar(tmp_path, config(tmp_path, [])) as sidecar, pytest.raises(PermissionError):
            Path(f"/proc/{sidecar.process.pid}/environ").read_bytes()
        return
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no interpreter that another account can run on this machine")
    script = (
        Path(harden.__file__).read_text()
        + "\nimport sys\nconceal()\nprint(os.getpid(), flush=True)\nsys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [python, "-I", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"MARK": "1"},
        user=65534,
        group=65534,
        extra_groups=[],
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    look = subprocess.run(
        ["cat", f"/proc/{pid}/environ"],
        capture_output=True,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    process.communicate()
    assert look.returncode != 0
    assert b"denied" in look.stderr


def test_killing_the_launcher_ends_the_sidecar(tmp_path: Path) -> None:
    settings = config(tmp_path, [])
    script = (
        "import sys\n"
        "from bot_bottle.sidecar.client import SidecarProcess\n"
        "from bot_bottle.sidecar.config import SidecarConfig\n"
        "sidecar = SidecarProcess.start(SidecarConfig.from_wire(sys.stdin.buffer.read()))\n"
        "sidecar.ca_pem\n"
        "print(sidecar.pid, flush=True)\n"
        "import signal; signal.pause()\n"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPO
    )
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    launcher.stdin.write(settings.to_wire())
    launcher.stdin.close()
    pid = int(launcher.stdout.readline())
    launcher.kill()
    launcher.wait()
    launcher.stdout.close()
    wait_gone(pid)
    verdict = verify(Path(settings.audit_path))
    assert verdict.ok


def test_started_ahead_it_has_loaded_all_by_the_time_it_is_told(tmp_path: Path) -> None:
    process = SidecarProcess.start_ahead()
    try:
        if os.geteuid() == 0:  # who else looks is told nothing of a process that is hardened
            maps = Path(f"/proc/{process.pid}/maps")
            wait_until(lambda: "uvloop" in maps.read_text(), "what serving takes is loaded")
        settings = config(tmp_path, [])
        assert SidecarProcess.start(settings, process) is process
        assert "BEGIN CERTIFICATE" in process.ca_pem
        opened = listeners()
        process.give_listeners(tuple(opened.items()))
        for sock in opened.values():
            sock.close()
    finally:
        process.close()
    assert verify(Path(settings.audit_path)).ended


def test_started_ahead_and_never_told_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    process = SidecarProcess.start_ahead()
    assert process.alive()
    process.close()
    assert not process.alive()
    with pytest.raises(LaunchError, match="has been closed"):
        process.give_listeners([])
    script = (
        "from bot_bottle.sidecar.client import SidecarProcess\n"
        "sidecar = SidecarProcess.start_ahead()\n"
        "print(sidecar.pid, flush=True)\n"
        "import signal; signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=REPO) as launcher:
        assert launcher.stdout is not None
        pid = os.pidfd_open(int(launcher.stdout.readline()))
        launcher.kill()
    try:
        assert select.select([pid], [], [], SECONDS)[0], "the process stays"
    finally:
        os.close(pid)


def test_a_backend_begins_one_at_most_and_ends_what_no_launch_took() -> None:
    def children() -> list[str]:
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()

    before = children()
    sidecar = HostSidecar()
    sidecar.begin_ahead()
    sidecar.begin_ahead()
    assert len(children()) == len(before) + 1
    sidecar.end_ahead()
    sidecar.end_ahead()
    assert children() == before


def test_started_ahead_and_gone_it_is_told_of_at_the_launch(tmp_path: Path) -> None:
    process = SidecarProcess.start_ahead()
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: not process.alive(), "it is gone")
    with pytest.raises(LaunchError, match="did not read its config"):
        SidecarProcess.start(config(tmp_path, []), process)


def test_sigterm_ends_the_log_and_ctrl_c_does_nothing(tmp_path: Path) -> None:
    with Sidecar(tmp_path, config(tmp_path, [])) as sidecar:
        os.kill(sidecar.process.pid, signal.SIGINT)
        with sidecar.plain("http") as stream:
            assert stream.get("a.test").status == 403
        os.kill(sidecar.process.pid, signal.SIGTERM)
        wait_gone(sidecar.process.pid)
        assert not sidecar.process.alive()
        assert verify(sidecar.audit_file).ended


def test_a_killed_sidecar_leaves_nothing_answering(tmp_path: Path) -> None:
    settings = config(tmp_path, [])
    process = SidecarProcess.start(settings)
    sockets = listeners()
    process.give_listeners(list(sockets.items()))
    ports = {role: sock.getsockname()[1] for role, sock in sockets.items()}
    for sock in sockets.values():
        sock.close()
    os.kill(process.pid, signal.SIGKILL)
    wait_gone(process.pid)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports["proxy"]), SECONDS)
    assert not process.alive()
    process.close()
    assert (verify(Path(settings.audit_path)).ok, verify(Path(settings.audit_path)).ended) == (True, False)
    with Sidecar(tmp_path, settings):
        pass
    assert verify(Path(settings.audit_path)).ended


def test_an_audit_log_that_cannot_be_opened_aborts_the_launch(tmp_path: Path) -> None:
    settings = config(tmp_path, [])
    Path(settings.audit_path).mkdir(parents=True)
    process = SidecarProcess.start(settings)
    with pytest.raises(LaunchError, match="audit log cannot be opened"):
        _ = process.ca_pem
    process.close()


def test_a_log_in_use_aborts_the_launch(tmp_path: Path) -> None:
    settings = config(tmp_path, [])
    log = AuditLog.open(Path(settings.audit_path))
    process = SidecarProcess.start(settings)
    with pytest.raises(LaunchError, match="audit log cannot be opened"):
        process.give_listeners([])
    process.close()
    log.close()


def test_a_log_that_was_tampered_with_aborts_the_launch(tmp_path: Path) -> None:
    settings = config(tmp_path, [])
    log = AuditLog.open(Path(settings.audit_path))
    log.append("request")
    log.close()
    path = Path(settings.audit_path)
    path.write_bytes(path.read_bytes().replace(b'"end"', b'"fin"'))
    process = SidecarProcess.start(settings)
    with pytest.raises(LaunchError, match="was changed"):
        _ = process.ca_pem
    process.close()


def test_a_config_that_is_none_aborts_without_quoting_it(tmp_path: Path) -> None:
    class Broken(SidecarConfig):
        __slots__ = ()

        def to_wire(self) -> bytes:
            return b'{"identity": "x", "secret-like": "' + TOKEN.encode() + b'"}'

    settings = Broken(identity="x", routes=(), audit_path=str(tmp_path / "a"), secrets={"T": Secret(TOKEN)})
    process = SidecarProcess.start(settings)
    with pytest.raises(LaunchError) as caught:
        _ = process.ca_pem
    assert TOKEN not in str(caught.value)
    process.close()
    assert TOKEN not in repr(settings)


def test_it_starts_from_the_main_thread_only(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            SidecarProcess.start(config(tmp_path, []))
        except LaunchError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_it_is_no_program_to_be_run_by_hand() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bot_bottle.sidecar"], capture_output=True, cwd=REPO, check=False
    )
    assert done.returncode == 2
    assert b"bot-bottle proxy" in done.stderr


def test_an_unknown_role_is_refused(tmp_path: Path) -> None:
    process = SidecarProcess.start(config(tmp_path, []))
    with socket.create_server(("127.0.0.1", 0)) as sock, pytest.raises(LaunchError, match="unknown role"):
        process.give_listeners([("smtp", sock)])  # type: ignore[list-item]
    process.close()


def test_control_messages_carry_descriptors_and_end() -> None:
    ours, theirs = control_pair()
    read, write = os.pipe()
    send_message(ours, {"event": "x"}, [read])
    received = receive_message(theirs)
    assert received is not None
    message, fds = received
    assert message == {"event": "x"}
    os.write(write, b"through")
    assert os.read(fds[0], 10) == b"through"
    ours.send(b"[]")
    with pytest.raises(TypeError):
        receive_message(theirs)
    ours.send(b"{")
    with pytest.raises(ValueError, match="Expecting"):
        receive_message(theirs)
    ours.close()
    assert receive_message(theirs) is None
    theirs.close()
    for fd in (read, write, *fds):
        os.close(fd)


class Unraisable:
    """Something that breaks where nobody can catch it."""

    def __del__(self) -> None:
        raise RuntimeError(TOKEN)


def test_loop_errors_are_reported_a_bounded_number_of_times(capsys: pytest.CaptureFixture[str]) -> None:
    loop = asyncio.new_event_loop()
    hook = sys.unraisablehook
    Reporter().listen(loop)
    try:
        for number in range(3000):
            loop.call_exception_handler({"message": "it broke", "exception": ValueError(f"{TOKEN} {number}")})
            Unraisable()
    finally:
        sys.unraisablehook = hook
        loop.close()
    lines = capsys.readouterr().err.splitlines()
    both = ["egress: it broke (ValueError)", "egress: an error nobody could be told (RuntimeError)"]
    assert lines == both * 100 + ["egress: further errors are not reported"]


def test_every_role_has_its_port() -> None:
    served = {"dns-udp": 53, "dns-tcp": 53, "http": 80, "https": 443}
    served |= {"proxy": 9099, "git": 9420, "supervise": 9100}
    assert served == LISTENER_PORTS
