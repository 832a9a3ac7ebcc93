"""Every road to an engine carries the same: questions, a conversation with its end, the client program."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("docker", reason="the Docker SDK is not installed")

from bot_bottle.backend.docker.engine import Engine, connect
from bot_bottle.backend.docker.streams import STDOUT, Multiplexed
from bot_bottle.demo.authority import Authority
from bot_bottle.errors import UnavailableError, UsageError
from tests.conftest import cannot
from tests.support.engine import BASE_IMAGE, engine_api
from tests.support.engine_roads import ROADS, road
from tests.support.ssh_server import NoSshError, ssh_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]


def set_out(chosen: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make the variables this process's own; gives its whole environment."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        if name == "PATH_FIRST":
            monkeypatch.setenv("PATH", value + os.pathsep, prepend=os.pathsep)
        else:
            monkeypatch.setenv(name, value)
    # Nothing of this sort may stand between us and an engine.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    return dict(os.environ)


@pytest.fixture(params=ROADS)
def reached(
    request: pytest.FixtureRequest, engine_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Engine, dict[str, str]]]:
    """Reach the engine on one road; gives it and the environment that chose it."""
    if request.param.startswith("ssh") and shutil.which("docker") is None:
        pytest.skip("the client program docker is needed behind ssh; install it with: apt install docker.io")
    try:
        with road(request.param, engine_host, tmp_path, Authority("an engine's authority")) as chosen:
            env = set_out(chosen, monkeypatch)
            with connect(env) as engine:
                yield engine, env
    except NoSshError as error:
        pytest.skip(f"no ssh server of the tests' own can be run here: {error}")


def test_it_is_the_same_engine(reached: tuple[Engine, dict[str, str]], engine_host: str) -> None:
    engine, env = reached
    with engine_api(engine_host) as api:
        assert engine.api.info()["ID"] == api.info()["ID"]
    assert engine.facts.product == "Docker"
    assert "runc" in engine.runtimes
    by = "DOCKER_HOST" if "DOCKER_HOST" in env else "DOCKER_CONTEXT" if "DOCKER_CONTEXT" in env else "current"
    assert by in engine.describe
    client = engine.client()
    try:
        assert client.version()["ApiVersion"] == engine.facts.api_version
    finally:
        client.close()


def test_a_container_hears_the_end_of_its_input(reached: tuple[Engine, dict[str, str]]) -> None:
    """The half-close that a sidecar's and an agent's life hang on passes, and what comes after it too."""
    engine, _env = reached
    api = engine.api
    container = api.create_container(
        BASE_IMAGE, command=["sh", "-c", "cat; echo over"], stdin_open=True, network_disabled=True
    )
    try:
        connection = api.attach_socket(container, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        with Multiplexed(connection) as streams:
            api.start(container)
            sent = b"x" * 300_000 + b"\n"
            streams.write(sent, timeout=60)
            streams.half_close(timeout=60)
            heard = b"".join(data for stream, data in streams if stream == STDOUT)
        assert heard == sent + b"over\n"
        assert api.wait(container)["StatusCode"] == 0
    finally:
        api.remove_container(container, force=True)


def test_the_client_program_takes_the_same_road(reached: tuple[Engine, dict[str, str]]) -> None:
    engine, env = reached
    program = shutil.which("docker")
    if program is None:
        cannot("the client program docker is not installed; install it with: apt install docker.io")
    given = engine.client_env(env)
    assert "HTTPS_PROXY" not in given
    command = [program, "info", "--format", "{{.ID}}"]
    result = subprocess.run(command, env=given, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.strip() == engine.api.info()["ID"], result.stderr


def test_a_server_that_nobody_vouches_for_is_not_spoken_to(
    engine_host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with road("tls", engine_host, tmp_path, Authority("one")) as chosen:
        (tmp_path / "ca.pem").write_text(Authority("another").pem)
        env = set_out(chosen, monkeypatch)
        with pytest.raises(UnavailableError, match="no engine answers at tcp://localhost:") as caught:
            connect(env)
    assert "certificate verify failed" in str(caught.value)


def test_ssh_that_is_not_let_in_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sshd"
    folder.mkdir()
    try:
        with ssh_server(folder, {"NONE": "none"}) as (address, programs):
            (folder / "user.pub").write_text("")
            env = set_out({"DOCKER_HOST": f"ssh://{address}", "PATH_FIRST": str(programs)}, monkeypatch)
            with pytest.raises(
                UnavailableError, match=r"no engine answers .*; ssh says: .*Permission denied"
            ):
                connect(env)
    except NoSshError as error:
        pytest.skip(f"no ssh server of the tests' own can be run here: {error}")


def test_without_ssh_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="ssh says: ssh cannot be started: No such file or directory"):
        connect({"DOCKER_HOST": "ssh://nobody@127.0.0.1"})


def test_nothing_that_answers_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=rf"no engine answers at unix://{tmp_path}/x.sock"):
        connect({"DOCKER_HOST": f"unix://{tmp_path}/x.sock"})
    with pytest.raises(
        UnavailableError, match=r"no engine answers at tcp://127.0.0.1:1 .*; see that it runs"
    ):
        connect({"DOCKER_HOST": "tcp://127.0.0.1:1"})
    with pytest.raises(UsageError, match="without verified TLS"):
        connect({"DOCKER_HOST": "tcp://192.0.2.1:2375"})
