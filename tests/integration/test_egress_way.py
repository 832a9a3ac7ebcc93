"""The operator's network: a proxy, several addresses, internal hosts; judged by who was asked."""

from __future__ import annotations

import base64
import socket
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Self

import pytest

from bot_bottle.demo.authority import Authority
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import UpstreamProxy
from tests.integration.egress_lab import TOKEN, InProcess, Sidecar, Upstream, config, ok, route, serve
from tests.support.connect_proxy import ConnectProxy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bot_bottle.egress.roads import Resolver
    from bot_bottle.egress.routes import EgressRoute

pytestmark = pytest.mark.integration

HOST = "site.test"
PUBLIC = "198.51.100.7"
PASSWORD = "proxy-pass-5d1f"
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def names(table: Mapping[str, Sequence[str]], asked: list[str]) -> Resolver:
    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return list(table[host])

    return resolve


class Lab:
    """An egress in this process behind a proxy, with a scripted resolver."""

    def __init__(
        self,
        tmp_path: Path,
        routes: Sequence[EgressRoute],
        way: ConnectProxy | None,
        table: Mapping[str, Sequence[str]],
        **fields: Any,
    ) -> None:
        self.asked: list[str] = []
        pins = fields.pop("pins", None)
        proxy = None
        if way is not None:
            proxy = UpstreamProxy(
                host="127.0.0.1",
                port=way.port,
                user="me",
                password=Secret(PASSWORD),
                password_ref="PW",
                **fields,
            )
        settings = replace(config(tmp_path, routes, pins=pins), upstream_proxy=proxy)
        self.egress = InProcess(tmp_path, settings, resolver=names(table, self.asked))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.egress.__exit__()
        assert PASSWORD.encode() not in self.egress.audit_file.read_bytes()

    def get(self, host: str = HOST, port: int = 443) -> Any:
        with self.egress.tunnel(host, port) as stream:
            return stream.get(host if port == 443 else f"{host}:{port}")


def test_a_proxy_is_asked_for_the_checked_address_and_sees_nothing_of_the_request(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    table = {
        HOST: [PUBLIC],
        "v6.test": ["2001:4860::7"],
        "inside.test": ["10.1.2.3"],
        "mixed.test": ["10.1.2.3", PUBLIC],
    }
    routes = [route(host, auth=True) for host in table]
    with Upstream(handler) as upstream, ConnectProxy(upstream.port) as way:  # noqa: SIM117
        with Lab(tmp_path, routes, way, table) as lab:
            assert lab.get().status == 200
            assert way.asked[0].split(b"\r\n")[0] == f"CONNECT {PUBLIC}:443 HTTP/1.1".encode()
            pair = base64.b64encode(f"me:{PASSWORD}".encode())
            assert b"Proxy-Authorization: Basic " + pair in way.asked[0]
            assert f"Authorization: Bearer {TOKEN}".encode() in heads[0]
            assert TOKEN.encode() not in way.passed + b"".join(way.asked)
            assert lab.get("v6.test").status == 200
            assert way.asked[1].startswith(b"CONNECT [2001:4860::7]:443 ")
            denied = lab.get("inside.test")
            assert (denied.status, denied.reason) == (403, "address_denied")
            assert lab.get("mixed.test").status == 200
            assert len(way.asked) == 3
            assert way.asked[2].startswith(f"CONNECT {PUBLIC}:443 ".encode())
            # Kept alive like any other connection.
            assert lab.get("mixed.test").status == 200
            assert len(way.asked) == 3


def test_a_proxy_that_resolves_is_told_names_that_policy_allowed_and_no_other(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream, ConnectProxy(upstream.port) as way:
        routes = [route(HOST), route("10.1.2.3")]
        with Lab(tmp_path, routes, way, {}, resolves=True) as lab:
            assert lab.get().status == 200
            assert way.asked[0].startswith(b"CONNECT site.test:443 HTTP/1.1\r\n")
            assert lab.get("other.test").reason == "host_not_allowed"
            with lab.egress.tunnel("10.1.2.3", sni=None) as stream:  # an address is still checked
                assert stream.get("10.1.2.3").reason == "address_denied"
            assert lab.asked == []
            assert len(way.asked) == len(heads) == 1


def test_what_is_reached_without_the_proxy(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream, ConnectProxy(1) as way:
        table = {"a.corp.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]}
        routes = [route(host, ssrf_ip_allowlist=LOOPBACK, ports=(upstream.port,)) for host in table]
        routes.append(route("pinned.test"))
        pins = {"pinned.test": upstream.pin}
        with Lab(tmp_path, routes, way, table, pins=pins, bypass=("*.corp.test", "127.0.0.0/8")) as lab:
            assert lab.get("a.corp.test", upstream.port).status == 200
            assert lab.get("b.test", upstream.port).status == 200
            assert lab.get("pinned.test").status == 200
        assert way.asked == []
        assert len(heads) == 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            "another user or password (407)",
        ),
        (b"HTTP/1.1 503 no \x1b[31m\r\n\r\nlong story", "did not open the way (status 503)"),
        (b"SSH-2.0-something\r\n\r\n", "something else than HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\nalready here", "something else than HTTP"),
        (b"HTTP/1.1 999 " + b"x" * 20000, "something else than HTTP"),
        (b"", "closed the connection"),
    ],
)
def test_a_proxy_that_refuses_is_named_and_not_quoted(tmp_path: Path, answer: bytes, said: str) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream, ConnectProxy(upstream.port, answer) as way:  # noqa: SIM117
        with Lab(tmp_path, [route(HOST)], way, {HOST: [PUBLIC]}) as lab:
            got = lab.get()
            assert (got.status, got.reason) == (502, "upstream_proxy")
            assert said in got.json["message"]
            assert PASSWORD.encode() not in got.body
    assert heads == []


def test_a_proxy_that_is_not_there(tmp_path: Path) -> None:
    with ConnectProxy(1) as way:
        port = way.port
    way.port = port
    with Lab(tmp_path, [route(HOST)], way, {HOST: [PUBLIC]}) as lab:
        got = lab.get()
        assert (got.status, got.reason) == (502, "upstream_proxy")
        assert "cannot be reached" in got.json["message"]


def test_behind_a_proxy_too_the_certificate_must_be_the_hosts(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with (
        Upstream(handler, authority=Authority("somebody else")) as upstream,
        ConnectProxy(upstream.port) as way,
    ):
        with Lab(tmp_path, [route(HOST, auth=True)], way, {HOST: [PUBLIC]}) as lab:
            assert lab.get().reason == "upstream_tls"
        assert len(way.asked) == 1
    assert heads == []


def test_plain_http_goes_the_same_way(tmp_path: Path) -> None:
    handler, _heads = serve(lambda _head, _body: ok(b"plain"))
    with Upstream(handler, tls=False) as upstream, ConnectProxy(upstream.port) as way:
        with Lab(tmp_path, [route(HOST)], way, {HOST: [PUBLIC]}) as lab, lab.egress.plain("http") as stream:
            assert stream.get(HOST).body == b"plain"
        assert way.asked[0].startswith(f"CONNECT {PUBLIC}:80 ".encode())


def test_the_sidecar_takes_the_proxy_and_its_password_down_the_pipe(tmp_path: Path) -> None:
    handler, _heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream, ConnectProxy(upstream.port) as way:
        proxy = UpstreamProxy(
            host="127.0.0.1",
            port=way.port,
            user="me",
            password=Secret(PASSWORD),
            password_ref="PW",
            resolves=True,
        )
        settings = replace(config(tmp_path, [route(HOST)]), upstream_proxy=proxy)
        assert PASSWORD not in repr(settings)
        with Sidecar(tmp_path, settings) as sidecar, sidecar.tunnel(HOST) as stream:
            assert stream.get(HOST).status == 200
        assert base64.b64encode(f"me:{PASSWORD}".encode()) in way.asked[0]


@pytest.mark.parametrize("dead", ["::1", "127.0.0.2"])
def test_an_address_that_says_nothing_keeps_nobody_waiting_for_the_next(tmp_path: Path, dead: str) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream:
        family = socket.AF_INET6 if ":" in dead else socket.AF_INET
        with socket.create_server((dead, upstream.port), family=family) as silent:
            silent.settimeout(20)
            hosts = [route(HOST, ssrf_ip_allowlist=LOOPBACK, ports=(upstream.port,))]
            with Lab(tmp_path, hosts, None, {HOST: [dead, "127.0.0.1"]}) as lab:
                assert lab.get(port=upstream.port).status == 200
                attempt, _ = silent.accept()  # it was tried first, and then let go
                attempt.settimeout(20)
                with attempt:
                    while attempt.recv(65536):
                        pass
    assert len(heads) == 1


def test_an_address_without_the_hosts_certificate_is_passed_over(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream, socket.create_server(("127.0.0.3", upstream.port)) as closed:
        closed.close()
        hosts = [route(HOST, ssrf_ip_allowlist=LOOPBACK, ports=(upstream.port,))]
        with Lab(tmp_path, hosts, None, {HOST: ["127.0.0.3", "127.0.0.1"]}) as lab:
            assert lab.get(port=upstream.port).status == 200
    assert len(heads) == 1


def test_an_internal_host_opens_its_own_networks_and_no_other(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream:
        port = (upstream.port,)
        table = {
            "in.test": ["127.0.0.1"],
            "out.test": ["127.0.0.1"],
            "part.test": ["10.9.9.9", "::1", "127.0.0.1"],
            "meta.test": ["169.254.169.254"],
        }
        hosts = [
            route("in.test", ssrf_ip_allowlist=(ip_network("127.0.0.1/32"),), ports=port),
            route("out.test", ssrf_ip_allowlist=(ip_network("127.0.0.2/32"),), ports=port),
            route("part.test", ssrf_ip_allowlist=(ip_network("127.0.0.0/24"),), ports=port),
            route("meta.test", ssrf_ip_allowlist=(ip_network("169.254.0.0/16"),), ports=port),
        ]
        with Lab(tmp_path, hosts, None, table) as lab:
            got = {host: lab.get(host, upstream.port) for host in table}
    assert {host: answer.reason or answer.status for host, answer in got.items()} == {
        "in.test": 200,
        "out.test": "address_denied",
        "part.test": 200,
        "meta.test": "address_denied",
    }
    assert len(heads) == upstream.connections == 2
