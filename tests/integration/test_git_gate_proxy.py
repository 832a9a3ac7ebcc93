"""The gate behind the operator's proxy: real git over https and real ssh, led there by a relay."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bot_bottle.demo.authority import Authority
from bot_bottle.egress.roads import Roads
from bot_bottle.git_gate.relay import Relay
from bot_bottle.git_gate.remote import GateConfig
from bot_bottle.git_gate.spellings import gitconfig
from bot_bottle.secret import Secret
from bot_bottle.sidecar.client import SidecarProcess
from bot_bottle.sidecar.config import UpstreamProxy
from tests.integration.egress_lab import config
from tests.support.connect_proxy import ConnectProxy
from tests.support.git_lab import HOST, GitLab, Repo
from tests.support.watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.git_https import GitHttps

pytestmark = pytest.mark.integration

PUBLIC = "198.51.100.7"
TOKEN = f"marked-{secrets.token_hex(16)}"
PASSWORD = f"proxied-{secrets.token_hex(16)}"
PAIR = base64.b64encode(f"me:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("git behind a proxy")


def lead(lab: GitLab, way: ConnectProxy, address: str = PUBLIC, *, resolves: bool = False) -> list[str]:
    """Put the lab behind a proxy; gives what will have been asked of the resolver."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(f"{host}:{port}")
        return [address]

    lab.pins, lab.resolver = {}, resolve
    lab.proxy = UpstreamProxy(
        host="127.0.0.1",
        port=way.port,
        user="me",
        password=Secret(PASSWORD),
        password_ref="PW",
        resolves=resolves,
    )
    return asked


def round_trip(lab: GitLab) -> None:
    """Clone, push, and find the push at the upstream."""
    lab.start()
    work = lab.clone()
    new = work.commit({"src/c.py": "print('c')\n"})
    done = work.run("push", "origin", "bottle/x")
    assert done.returncode == 0, done.stderr
    assert lab.upstream.refs()["refs/heads/bottle/x"] == new


def refused(lab: GitLab) -> str:
    """Clone in vain; gives what git was told."""
    lab.start()
    done = Repo(lab.folder, lab.env).run("clone", lab.url, "work")
    lab.stop()
    assert done.returncode != 0
    assert "cannot be reached" in done.stderr
    assert not {PASSWORD, PAIR} & set(done.stderr.split())
    return done.stderr


def ssh_port(lab: GitLab) -> int:
    port = lab.pins[HOST].port
    assert port is not None
    return port


@pytest.fixture
def server(gate_lab: GitLab, authority: Authority) -> Iterator[GitHttps]:
    """Serve the lab's upstream over https and turn the lab to it."""
    with gate_lab.over_https(authority, TOKEN) as running:
        yield running


def test_git_over_https_goes_through_the_proxy_and_knows_nothing_of_it(
    gate_lab: GitLab, server: GitHttps
) -> None:
    with ConnectProxy(server.port) as way:
        asked = lead(gate_lab, way)
        with Watch(PASSWORD, gate_lab.folder) as watch, Watch(PAIR, gate_lab.folder) as encoded:
            round_trip(gate_lab)
        gate_lab.stop()
    assert asked[0] == f"{HOST}:443"
    assert way.asked
    assert all(head.startswith(f"CONNECT {PUBLIC}:443 HTTP/1.1\r\n".encode()) for head in way.asked)
    assert all(f"Proxy-Authorization: Basic {PAIR}".encode() in head for head in way.asked)
    assert any(server.seen)
    assert TOKEN.encode() not in way.passed
    assert watch.found | encoded.found == set()
    assert watch.rounds > 1


def test_ssh_goes_the_same_way_and_still_holds_to_its_pinned_key(gate_lab: GitLab) -> None:
    port = ssh_port(gate_lab)
    with ConnectProxy(port) as way:
        asked = lead(gate_lab, way)
        with Watch(PASSWORD, gate_lab.folder) as watch:
            round_trip(gate_lab)
        gate_lab.stop()
        assert asked[0] == f"{HOST}:22"
        assert all(head.startswith(f"CONNECT {PUBLIC}:22 ".encode()) for head in way.asked)
        assert way.passed.startswith(b"SSH-2.0-")
        assert watch.found == set()
        # Whoever stands behind the proxy must have the key that the operator wrote down.
        other = (gate_lab.keys / "user.pub").read_text().split()
        gate_lab.start(known_host_key=f"{other[0]} {other[1]}")
        done = Repo(gate_lab.folder, gate_lab.env).run("clone", gate_lab.url, "again")
        gate_lab.stop()
        assert done.returncode != 0
        assert "Host key verification failed" in done.stderr


def test_where_the_road_leads_nowhere_the_reason_is_told_and_no_secret(
    gate_lab: GitLab, server: GitHttps
) -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with ConnectProxy(server.port, refusal) as way:
        lead(gate_lab, way)
        assert "the operator's proxy wants another user or password (407)" in refused(gate_lab)
        # What is never dialled is asked of no proxy either, whoever declared the name.
        before = len(way.asked)
        lead(gate_lab, way, "169.254.169.254")
        assert "an address that is never dialled (metadata)" in refused(gate_lab)
        assert len(way.asked) == before
    lead(gate_lab, way)
    assert "the operator's proxy cannot be reached" in refused(gate_lab)
    assert server.seen == []


def test_behind_the_proxy_too_the_certificate_must_be_the_hosts(gate_lab: GitLab, server: GitHttps) -> None:
    gate_lab.ca_pem = Authority("somebody else").pem
    with ConnectProxy(server.port) as way:
        lead(gate_lab, way)
        refused(gate_lab)
    assert way.asked
    assert server.seen == []


def test_the_real_sidecar_leads_git_to_a_proxy_that_resolves(
    gate_lab: GitLab, server: GitHttps, tmp_path: Path
) -> None:
    with ConnectProxy(server.port) as way:
        lead(gate_lab, way, resolves=True)
        settings = replace(
            config(tmp_path, [], upstream_ca_pem=gate_lab.ca_pem),
            git=GateConfig(remotes=(gate_lab.remote,), folder=str(gate_lab.gate_folder)),
            upstream_proxy=gate_lab.proxy,
        )
        with SidecarProcess.start(settings) as sidecar, socket.create_server(("127.0.0.1", 0)) as door:
            sidecar.give_listeners([("git", door)])
            url = f"http://127.0.0.1:{door.getsockname()[1]}"
            (gate_lab.home / ".gitconfig").write_bytes(gitconfig([gate_lab.remote], url))
            with Watch(PASSWORD, gate_lab.folder) as watch:
                assert (
                    gate_lab.clone().refs()["refs/heads/main"] == gate_lab.upstream.refs()["refs/heads/main"]
                )
    assert way.asked[0].startswith(f"CONNECT {HOST}:443 ".encode())
    assert f"Proxy-Authorization: Basic {PAIR}".encode() in way.asked[0]
    assert watch.found == set()


@contextlib.asynccontextmanager
async def relay_behind(way: ConnectProxy, *, asked: bool) -> AsyncIterator[Relay]:
    """Run a relay alone, whose host has an address."""

    async def resolve(host: str, port: int) -> list[str]:
        return [PUBLIC]

    proxy = UpstreamProxy(host="127.0.0.1", port=way.port)
    roads = Roads(loop=asyncio.get_running_loop(), pins={}, proxy=proxy, resolver=resolve)
    relay = Relay(roads, HOST, 443, asked=asked)
    await relay.open()
    try:
        yield relay
    finally:
        relay.close()


async def ask(relay: Relay, question: bytes) -> bytes:
    """Say something to a relay and give all it answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(question)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def test_a_relay_leads_to_one_place_and_serves_this_account_alone() -> None:
    async def check_stranger(relay: Relay) -> None:
        os.seteuid(65534)  # a socket belongs to who made it
        try:
            sock = socket.socket()
        finally:
            os.seteuid(0)
        sock.setblocking(False)
        with sock:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, ("127.0.0.1", relay.port))
            await loop.sock_sendall(sock, b"CONNECT git.test:443 HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert await loop.sock_recv(sock, 100) == b""

    async def check(way: ConnectProxy) -> None:
        async with relay_behind(way, asked=True) as relay:
            for target in (b"CONNECT other.test:443", b"CONNECT git.test:22", b"GET http://git.test/"):
                assert (await ask(relay, target + b" HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 403 ")
            if os.getuid() == 0:
                await check_stranger(relay)
            assert way.asked == []
            own = await ask(relay, b"CONNECT Git.Test:443 HTTP/1.1\r\n\r\n")
            assert own.startswith(b"HTTP/1.1 200 ")
            assert len(way.asked) == 1

    with socket.create_server(("127.0.0.1", 0)) as listener, ConnectProxy(listener.getsockname()[1]) as way:
        serve_once(listener)
        asyncio.run(check(way))


def serve_once(listener: socket.socket) -> None:
    """Close what comes, so that both ends of a tunnel end."""

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as sock:
            while sock.recv(65536):
                pass

    threading.Thread(target=serve, daemon=True).start()


def test_what_a_server_says_behind_the_proxys_answer_is_not_lost() -> None:
    greeting = b"SSH-2.0-server\r\n"

    async def check(way: ConnectProxy) -> None:
        async with relay_behind(way, asked=False) as relay:
            assert await ask(relay, b"SSH-2.0-client\r\n") == greeting

    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = b"HTTP/1.1 200 Connection established\r\n\r\n" + greeting
        with ConnectProxy(listener.getsockname()[1], answer) as way:
            serve_once(listener)
            asyncio.run(check(way))
