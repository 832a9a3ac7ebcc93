"""The external pipelock program behind egress: what reaches it, what it is told, that nothing passes it by.

The ways are tried with a stand-in that takes the program's command line and config; the program itself, where
it is to be had, takes the same config and says that it is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import threading
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle import bottle_state
from bot_bottle.control_client import ControlClient, control_listener
from bot_bottle.errors import LaunchError
from bot_bottle.pipelock.external import HopPlace, external_config
from bot_bottle.secret import Secret
from bot_bottle.sidecar import second_hop
from bot_bottle.sidecar.config import SecondHopSettings, SidecarConfig
from tests.integration.egress_lab import TOKEN, Sidecar, Upstream, config, ok, route
from tests.support.family import wait_until
from tests.support.stand_in_pipelock import FORBIDDEN, script

if TYPE_CHECKING:
    from typing import Self

pytestmark = pytest.mark.integration

IDENTITY = "lab-00001"
PLAIN, CREDENTIAL, NEW = route("plain.test"), route("credential.test", auth=True), route("new.test")


def _settings(tmp_path: Path, program: Path | str) -> SidecarConfig:
    made = config(tmp_path, [PLAIN, CREDENTIAL], secrets={"LAB_TOKEN": Secret(TOKEN)})
    hop = SecondHopSettings(program=str(program), folder=str(tmp_path / "state" / "pipelock"))
    return replace(made, second_hop=hop)


def _started(log: Path) -> list[str]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [line for line in lines if line.startswith("started")]


def test_all_that_leaves_passes_the_program_which_is_looked_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    seen: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        data = b""
        while more := sock.recv(65536):
            data += more
            if b"\r\n\r\n" in data:
                seen.append(data)
                data = b""
                sock.sendall(ok())

    with Upstream(serve) as upstream:
        port = upstream.pin.port
        assert port is not None
        program, log = script(tmp_path, port)
        folder = bottle_state.create_state(bottle_state.BottleMetadata(identity=IDENTITY))
        with (
            control_listener(folder) as listener,
            Sidecar(tmp_path, _settings(tmp_path, program), control=listener) as sidecar,
        ):
            listener.close()
            # Its TLS is opened by the program, except where a credential is sent.
            with sidecar.tunnel("plain.test") as stream:
                assert stream.get("plain.test", "/one").status == 200
            with sidecar.tunnel("credential.test") as stream:
                assert stream.get("credential.test", "/two").status == 200
            assert b"Bearer " + TOKEN.encode() in seen[-1]
            told = log.read_text()
            assert "CONNECT plain.test:443" in told
            assert "CONNECT credential.test:443" in told
            assert "read GET /one HTTP/1.1" in told
            assert "/two" not in told
            assert TOKEN not in told
            # What it refuses is refused.
            before = len(seen)
            with sidecar.tunnel("plain.test") as stream:
                refused = stream.get("plain.test", f"/{FORBIDDEN.decode()}")
            assert (refused.status, refused.headers.get("x-hop")) == (403, "refused")
            assert len(seen) == before
            # No value in its config or environment, and nobody else reads its key.
            state = tmp_path / "state" / "pipelock"
            text = (state / "pipelock.yaml").read_text()
            assert TOKEN not in text
            assert json.loads(text)["tls_interception"]["passthrough_domains"] == ["credential.test"]
            modes = {path.stat().st_mode & 0o777 for path in state.iterdir() if path.is_file()}
            assert modes == {0o600}
            assert state.stat().st_mode & 0o777 == 0o700
            assert "LAB_TOKEN" not in told
            # It is started anew where it ended, and where routes change.
            pid = int(_started(log)[-1].split()[1])
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: len(sidecar.records("second_hop")) == 1, "the record of its new start")
            with ControlClient.connect(IDENTITY) as client:
                client.order("reload", routes=[one.to_wire() for one in (PLAIN, CREDENTIAL, NEW)])
            wait_until(lambda: len(sidecar.records("second_hop")) == 2, "the record of the other config")
            assert "new.test" in _started(log)[-1]
            with sidecar.tunnel("new.test") as stream:
                assert stream.get("new.test", "/three").status == 200
            pid = int(_started(log)[-1].split()[1])
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the program's end")
        assert not state.exists()


def _answers(sock: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data and (more := sock.recv(65536)):
        data += more
    sock.sendall(ok())


class _Impostor:
    """Listens where the program should, says that it is well and takes every CONNECT."""

    def __init__(self, port: int) -> None:
        self.heard: list[bytes] = []
        self._bound: list[socket.socket] = []
        wait_until(lambda: self._binds(port), "the program's port to be free")
        (self._server,) = self._bound
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept, and frees the port
        self._server.close()

    def _binds(self, port: int) -> bool:
        """Take the port; a process that was killed lets go of it some time after."""
        with contextlib.suppress(OSError):
            self._bound.append(socket.create_server(("127.0.0.1", port)))
        return bool(self._bound)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._server.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(10)
                    if data := connection.recv(4096):
                        self.heard.append(data.split(b"\r\n")[0])
                        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def test_who_takes_the_programs_port_hears_nothing(tmp_path: Path) -> None:
    with Upstream(_answers) as upstream:
        port = upstream.pin.port
        assert port is not None
        program, log = script(tmp_path, port)
        working = program.read_text()
        with Sidecar(tmp_path, _settings(tmp_path, program)) as sidecar:
            state = json.loads((tmp_path / "state" / "pipelock" / "pipelock.yaml").read_text())
            hop = int(state["fetch_proxy"]["listen"].rpartition(":")[2])
            script(tmp_path, port, breaks=True)
            pid = int(_started(log)[-1].split()[1])
            os.kill(pid, signal.SIGKILL)
            with _Impostor(hop) as impostor:
                with sidecar.tunnel("plain.test") as stream:
                    assert stream.get("plain.test", "/one").status == 502
                wait_until(
                    lambda: bool(sidecar.records("second_hop")), "the record that it cannot be started"
                )
                with sidecar.tunnel("plain.test") as stream:
                    assert stream.get("plain.test", "/two").status == 502
                told = sidecar.records("second_hop")[0]["message"]
                assert "nothing leaves" in str(told)
                # It is asked how it is, and no more.
                assert {line.split(b" ")[0] for line in impostor.heard} <= {b"GET"}
            program.write_text(working)
            wait_until(
                lambda: "was started anew" in str(sidecar.records("second_hop")[-1]["message"]),
                "the program's new start",
            )
            with sidecar.tunnel("plain.test") as stream:
                assert stream.get("plain.test", "/three").status == 200


def test_a_port_that_is_taken_before_the_first_start_fails_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program, _log = script(tmp_path, 1)
    monkeypatch.setattr(second_hop, "_free_port", lambda: port)
    settings = SecondHopSettings(program=str(program), folder=str(tmp_path / "state" / "pipelock"))
    with _Impostor(port) as impostor:
        hop = second_hop.SecondHop(settings, [PLAIN], bypass=(), note=lambda _text: None)
        try:
            with pytest.raises(OSError, match="another process listens at port"):
                asyncio.run(hop.ready())
            assert not hop.vouch()
        finally:
            hop.close()
        assert impostor.heard[0].startswith(b"GET /health")


def test_a_program_that_ends_at_once_fails_the_launch(tmp_path: Path) -> None:
    program, _log = script(tmp_path, 1, breaks=True)
    with pytest.raises(LaunchError, match="ended at once"):
        Sidecar(tmp_path, _settings(tmp_path, program))


def test_the_config_names_hosts_and_networks(tmp_path: Path) -> None:
    routes = [
        PLAIN,
        CREDENTIAL,
        route("*.wild.test", tls_passthrough=True),
        route("inner.test", ssrf_ip_allowlist=(ip_network("10.1.0.0/16"),)),
    ]
    made = json.loads(external_config(routes, HopPlace(port=1234, ca_cert="/a/ca.pem", ca_key="/a/key.pem")))
    assert made["api_allowlist"] == ["*.wild.test", "credential.test", "inner.test", "plain.test"]
    assert made["tls_interception"]["passthrough_domains"] == ["*.wild.test", "credential.test"]
    assert made["ssrf"] == {"ip_allowlist": ["10.1.0.0/16"]}
    assert made["fetch_proxy"]["listen"] == "127.0.0.1:1234"
    assert made["mode"] == "strict"


def test_the_program_itself_takes_the_config(tmp_path: Path) -> None:
    program = shutil.which("pipelock")
    if program is None:
        pytest.skip("the pipelock program is not on PATH (github.com/luckyPipewrench/pipelock)")
    with Sidecar(tmp_path, _settings(tmp_path, program)) as sidecar:
        assert (tmp_path / "state" / "pipelock" / "pipelock.yaml").exists()
        with sidecar.tunnel("plain.test") as stream:
            assert stream.get("plain.test", "/").status in {403, 502}
