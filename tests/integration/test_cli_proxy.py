"""``bot-bottle proxy`` as a program: ready line, credential added, refusal in words, clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.demo.authority import Authority
from bot_bottle.demo.upstreams import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.integration

REAL = "the-real-credential"


@dataclass(frozen=True, kw_only=True)
class Running:
    """A proxy that listens, and what stands behind it."""

    process: subprocess.Popen[str]
    port: int
    ca_file: Path
    upstream: ScriptedServer
    audit: Path


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Running]:
    authority = Authority("outside")
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        "routes:\n  - host: api.example\n    path_allowlist: [/v1/]\n"
        "    auth: {scheme: Bearer, token_ref: API_TOKEN}\n"
    )
    upstream_ca = tmp_path / "upstream.pem"
    upstream_ca.write_text(authority.pem)
    upstream_ca.chmod(0o600)
    audit = tmp_path / "audit.jsonl"
    with ScriptedServer("api", authority=authority, default_host="api.example") as upstream:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "bot_bottle", "proxy", "--routes", str(routes)),
                *("--listen", "127.0.0.1:0", "--ca-dir", str(tmp_path / "ca")),
                *("--upstream-ca", str(upstream_ca), "--pin", f"api.example={upstream.address}"),
                *("--audit", str(audit)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "API_TOKEN": REAL, "BOT_BOTTLE_HOME": str(tmp_path / "bb")},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("bot-bottle proxy: listening on 127.0.0.1:"), process.communicate()
            port = int(line.rpartition(":")[2])
            yield Running(
                process=process,
                port=port,
                ca_file=tmp_path / "ca" / "ca.pem",
                upstream=upstream,
                audit=audit,
            )
        finally:
            process.kill()
            process.communicate()


def get(proxy: Running, host: str, path: str) -> tuple[int, bytes]:
    """Ask through a CONNECT tunnel, trusting only what the proxy wrote to its CA folder."""
    trust = ssl.create_default_context(cafile=str(proxy.ca_file))
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain:
        plain.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += plain.recv(1)
        assert b" 200 " in head.partition(b"\r\n")[0]
        with trust.wrap_socket(plain, server_hostname=host) as tls:
            headers = f"Host: {host}\r\nAuthorization: Bearer own\r\nConnection: close\r\n\r\n"
            tls.sendall(f"GET {path} HTTP/1.1\r\n{headers}".encode())
            answer = b""
            while chunk := tls.recv(65536):
                answer += chunk
    status, _, rest = answer.partition(b"\r\n")
    return int(status.split()[1]), rest.partition(b"\r\n\r\n")[2]


def test_an_allowed_request_carries_the_real_credential(proxy: Running) -> None:
    assert get(proxy, "api.example", "/v1/x")[0] == 200
    (seen,) = proxy.upstream.seen
    assert seen.values("authorization") == [f"Bearer {REAL}"]


@pytest.mark.parametrize(("host", "path"), [("other.example", "/"), ("api.example", "/v2/x")])
def test_a_refusal_explains_itself_and_nothing_leaves(proxy: Running, host: str, path: str) -> None:
    status, body = get(proxy, host, path)
    assert status == 403
    assert json.loads(body)["error"] == "bot_bottle_denied"
    assert proxy.upstream.seen == ()


def test_sigterm_ends_it_and_the_record_is_whole(proxy: Running) -> None:
    get(proxy, "other.example", "/")
    proxy.process.send_signal(signal.SIGTERM)
    _, err = proxy.process.communicate(timeout=20)
    assert (proxy.process.returncode, err) == (0, "")
    records = [json.loads(line) for line in proxy.audit.read_text().splitlines()]
    assert records[-1]["event"] == "end"
    assert REAL not in proxy.audit.read_text()


def test_the_ca_folder_holds_a_certificate_and_no_key(proxy: Running) -> None:
    assert [path.name for path in proxy.ca_file.parent.iterdir()] == ["ca.pem"]
    assert "PRIVATE" not in proxy.ca_file.read_text()


def test_what_serves_holds_nothing_of_the_command_and_no_credential_in_its_environment(
    proxy: Running,
) -> None:
    folder = Path("/proc", str(proxy.process.pid))
    assert REAL not in (folder / "cmdline").read_text()
    try:
        maps, environ = (folder / "maps").read_text(), (folder / "environ").read_bytes()
        files = [str(link.readlink()) for link in (folder / "fd").iterdir()]
    except PermissionError:
        return  # nobody but root may look in at all
    assert "pydantic" not in maps
    assert REAL.encode() not in environ
    assert not any("memfd" in name for name in files)


def test_an_unset_credential_is_named_before_anything_listens(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text("routes: [{host: a.example, auth: {scheme: Bearer, token_ref: NOT_THERE}}]\n")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bot_bottle", "proxy", "--routes", str(routes)),
            *("--listen", "127.0.0.1:0", "--ca-dir", str(tmp_path / "ca")),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "NOT_THERE" in done.stderr
    assert not (tmp_path / "ca").exists()


def test_the_way_out_may_be_another_proxy(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text("routes:\n  - host: api.example\n")
    url = ("--upstream-proxy", "http://p.example")
    for options, words in (
        (("--upstream-proxy", "https://p.example"), "--upstream-proxy: is spoken to in plain HTTP only"),
        ((*url, "--upstream-proxy-password-ref", "PW"), "--upstream-proxy-password-ref: goes with"),
        ((*url, "--no-proxy", "10.0.0.1/8"), "--no-proxy: "),
        (
            (*url, "--upstream-proxy-user", "u", "--upstream-proxy-password-ref", "NO_PW"),
            "NO_PW (the password of the proxy",
        ),
    ):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "bot_bottle", "proxy", "--routes", str(routes)),
                *("--listen", "127.0.0.1:0", "--ca-dir", str(tmp_path / "ca"), *options),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "BOT_BOTTLE_HOME": str(tmp_path / "bb")},
        )
        assert done.returncode == 2
        assert words in done.stderr
