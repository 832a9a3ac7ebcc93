"""The data plane against real upstreams over TLS: what passes, what is refused, what the upstream saw."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from bot_bottle.egress.policy import POLICIES, Step
from bot_bottle.secret import Secret
from tests.integration.egress_lab import (
    SECONDS,
    TOKEN,
    InProcess,
    Sidecar,
    Stream,
    Upstream,
    config,
    ok,
    route,
    serve,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Sidecar, Upstream, list[bytes]]]:
    """Bring up a sidecar with one TLS upstream behind several names."""
    handler, heads = serve(lambda head, body: ok(head.split(b"\r\n")[0] + b"|" + body))
    names = ("api.test", "site.test", "paths.test", "read.test", "empty.test", "alt.test")
    with Upstream(handler) as upstream:
        routes = [
            route("api.test", auth=True),
            route("site.test"),
            route("paths.test", path_allowlist=("/repos/me", "/v1/")),
            route("read.test", methods=("GET", "HEAD")),
            route("alt.test", ports=(8443,)),
        ]
        settings = config(tmp_path, routes, pins=dict.fromkeys(names, upstream.pin))
        with Sidecar(tmp_path, settings) as sidecar:
            yield sidecar, upstream, heads


def header(head: bytes, name: str) -> list[str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return [v.strip() for k, _, v in (line.partition(":") for line in lines) if k.lower() == name.lower()]


@pytest.mark.parametrize("way", ["connect", "transparent"])
def test_allowed_https_carries_the_credential_and_not_the_agents(
    world: tuple[Sidecar, Upstream, list[bytes]], way: str
) -> None:
    sidecar, _, heads = world
    stream = sidecar.tunnel("api.test") if way == "connect" else sidecar.transparent("api.test")
    extra = (
        "Authorization: Bearer agents-own\r\nX-Api-Key: k\r\nx_api_key: k\r\nProxy-Authorization: Basic e\r\n"
        "X-Forwarded-Host: evil.test\r\nForwarded: host=evil.test\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
        "Cookie: kept=1\r\nX-Original-URL: /admin\r\n"
    )
    with stream:
        answer = stream.get("api.test", "/v1/messages?q=1", extra=extra)
    assert answer.status == 200
    assert answer.body == b"GET /v1/messages?q=1 HTTP/1.1|"
    (head,) = heads
    assert header(head, "authorization") == [f"Bearer {TOKEN}"]
    assert header(head, "host") == ["api.test"]
    assert header(head, "cookie") == ["kept=1"]
    for gone in ("x-api-key", "x_api_key", "proxy-authorization", "x-forwarded-host", "forwarded", "x-hop"):
        assert header(head, gone) == [], gone
    assert header(head, "x-original-url") == []
    (record,) = sidecar.records()
    assert (record["decision"], record["injected"], record["via"]) == ("allow", "LAB_TOKEN", way)
    assert record["path"] == "/v1/messages"
    assert TOKEN not in sidecar.audit_file.read_text()


def test_authorization_is_stripped_on_routes_without_auth_too(
    world: tuple[Sidecar, Upstream, list[bytes]],
) -> None:
    sidecar, _, heads = world
    with sidecar.tunnel("site.test") as stream:
        assert stream.get("site.test", extra="Authorization: Bearer mine\r\nX-Api-Key: k\r\n").status == 200
    assert header(heads[0], "authorization") == []
    assert header(heads[0], "x-api-key") == []


def test_denied_names_read_the_same_for_every_client(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, upstream, _ = world
    probe, connected = sidecar.connect("denied.test:443")
    probe.close()
    assert connected.status == 200
    assert connected.headers["x-bot-bottle-decision"] == "deny"
    answers = []
    with sidecar.tunnel("denied.test") as stream:
        answers.append(stream.get("denied.test"))
    with sidecar.transparent("denied.test") as stream:
        answers.append(stream.get("denied.test"))
    with sidecar.plain("http") as stream:
        answers.append(stream.get("denied.test"))
    with sidecar.plain("proxy") as stream:
        answers.append(stream.get("denied.test", "http://denied.test/"))
    for answer in answers:
        assert answer.status == 403
        assert answer.headers["x-bot-bottle-decision"] == "deny"
        assert answer.reason == "host_not_allowed"
        assert answer.headers["x-bot-bottle-rule"] == "egress.routes"
        assert answer.headers["content-type"] == "application/json"
        assert answer.json["host"] == "denied.test"
        assert answer.json["identity"] == "lab-00001"
        assert answer.json["error"] == "bot_bottle_denied"
        assert answer.json == answers[0].json
    assert upstream.connections == 0
    assert {record["via"] for record in sidecar.records()} == {"connect", "transparent", "absolute"}


@pytest.mark.parametrize(
    ("authority", "reason"),
    [
        ("site.test:22", "port_not_allowed"),
        ("site.test:8443", "port_not_allowed"),
        ("denied.test:8443", "host_not_allowed"),
        ("127.0.0.1:443", "host_not_allowed"),
        ("0x7f.1:443", "host_not_allowed"),
        ("2130706433:443", "host_not_allowed"),
        ("[::1]:443", "host_not_allowed"),
        ("169.254.169.254:80", "host_not_allowed"),
        ("metadata.google.internal:80", "metadata_denied"),
        ("site.test", "bad_authority"),
        ("site.test:", "bad_authority"),
        ("site.test:0", "bad_authority"),
        ("site.test:99999", "bad_authority"),
        ("user@site.test:443", "bad_authority"),
        ("site.test@evil.test:443", "bad_authority"),
        ("site%2etest:443", "bad_authority"),
        ("site..test:443", "bad_authority"),
        ("http://site.test:443/", "bad_authority"),
        ("site.test:443:443", "bad_authority"),
        ("[::1%25lo]:443", "bad_authority"),
        ("1.2.3.4.5:443", "bad_authority"),
        ("999.1.1.1:443", "bad_authority"),
    ],
)
def test_connect_refused_at_once(
    world: tuple[Sidecar, Upstream, list[bytes]], authority: str, reason: str
) -> None:
    sidecar, upstream, _ = world
    stream, answer = sidecar.connect(authority)
    stream.close()
    assert (answer.status, answer.reason) == (403, reason)
    assert answer.json["reason"] == reason
    assert upstream.connections == 0
    (record,) = sidecar.records()
    assert (record["decision"], record["reason"], record["method"]) == ("deny", reason, "CONNECT")


@pytest.mark.parametrize("spelling", ["SITE.test", "site.test.", "Site.Test."])
def test_spellings_of_an_allowed_name_are_one_name(
    world: tuple[Sidecar, Upstream, list[bytes]], spelling: str
) -> None:
    sidecar, _, heads = world
    stream, answer = sidecar.connect(f"{spelling}:443")
    assert answer.status == 200
    with sidecar.secure(stream.sock, "site.test") as inner:
        assert inner.get(spelling).status == 200
    assert header(heads[0], "host") == ["site.test"]


@pytest.mark.parametrize(
    ("authority", "sni", "host"),
    [
        ("site.test", "api.test", "site.test"),
        ("site.test", "site.test", "api.test"),
        ("site.test", "site.test", "denied.test"),
        ("denied.test", "site.test", "site.test"),
        ("site.test", "denied.test", "denied.test"),
    ],
)
def test_names_must_agree(
    world: tuple[Sidecar, Upstream, list[bytes]], authority: str, sni: str, host: str
) -> None:
    sidecar, upstream, _ = world
    stream, _ = sidecar.connect(f"{authority}:443")
    context = ssl.create_default_context(cafile=str(sidecar.ca_file))
    context.check_hostname = False
    with Stream(context.wrap_socket(stream.sock, server_hostname=sni)) as inner:
        answer = inner.get(host)
    assert (answer.status, answer.reason) == (403, "names_disagree")
    assert upstream.connections == 0


def test_transparent_sni_and_host_must_agree(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, upstream, _ = world
    with sidecar.transparent("site.test") as stream:
        assert stream.get("api.test").reason == "names_disagree"
    with sidecar.transparent("site.test") as stream:
        assert stream.get("site.test", "https://api.test/").reason == "names_disagree"
    with sidecar.transparent("site.test") as stream:
        assert stream.get("site.test:8443").reason == "names_disagree"
    assert upstream.connections == 0


def test_missing_sni_is_refused_inside_tls(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, upstream, _ = world
    with sidecar.tunnel("site.test", sni=None) as stream:
        assert stream.get("site.test").reason == "sni_missing"
    with sidecar.transparent(None) as stream:
        assert stream.get("site.test").reason == "sni_missing"
    assert upstream.connections == 0


def test_second_request_on_a_connection_is_judged_by_itself(
    world: tuple[Sidecar, Upstream, list[bytes]],
) -> None:
    sidecar, _, heads = world
    with sidecar.tunnel("site.test") as stream:
        assert stream.get("site.test", "/1").status == 200
        assert stream.get("api.test", "/2").reason == "names_disagree"
        assert stream.get("site.test", "/3").status == 200
    with sidecar.plain("proxy") as stream:
        assert stream.get("denied.test", "http://denied.test/").reason == "host_not_allowed"
        assert stream.get("api.test", "http://api.test/").reason == "plaintext_credential"
        assert stream.get("denied.test", "http://denied.test/").reason == "host_not_allowed"
    assert [head.split(b" ")[1] for head in heads] == [b"/1", b"/3"]


def test_keep_alive_reuses_one_upstream_connection(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, upstream, _ = world
    for _ in range(2):
        with sidecar.tunnel("site.test") as stream:
            for number in range(5):
                assert stream.get("site.test", f"/{number}").status == 200
    assert upstream.connections == 1


def test_connections_are_not_shared_between_names(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, upstream, _ = world
    for name in ("site.test", "api.test", "read.test"):
        with sidecar.tunnel(name) as stream:
            assert stream.get(name).status == 200
    assert upstream.connections == 3


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/repos/me", True),
        ("/repos/me/x?y=../..", True),
        ("/repos/me/a%2Fx", True),
        ("/v1/", True),
        ("/v1/a/./b", True),
        ("/repos/mean", False),
        ("/repos/me%2Fx", False),
        ("/repos", False),
        ("/", False),
        ("/v1", False),
        ("/repos/me/../you", False),
        ("/repos/me/%2e%2e/you", False),
        ("/repos/me/..%2fyou", False),
        ("/repos/me/%252e%252e/you", False),
        ("/repos/me/..;/you", False),
        ("/repos/me/..\\you", False),
        ("/repos//me", False),
        ("/Repos/me", False),
        ("//repos/me", False),
    ],
)
def test_path_rules(world: tuple[Sidecar, Upstream, list[bytes]], path: str, allowed: bool) -> None:
    sidecar, _, heads = world
    with sidecar.tunnel("paths.test") as stream:
        answer = stream.get("paths.test", path)
    if allowed:
        assert answer.status == 200
        assert heads[0].split(b" ")[1] == path.encode()
    else:
        assert (answer.status, answer.reason) == (403, "path_not_allowed")
        assert heads == []


def test_method_rules(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, _, heads = world
    with sidecar.tunnel("read.test") as stream:
        assert stream.get("read.test").status == 200
        assert stream.get("read.test", method="HEAD").status == 200
        assert stream.get("read.test", method="DELETE").reason == "method_not_allowed"
        assert stream.get("read.test", extra="X-HTTP-Method-Override: DELETE\r\n").reason == "method_override"
        assert stream.get("read.test", extra="X_HTTP_Method: DELETE\r\n").status == 200
        assert stream.get("read.test", method="TRACE").reason == "method_denied"
    assert len(heads) == 3
    assert b"DELETE" not in b"".join(heads)


@pytest.mark.parametrize(
    "target",
    [
        "/org/repo.git/git-receive-pack",
        "/org/repo.git/info/refs?service=git-receive-pack",
        "/org/repo.git/info/refs?x=1&service=git%2Dreceive%2Dpack",
        "/org/repo.git/info//refs?SERVICE=git-receive-pack",
        "/org/repo.git/git%2dreceive%2dpack",
        "/org/repo.git/GIT-Receive-Pack",
        "/org/repo.git/git-receive-pack/",
        "/org/repo.git/git-receive-pack;x=1",
    ],
)
@pytest.mark.parametrize("host", ["site.test", "denied.test"])
def test_git_push_is_refused_on_every_host(
    world: tuple[Sidecar, Upstream, list[bytes]], target: str, host: str
) -> None:
    sidecar, upstream, _ = world
    with sidecar.tunnel(host) as stream:
        assert (
            stream.get(host, target, method="POST", extra="Content-Length: 0\r\n").reason == "git_push_denied"
        )
    assert upstream.connections == 0


def test_git_fetch_is_no_push(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, _, _ = world
    with sidecar.tunnel("site.test") as stream:
        assert stream.get("site.test", "/r.git/info/refs?service=git-upload-pack").status == 200


def test_plain_http_to_a_route_with_auth_is_refused(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, upstream, _ = world
    with sidecar.plain("http") as stream:
        assert stream.get("api.test").reason == "plaintext_credential"
    with sidecar.plain("proxy") as stream:
        assert stream.get("api.test", "http://api.test/").reason == "plaintext_credential"
    assert upstream.connections == 0


def test_plain_http_both_ways(tmp_path: Path) -> None:
    handler, heads = serve(lambda head, _body: ok(head.split(b"\r\n")[0]))
    with Upstream(handler, tls=False) as upstream:
        settings = config(tmp_path, [route("site.test")], pins={"site.test": upstream.pin})
        with Sidecar(tmp_path, settings) as sidecar:
            with sidecar.plain("http") as stream:
                assert stream.get("site.test", "/t").body == b"GET /t HTTP/1.1"
            with sidecar.plain("proxy") as stream:
                assert stream.get("site.test", "http://site.test/a?b").body == b"GET /a?b HTTP/1.1"
                assert stream.get("site.test", "http://SITE.test:80?b").body == b"GET /?b HTTP/1.1"
            plain, answer = sidecar.connect("site.test:80")  # ws:// and http:// through CONNECT
            assert answer.status == 200
            assert plain.get("site.test", "/c").body == b"GET /c HTTP/1.1"
            plain.close()
    assert all(header(head, "host") == ["site.test"] for head in heads)


def test_other_port_behind_connect_may_be_tls(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, _, heads = world
    with sidecar.tunnel("alt.test", 8443) as stream:
        assert stream.get("alt.test:8443").status == 200
    assert header(heads[0], "host") == ["alt.test:8443"]


def test_egress_local_answers_the_route_table_everywhere(
    world: tuple[Sidecar, Upstream, list[bytes]],
) -> None:
    sidecar, upstream, _ = world
    tables = []
    with sidecar.plain("http") as stream:
        tables.append(stream.get("_egress.local", "/allowlist"))
    with sidecar.plain("proxy") as stream:
        tables.append(stream.get("_egress.local", "http://_egress.local/allowlist"))
    with sidecar.tunnel("_egress.local") as stream:
        tables.append(stream.get("_egress.local", "/allowlist"))
    with sidecar.transparent("_egress.local") as stream:
        tables.append(stream.get("_egress.local", "/allowlist"))
        assert stream.get("_egress.local", "/other").status == 404
        assert stream.get("_egress.local", "/allowlist", method="DELETE").status == 404
    for table in tables:
        assert table.status == 200
        entry = {item["host"]: item for item in table.json["routes"]}["api.test"]
        assert entry["auth"] == {"scheme": "Bearer", "token_ref": "LAB_TOKEN"}
        assert entry["ports"] == [443]
        assert TOKEN not in table.body.decode()
    assert upstream.connections == 0
    assert {record["via"] for record in sidecar.records()} == {"local"}


def test_curl_sees_the_same_words_by_proxy_and_without(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, _, _ = world
    proxied = sidecar.curl("-x", f"http://127.0.0.1:{sidecar.ports['proxy']}", "https://denied.test/")
    direct = sidecar.curl("--connect-to", f"::127.0.0.1:{sidecar.ports['https']}", "https://denied.test/")
    assert proxied.returncode == direct.returncode == 0, (proxied.stderr, direct.stderr)
    assert proxied.stdout == direct.stdout
    assert b"host_not_allowed" in direct.stdout
    fetched = sidecar.curl(
        "-x", f"http://127.0.0.1:{sidecar.ports['proxy']}", "https://site.test/x", "-d", "abc"
    )
    assert fetched.stdout == b"POST /x HTTP/1.1|abc"


def test_missing_credential_refuses(tmp_path: Path) -> None:
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream:
        absent: dict[str, Secret] = {}
        for held in (absent, {"LAB_TOKEN": Secret("  ")}):
            settings = config(
                tmp_path, [route("api.test", auth=True)], pins={"api.test": upstream.pin}, secrets=held
            )
            with Sidecar(tmp_path, settings) as sidecar, sidecar.tunnel("api.test") as stream:
                assert stream.get("api.test").reason == "credential_missing"
        assert upstream.connections == 0
    assert heads == []


def test_connect_inside_connect_and_on_transparent_ports(
    world: tuple[Sidecar, Upstream, list[bytes]],
) -> None:
    sidecar, upstream, _ = world
    with sidecar.tunnel("site.test") as stream:
        stream.send(b"CONNECT site.test:443 HTTP/1.1\r\nHost: site.test:443\r\n\r\n")
        assert stream.response().reason == "connect_denied"
    with sidecar.plain("http") as stream:
        stream.send(b"CONNECT site.test:443 HTTP/1.1\r\nHost: site.test:443\r\n\r\n")
        assert stream.response().reason == "connect_denied"
    assert upstream.connections == 0


def test_bytes_sent_eagerly_behind_a_connect_are_refused(
    world: tuple[Sidecar, Upstream, list[bytes]],
) -> None:
    sidecar, upstream, _ = world
    with sidecar.plain("proxy") as stream:
        stream.send(b"CONNECT site.test:443 HTTP/1.1\r\nHost: site.test:443\r\n\r\n\x16\x03\x01")
        assert stream.response().reason == "bad_request"
    assert upstream.connections == 0


def test_dns_is_answered_and_recorded_once_a_name(world: tuple[Sidecar, Upstream, list[bytes]]) -> None:
    sidecar, _, _ = world
    query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x04data\x04evil\x00" + struct.pack("!2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.connect(("127.0.0.1", sidecar.ports["dns-udp"]))
        for _ in range(2):
            sock.send(query)
            reply = sock.recv(512)
            assert reply[-4:] == b"\x7f\x00\x00\x01"
        sock.send(b"junk")
        sock.send(b"\x00\x01" + b"\x00" * 10)
        assert sock.recv(512)[3] & 0x0F == 1
    with sidecar.plain("dns-tcp") as stream:
        stream.send(len(query).to_bytes(2, "big") + query)
        assert stream.exactly(int.from_bytes(stream.exactly(2), "big"))[-4:] == b"\x7f\x00\x00\x01"
    assert [record["name"] for record in sidecar.records("dns")] == ["data.evil"]


def test_too_many_working_connections_are_turned_away(tmp_path: Path) -> None:
    done = threading.Event()

    def handler(_sock: socket.socket) -> None:
        done.wait(20)

    with Upstream(handler, tls=False) as upstream:
        settings = config(tmp_path, [route("site.test")], pins={"site.test": upstream.pin})
        with InProcess(tmp_path, settings, max_clients=2) as egress:
            working = [egress.plain("http"), egress.plain("http")]
            for stream in working:
                stream.send(b"GET / HTTP/1.1\r\nHost: site.test\r\n\r\n")
            while not egress.call(lambda: [client.busy for client in egress.proxy.clients] == [True, True]):
                pass
            with egress.plain("http") as third:
                answer = third.response()
            assert (answer.status, answer.reason) == (503, "too_many_connections")
            with egress.plain("https") as fourth:
                assert fourth.rest() == b""
            for stream in working:
                stream.close()
        done.set()


def test_idle_connections_make_room_and_those_that_never_asked_go_first(tmp_path: Path) -> None:
    ask = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n"
    with contextlib.ExitStack() as stack:
        egress = stack.enter_context(InProcess(tmp_path, config(tmp_path, []), max_clients=3))

        def another(role: str = "http") -> Stream:
            return stack.enter_context(egress.plain(role))

        served = another()
        assert served.get("a.test").status == 403
        slow = another()
        assert slow.send(ask).response().status == 403, "answered, though its body never comes"
        silent = another("https")
        while egress.call(lambda: len(egress.proxy.clients)) < 3:
            pass
        first = another()
        assert first.get("a.test").status == 403
        assert silent.rest() == b""
        second = another()
        assert second.get("a.test").status == 403
        assert served.rest() == b""
        third = another()
        assert third.get("a.test").status == 403
        assert slow.rest() == b""
        for stream in (first, second, third):
            assert stream.get("a.test").status == 403


@pytest.mark.parametrize("broken", range(len(POLICIES)))
def test_a_policy_that_raises_denies(tmp_path: Path, broken: int) -> None:
    def raises(step: Step) -> None:
        raise RuntimeError(f"broken for {step.request.host}")

    policies = [*POLICIES[:broken], raises, *POLICIES[broken + 1 :]]
    handler, heads = serve(lambda _head, _body: ok())
    with Upstream(handler) as upstream:
        settings = config(tmp_path, [route("site.test")], pins={"site.test": upstream.pin})
        with InProcess(tmp_path, settings, policies=policies) as egress, egress.tunnel("site.test") as stream:
            assert stream.get("site.test").reason == "policy_error"
    assert heads == []


def test_every_later_request_is_judged_like_the_first(tmp_path: Path) -> None:
    """What is known of the first request spares no check of the next one's target."""
    handler, heads = serve(lambda head, _body: ok(head.split(b" ")[1]))
    with Upstream(handler) as upstream:
        rules = route("site.test", path_allowlist=("/a",), methods=("GET",), auth=True)
        settings = config(tmp_path, [rules, route("open.test")], pins={"site.test": upstream.pin})
        with Sidecar(tmp_path, settings) as sidecar, sidecar.tunnel("site.test") as stream:
            for number in range(3):
                assert stream.get("site.test", f"/a/{number}?q").body == b"/a/%d?q" % number
                assert stream.get("site.test", "/ab").reason == "path_not_allowed"
                assert stream.get("site.test", "/a/../b").reason == "path_not_allowed"
                assert stream.get("site.test", "/a/%c0%ae").reason == "path_ambiguous"
                assert stream.get("site.test", "/a/x.git/git-receive-pack").reason == "git_push_denied"
                assert stream.get("site.test", "/a?_method=DELETE").reason == "method_override"
                assert stream.get("site.test", "/a", method="POST").reason == "method_not_allowed"
                assert stream.get("open.test", "/a").reason == "names_disagree"
            records = sidecar.records()
    assert len(heads) == 3
    assert all(head.count(b"Authorization: Bearer") == 1 for head in heads)
    assert [record["path"] for record in records if record["decision"] == "allow"] == ["/a/0", "/a/1", "/a/2"]
    assert len(records) == 24
    assert {record["injected"] for record in records if record["decision"] == "allow"} == {"LAB_TOKEN"}


def test_as_many_upstream_connections_are_kept_as_were_needed_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(40)

    def answer(head: bytes, _body: bytes) -> bytes:
        if b"/together" in head:
            together.wait(SECONDS)
        return ok()

    handler, _ = serve(answer)
    with Upstream(handler, tls=False) as upstream, contextlib.ExitStack() as stack:
        settings = config(tmp_path, [route("site.test")], pins={"site.test": upstream.pin})
        egress = stack.enter_context(InProcess(tmp_path, settings))
        streams = [stack.enter_context(egress.plain("http")) for _ in range(40)]
        for _ in range(3):
            for stream in streams:
                stream.send(b"GET /together HTTP/1.1\r\nHost: site.test\r\n\r\n")
            assert {stream.response().status for stream in streams} == {200}
        assert upstream.connections == 40
        assert egress.call(lambda: egress.proxy.pool._idle_count) == 40
        egress.call(lambda: egress.proxy.pool.sweep(egress.loop.time() + 60))
        egress.call(lambda: None)
        assert egress.call(lambda: egress.proxy.pool._idle_count) == 0
