"""A sidecar on standard streams, as in a container, here without one: a real process, pipes, sockets."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from bot_bottle.audit_chain import ChainEnd
from bot_bottle.audit_reading import read_records, verify
from bot_bottle.sidecar import handover, stdio
from bot_bottle.sidecar.config import SidecarConfig
from bot_bottle.sidecar.listeners import close_listeners, send_listeners
from bot_bottle.sidecar.stdio import LENGTH_BYTES
from tests.integration.egress_lab import SECONDS, TOKEN, Clients, config, listeners, route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.integration

REPO = Path(__file__).parents[2]

#: What ``sidecar.contained`` does, with the hand-over in a folder of the test's.
_SCRIPT = """
import sys
from bot_bottle.sidecar.handover import wait_for_one
from bot_bottle.sidecar.harden import conceal
from bot_bottle.sidecar.service import run
from bot_bottle.sidecar.stdio import StdioChannel
conceal()
place = sys.argv[1]
sys.exit(run(StdioChannel(0, 1, wait_for_one(place), place)))
"""


class Contained(Clients):
    """One such sidecar and a launcher that reads when it is told to."""

    def __init__(self, tmp_path: Path, settings: SidecarConfig) -> None:
        self.place = str(tmp_path / "doors.sock")
        self.audit_file = Path(settings.audit_path)
        self.ca_file = tmp_path / "ca.pem"
        self.ports: dict[str, int] = {}
        self.log = b""
        self.messages: list[dict[str, Any]] = []
        self._line = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, self.place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=REPO,
        )
        wire = settings.to_wire()
        self.write(len(wire).to_bytes(LENGTH_BYTES, "big") + wire)

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def tell(self, **message: object) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def hear(self, event: str = "") -> dict[str, Any]:
        """Read up to an event, or, without one, to the end; what came of the log is in ``log``."""
        assert self.process.stdout is not None
        while True:
            while b"\n" in self._line:
                line, _, self._line = self._line.partition(b"\n")
                message = json.loads(line)
                if message["event"] == "audit":
                    assert message["at"] == len(self.log)
                    self.log += message["data"].encode("latin-1")
                self.messages.append(message)
                if message["event"] == event:
                    return dict(message)
            assert select.select([self.process.stdout], [], [], SECONDS)[0], (
                f"nothing came where {event} was due"
            )
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                assert not event, f"it ended where {event} was due; it said {self.messages}"
                return {}
            self._line += data

    def open_doors(self) -> None:
        self.ca_file.write_text(self.hear("ca")["pem"])
        sockets = listeners()
        self.ports = {role: sock.getsockname()[1] for role, sock in sockets.items()}
        with handover.come(self.place) as doorkeeper:
            send_listeners(doorkeeper, list(sockets.items()))
        close_listeners(tuple(sockets.items()))
        self.hear("ready")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[SidecarConfig], Contained]]:
    with contextlib.ExitStack() as stack:
        yield lambda settings: stack.enter_context(Contained(tmp_path, settings))


def test_a_whole_session(tmp_path: Path, start: Callable[[SidecarConfig], Contained]) -> None:
    sidecar = start(config(tmp_path, [route("a.test", auth=True)]))
    sidecar.open_doors()
    with sidecar.plain("http") as stream:
        assert stream.get("b.test").status == 403
    sidecar.tell(event="sync", id=1)
    assert sidecar.hear("synced")["id"] == 1
    assert sidecar.log == sidecar.audit_file.read_bytes()
    assert b'"host":"b.test"' in sidecar.log
    with sidecar.tunnel("a.test") as stream:
        sidecar.tell(event="stop")
        assert stream.rest() == b""
    assert sidecar.hear("end")["size"] == len(sidecar.audit_file.read_bytes())
    sidecar.hear()
    assert sidecar.process.wait(SECONDS) == 0
    assert sidecar.log == sidecar.audit_file.read_bytes()
    assert verify(sidecar.audit_file).ended
    assert TOKEN not in json.dumps(sidecar.messages)


def test_it_continues_the_hosts_chain(tmp_path: Path, start: Callable[[SidecarConfig], Contained]) -> None:
    after = ChainEnd(seq=12, prev="d" * 64, size=4000)
    settings = config(tmp_path, [])
    sidecar = start(
        SidecarConfig(identity="x-00001", routes=(), audit_path=settings.audit_path, audit_after=after)
    )
    sidecar.hear("ca")
    sidecar.tell(event="stop")
    sidecar.hear("end")
    first = next(read_records(sidecar.audit_file))
    assert (first["seq"], first["prev"]) == (12, "d" * 64)


def test_the_end_of_its_input_is_its_end(tmp_path: Path, start: Callable[[SidecarConfig], Contained]) -> None:
    sidecar = start(config(tmp_path, []))
    sidecar.open_doors()
    assert sidecar.process.stdin is not None
    sidecar.process.stdin.close()
    assert sidecar.process.wait(SECONDS) == 0
    assert verify(sidecar.audit_file).ended
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", sidecar.ports["proxy"]), SECONDS)


def resident(sidecar: Contained) -> int:
    """Give the memory that a sidecar holds, in KiB (proc(5), "VmRSS")."""
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_a_launcher_that_does_not_read_stalls_nothing(
    tmp_path: Path, start: Callable[[SidecarConfig], Contained]
) -> None:
    sidecar = start(config(tmp_path, []))
    sidecar.open_doors()
    requests, loaded = 3000, 200
    with sidecar.plain("proxy") as stream:
        for number in range(requests):
            assert stream.get("b.test", f"http://b.test/{number}").status == 403
            if number == loaded:  # by now it holds what it needs for any request
                before = resident(sidecar)
    written = len(sidecar.audit_file.read_bytes())
    assert written > 16 * 65536, "no more was recorded than a pipe holds"
    assert resident(sidecar) - before <= 4 * 1024
    sidecar.tell(event="sync", id=7)
    sidecar.hear("synced")
    assert len(sidecar.log) == written
    assert sidecar.log == sidecar.audit_file.read_bytes()
    assert sum(record["event"] == "request" for record in read_records(sidecar.audit_file)) == requests


def test_who_comes_second_with_listeners_is_refused(
    tmp_path: Path, start: Callable[[SidecarConfig], Contained]
) -> None:
    """One who waited behind the first, and one who comes when the door is shut."""
    sidecar = start(config(tmp_path, []))
    first, second = handover.come(sidecar.place), handover.come(sidecar.place)
    sidecar.hear("ca")
    sockets = listeners()
    with first, second:
        with contextlib.suppress(OSError):
            send_listeners(second, list(sockets.items()))
        close_listeners(tuple(sockets.items()))
        sidecar.ports = {}
        sockets = listeners()
        send_listeners(first, list(sockets.items()))
        port = sockets["http"].getsockname()[1]
        close_listeners(tuple(sockets.items()))
        sidecar.hear("ready")
        second.settimeout(SECONDS)
        with contextlib.suppress(ConnectionResetError):
            assert second.recv(1) == b""
    with pytest.raises(TimeoutError):
        handover.come(sidecar.place, seconds=0)
    sidecar.ports = {"http": port}
    with sidecar.plain("http") as stream:
        assert stream.get("b.test").status == 403
    assert [m["event"] for m in sidecar.messages if m["event"] == "error"] == []


@pytest.mark.parametrize("given", [b"", b"junk"], ids=["nothing", "junk"])
def test_a_comer_without_listeners_is_reported(
    given: bytes, tmp_path: Path, start: Callable[[SidecarConfig], Contained]
) -> None:
    sidecar = start(config(tmp_path, []))
    with handover.come(sidecar.place) as comer:
        if given:
            comer.send(given)
    assert "not handed over" in sidecar.hear("error")["message"]


@pytest.mark.parametrize("order", [b"no json\n", b'{"event":"open"}\n', b"[]\n", b"x" * ((4 << 20) + 1)])
def test_an_order_that_is_none_ends_it(
    order: bytes, tmp_path: Path, start: Callable[[SidecarConfig], Contained]
) -> None:
    sidecar = start(config(tmp_path, []))
    sidecar.hear("ca")
    sidecar.write(order)
    sidecar.hear("end")
    assert sidecar.process.wait(SECONDS) == 0


def test_a_config_cut_short_is_refused_without_quoting_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "doors.sock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPO,
    )
    wire = config(tmp_path, [route("a.test", auth=True)]).to_wire()
    out, err = process.communicate((len(wire) + 1).to_bytes(LENGTH_BYTES, "big") + wire, SECONDS)
    assert process.returncode == 4
    assert json.loads(out)["event"] == "error"
    assert b"cut short" in err
    assert TOKEN.encode() not in out + err


def test_a_config_that_never_comes_is_not_awaited_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stdio, "_CONFIG_SECONDS", 0.01)
    read, write = os.pipe()
    with handover.wait_for_one(str(tmp_path / "doors.sock")) as listening:
        channel = stdio.StdioChannel(read, write, listening)
        with pytest.raises(ValueError, match="did not come"):
            channel.read_config()
    os.close(read)
    os.close(write)


def test_it_is_no_program_to_be_run_by_hand() -> None:
    terminal, inside = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "bot_bottle.sidecar.contained"],
        stdin=inside,
        capture_output=True,
        cwd=REPO,
        check=False,
    )
    os.close(inside)
    os.close(terminal)
    assert done.returncode == 2
    assert b"bot-bottle proxy" in done.stderr


def test_an_order_passed_on_is_carried_out_and_answered(
    tmp_path: Path, start: Callable[[SidecarConfig], Contained]
) -> None:
    sidecar = start(config(tmp_path, [route("a.test")]))
    sidecar.hear("ca")
    orders: tuple[object, ...] = ({"order": "status"}, {"order": "reload", "routes": []}, {}, ["no order"])
    for number, order in enumerate(orders):
        sidecar.write(json.dumps({"event": "order", "id": number, "order": order}).encode() + b"\n")
    answers = [sidecar.hear("answer") for _ in range(4)]
    assert [answer["id"] for answer in answers] == [0, 1, 2, 3]
    assert [answer["answer"]["ok"] for answer in answers] == [True, True, False, False]
    assert answers[0]["answer"]["routes"][0]["host"] == "a.test"
