"""A real gRPC client and a real gRPC server, with the real proxy between them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.sidecar.config import Pin
from tests.integration.egress_lab import AUTHORITY, Sidecar, config, route

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(importlib.util.find_spec("grpc") is None, reason="grpcio is not installed"),
]

HOST = "grpc.test"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("grpc")
    leaf, key = AUTHORITY.leaf(HOST)
    (folder / "leaf.pem").write_bytes(leaf)
    (folder / "key.pem").write_bytes(key)
    command = [sys.executable, "-m", "tests.support.grpc_peer"]
    with subprocess.Popen(
        [*command, "server", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        port = int(server.stdout.readline())
        paths = ("/lab.Echo/",)
        routes = [route(HOST, http2=True, auth=True, path_allowlist=paths, methods=("POST",))]
        pins = {HOST: Pin(address="127.0.0.1", port=port)}
        with Sidecar(folder, config(folder, routes, pins=pins)) as sidecar:
            done = subprocess.run(
                [*command, "client", str(sidecar.ports["https"]), HOST, str(sidecar.ca_file)],
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            said = json.loads(done.stdout)
            said["records"] = [(record["decision"], record["path"]) for record in sidecar.records()]
        server.stdin.close()
        said["server_heard_cancel"] = server.wait(20) == 0 and (folder / "cancelled").exists()
        yield said


def test_a_unary_call_has_its_answer_and_its_trailers(said: dict[str, Any]) -> None:
    assert said["unary"] == "echo hello"
    assert said["trailing"]["x-end"] == "1"
    assert said["trailing"]["x-seen"] == "Bearer", "the credential was added on the way"


def test_a_status_comes_as_the_server_said_it(said: dict[str, Any]) -> None:
    assert said["failed"] == ["NOT_FOUND", "no such thing: \u00e4"]


def test_both_sides_stream_turn_by_turn(said: dict[str, Any]) -> None:
    assert said["bidi"] == [f"{number}:m{number}" for number in range(20)]
    assert said["first"] == "yes"


def test_long_streams_are_whole_either_way(said: dict[str, Any]) -> None:
    assert said["down"] == [300, 300 * 10_006]
    assert said["up"] == 300 * 10_000


def test_a_cancelled_call_is_cancelled_at_the_server(said: dict[str, Any]) -> None:
    assert said["cancelled"]
    assert said["server_heard_cancel"]


def test_a_denial_is_a_status_that_explains_itself(said: dict[str, Any]) -> None:
    code, details, metadata = said["denied"]
    assert code == "PERMISSION_DENIED"
    assert "not under an allowed prefix" in details
    assert "Ask the operator" in details
    assert metadata["x-bot-bottle-reason"] == "path_not_allowed"


def test_each_call_is_on_record(said: dict[str, Any]) -> None:
    calls = ["Unary", "Unary", "Bidi", "Down", "Up", "Sleep"]
    assert said["records"] == [
        *(("allow", f"/lab.Echo/{call}") for call in calls),
        ("deny", "/forbidden.Service/Call"),
    ]
