"""The external pipelock program behind egress: what reaches it, what it is told, that nothing passes it by.

The ways are tried with a stand-in that takes the program's command line and config; the program itself, where
it is to be had, takes the same config and says that it is well.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
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
from bot_bottle.sidecar.config import SecondHopSettings, SidecarConfig
from tests.integration.egress_lab import TOKEN, Sidecar, Upstream, config, ok, route
from tests.support.family import wait_until
from tests.support.stand_in_pipelock import FORBIDDEN, script

if TYPE_CHECKING:
    import socket

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
