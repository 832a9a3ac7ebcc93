"""Which engine is meant, what the client program is told, and what is said where none answers."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("docker", reason="the Docker SDK is not installed")

from bot_bottle.backend.docker import endpoint as endpoints
from bot_bottle.backend.docker.endpoint import Endpoint, explain_no_engine, find_endpoint, first_cause
from bot_bottle.backend.docker.ssh import SshTarget, parse_ssh
from bot_bottle.demo.authority import Authority
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the docker client's folder, which this process finds through DOCKER_CONFIG."""
    folder = tmp_path / "client"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    (folder / "config.json").write_text("{}")
    return folder


def make_context(client: Path, name: str, host: str, *, tls: Authority | None = None) -> None:
    """Write a context as ``docker context create`` does."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = client / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    text = json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}})
    (meta / "meta.json").write_text(text)
    if tls is not None:
        certs = client / "contexts" / "tls" / digest / "docker"
        certs.mkdir(parents=True)
        for file in ("ca.pem", "cert.pem", "key.pem"):
            (certs / file).write_text(tls.pem)


def test_without_any_word_it_is_the_local_socket(client: Path) -> None:
    found = find_endpoint({})
    assert found == Endpoint(url="unix:///var/run/docker.sock", chosen_by="the default")
    assert found.socket_path == "/var/run/docker.sock"


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("unix:///tmp/x.sock", "unix:///tmp/x.sock"),
        ("/tmp/x.sock", "unix:///tmp/x.sock"),
        ("tcp://127.0.0.1:2375", "tcp://127.0.0.1:2375"),
        ("localhost:2375", "tcp://localhost:2375"),
        ("tcp://[::1]:2375", "tcp://[::1]:2375"),
        (" ssh://me@host:22 ", "ssh://me@host:22"),
    ],
)
def test_a_variable_names_an_engine_as_the_client_takes_it(client: Path, host: str, url: str) -> None:
    found = find_endpoint({"DOCKER_HOST": host})
    assert (found.url, found.chosen_by, found.context) == (url, "DOCKER_HOST", "")


def test_the_order_is_the_clients_own(client: Path) -> None:
    make_context(client, "there", "unix:///there.sock")
    make_context(client, "here", "ssh://me@here")
    (client / "config.json").write_text('{"currentContext": "there"}')
    current = find_endpoint({})
    assert (current.url, current.context) == ("unix:///there.sock", "there")
    assert current.chosen_by == "the docker client's current context"
    by_name = find_endpoint({"DOCKER_CONTEXT": "here"})
    assert (by_name.url, by_name.context, by_name.chosen_by) == ("ssh://me@here", "here", "DOCKER_CONTEXT")
    both = find_endpoint({"DOCKER_CONTEXT": "here", "DOCKER_HOST": "unix:///a.sock"})
    assert (both.url, both.context) == ("unix:///a.sock", "")
    assert find_endpoint({"DOCKER_CONTEXT": "default"}).url == "unix:///var/run/docker.sock"


def test_a_context_that_does_not_exist_or_cannot_be_read_is_a_sentence(client: Path) -> None:
    with pytest.raises(UsageError, match=r"no context 'nowhere' \(DOCKER_CONTEXT\).*docker context ls"):
        find_endpoint({"DOCKER_CONTEXT": "nowhere"})
    make_context(client, "torn", "unix:///x")
    next((client / "contexts" / "meta").iterdir()).joinpath("meta.json").write_text("{")
    with pytest.raises(UsageError, match=r"the context 'torn' .DOCKER_CONTEXT. cannot be read"):
        find_endpoint({"DOCKER_CONTEXT": "torn"})


@pytest.mark.parametrize("host", ["npipe:////./pipe/docker", "fd://3", "ftp://x"])
def test_an_address_of_another_kind_is_refused(client: Path, host: str) -> None:
    with pytest.raises(UsageError, match=r"DOCKER_HOST names .*write unix:///PATH, ssh://USER@HOST or tcp:"):
        find_endpoint({"DOCKER_HOST": host})


@pytest.mark.parametrize("host", ["tcp://engine.example:2375", "http://10.0.0.1:2375", "10.0.0.1:2375"])
def test_an_engine_that_others_could_listen_to_is_refused(client: Path, host: str) -> None:
    with pytest.raises(UsageError, match="without verified TLS, and credentials would cross the network"):
        find_endpoint({"DOCKER_HOST": host})


def test_tls_counts_only_where_it_is_verified(client: Path, tmp_path: Path) -> None:
    for file in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / file).write_text("x")
    env = {"DOCKER_HOST": "tcp://engine.example:2376", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(UsageError, match="DOCKER_TLS_VERIFY=1"):
        find_endpoint(env)
    found = find_endpoint({**env, "DOCKER_TLS_VERIFY": "1"})
    assert found.tls is not None
    assert found.tls.ca_cert == str(tmp_path / "ca.pem")
    with pytest.raises(UsageError, match="DOCKER_CERT_PATH or DOCKER_TLS_VERIFY is wrong"):
        find_endpoint({**env, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path / "none")})


def test_a_context_brings_its_own_certificates(client: Path) -> None:
    make_context(client, "far", "tcp://engine.example:2376", tls=Authority("an engine's"))
    found = find_endpoint({"DOCKER_CONTEXT": "far"})
    assert found.tls is not None
    assert found.tls.verify is True
    make_context(client, "bare", "tcp://engine.example:2375")
    with pytest.raises(UsageError, match="without verified TLS"):
        find_endpoint({"DOCKER_CONTEXT": "bare"})


def test_the_client_program_gets_what_it_needs_and_no_more(client: Path) -> None:
    env = {
        "PATH": "/bin",
        "HOME": "/home/me",
        "SSH_AUTH_SOCK": "/agent",
        "MY_TOKEN": "secret",
        "HTTPS_PROXY": "http://user:secret@proxy",
        "DOCKER_HOST": "ssh://me@there",
        "DOCKER_CONTEXT": "ignored",
        "DOCKER_CERT_PATH": "/certs",
    }
    by_host = Endpoint(url="ssh://me@there", chosen_by="DOCKER_HOST").client_env(env)
    assert by_host == {
        "PATH": "/bin",
        "HOME": "/home/me",
        "SSH_AUTH_SOCK": "/agent",
        "DOCKER_CLI_HINTS": "false",
        "DOCKER_HOST": "ssh://me@there",
    }
    by_context = Endpoint(url="ssh://me@there", chosen_by="x", context="there").client_env(env)
    assert by_context["DOCKER_CONTEXT"] == "there"
    assert "DOCKER_HOST" not in by_context


def test_no_engine_is_one_sentence_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "other_sockets", lambda env: ())
    default = Endpoint(url="unix:///var/run/docker.sock", chosen_by="the default")
    gone = explain_no_engine(default, FileNotFoundError(2, "No such file"), {})
    assert gone == (
        "no engine answers at unix:///var/run/docker.sock (the default); "
        "install Docker or Podman, or start it: sudo systemctl start docker"
    )
    closed = explain_no_engine(default, PermissionError(13, "Permission denied"), {"USER": "me"})
    assert "sudo usermod -aG docker me" in closed
    chosen = Endpoint(url="unix:///x.sock", chosen_by="DOCKER_HOST")
    refused = explain_no_engine(chosen, ConnectionRefusedError(111, "Connection refused"), {})
    assert refused == ("no engine answers at unix:///x.sock (DOCKER_HOST); see that it runs, or name another")
    slow = explain_no_engine(Endpoint(url="tcp://[::1]:1", chosen_by="DOCKER_HOST"), TimeoutError(), {})
    assert "does not answer" in slow
    monkeypatch.setattr(endpoints, "other_sockets", lambda env: ("/run/user/1000/docker.sock",))
    hinted = explain_no_engine(default, FileNotFoundError(2, "No such file"), {})
    assert hinted.endswith("one of yours may: export DOCKER_HOST=unix:///run/user/1000/docker.sock")


def test_sockets_of_the_users_own_engines_are_found(tmp_path: Path) -> None:
    (tmp_path / "podman").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "podman" / "podman.sock"))
        found = endpoints.other_sockets({"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)})
    assert f"{tmp_path}/podman/podman.sock" in found
    assert f"{tmp_path}/docker.sock" not in found


def test_the_first_cause_is_the_systems_own_error() -> None:
    try:
        try:
            raise ConnectionRefusedError(111, "Connection refused")
        except OSError as error:
            raise ValueError("wrapped", error) from None
    except ValueError as outer:
        cause = first_cause(RuntimeError("outermost", outer))
    assert isinstance(cause, ConnectionRefusedError)
    assert first_cause(ssl.SSLError(1, "handshake")) is not None
    text = ValueError("x")
    assert first_cause(text) is text


# -- ssh -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("ssh://host", SshTarget(host="host")),
        ("ssh://me@host.example:2222", SshTarget(host="host.example", user="me", port=2222)),
        ("ssh://me@10.0.0.1/run/podman.sock", SshTarget(host="10.0.0.1", user="me", path="/run/podman.sock")),
        ("ssh://[fd00::1]/", SshTarget(host="fd00::1")),
    ],
)
def test_an_ssh_address_is_read(url: str, target: SshTarget) -> None:
    assert parse_ssh(url, "DOCKER_HOST") == target


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ssh://-oProxyCommand=x", "write ssh://USER@HOST"),
        ("ssh://me:secret@host", "holds a password"),
        ("ssh://me@host/run/a;touch b", "write ssh://USER@HOST"),
        ("ssh://", "write ssh://USER@HOST"),
        ("ssh://host:99999", "DOCKER_HOST names"),
        ("ssh://-v@host", "write ssh://USER@HOST"),
    ],
)
def test_an_ssh_address_that_would_be_more_than_one_is_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_ssh(url, "DOCKER_HOST")
    assert "secret" not in str(caught.value)


def test_the_ssh_command_takes_no_option_from_the_address() -> None:
    argv = SshTarget(host="host", user="me", port=2222, path="/run/p.sock").argv()
    assert argv[-3:] == ["--", "host", "docker --host unix:///run/p.sock system dial-stdio"]
    assert argv[argv.index("-l") + 1] == "me"
    assert argv[argv.index("-p") + 1] == "2222"
    assert "BatchMode=yes" in argv
    assert SshTarget(host="host").argv()[-1] == "docker system dial-stdio"
