"""Another server's collection of HTTP/1.1 requests, through egress to an upstream that judges them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.egress_lab import InProcess, Stream, Upstream, config, ok, route

if TYPE_CHECKING:
    from bot_bottle.egress.routes import EgressRoute

pytestmark = pytest.mark.integration

CORPORA = Path(os.environ.get("BOT_BOTTLE_CORPORA", Path(__file__).parents[3] / "shared" / "corpora"))
HOSTS = ("example.com", "localhost", "0.0.0.0")

_REQUEST_LINE = re.compile(rb"[A-Z-]+ [\x21-\x7e]+ HTTP/1\.1")
_FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*")


def corpus() -> list[dict[str, Any]]:
    path = CORPORA / "http1" / "cases.json"
    return json.loads(path.read_text()) if path.is_file() else []


def judge(head: bytes) -> dict[bytes, bytes]:
    """Read a head by rules written down here, so that two pieces of code must agree on it."""
    first, *lines = head[:-4].split(b"\r\n")
    assert _REQUEST_LINE.fullmatch(first), head
    names = []
    for line in lines:
        assert _FIELD.fullmatch(line), head
        names.append(line.partition(b":")[0].lower())
    assert names.count(b"host") == 1, head
    framing = [name for name in names if name in {b"content-length", b"transfer-encoding"}]
    assert len(framing) <= 1, head
    fields = dict(zip(names, (line.partition(b": ")[2] for line in lines), strict=True))
    assert fields.get(b"content-length", b"0").isdigit(), head
    assert fields.get(b"transfer-encoding", b"chunked") == b"chunked", head
    return fields


class Judge:
    """An upstream's handler: keeps the requests that arrived whole; what it cannot read is an error."""

    def __init__(self) -> None:
        self.whole: list[tuple[bytes, bytes]] = []
        self.faults: list[Exception] = []

    def __call__(self, sock: socket.socket) -> None:
        stream = Stream(sock)
        try:
            while True:
                self._read_one(stream)
                sock.sendall(ok())
        except OSError:
            pass  # the end, perhaps in the middle of a request that was refused meanwhile
        except (AssertionError, ValueError) as error:
            self.faults.append(error)

    def _read_one(self, stream: Stream) -> None:
        head = stream.until(b"\r\n\r\n")
        fields, body = judge(head), b""
        if b"transfer-encoding" in fields:
            while size := int(stream.until(b"\r\n"), 16):
                body += stream.exactly(size)
                assert stream.exactly(2) == b"\r\n"
            assert stream.exactly(2) == b"\r\n"
        else:
            body = stream.exactly(int(fields.get(b"content-length", b"0")))
        self.whole.append((head, body))


#: Valid by the standard and refused by intent; where a Host is missing there is nothing to decide on.
REFUSED_BY_INTENT = {
    "valid/002.http",  # Host: 0.0.0.0=5000 is no host
    "valid/003.http",
    "valid/099.http",  # Host: 0.0.0.0:5000 on the port 80
    "valid/015.http",
    "valid/rfc9112_smuggle_gzip_chunked_01.http",  # the only coding taken is chunked
    "valid/rfc9112_smuggle_te_identity_chunked_01.http",
    "valid/rfc9112_target_absolute_https_01.http",  # https:// without TLS
    "valid/rfc9112_target_absolute_ipv6_01.http",  # port 8080 on the port 80
    "valid/rfc9112_target_absolute_userinfo_01.http",  # RFC 9110, 4.2.4
    "valid/rfc9112_target_authority_connect_01.http",  # CONNECT is for the proxy port
    "valid/rfc9112_target_authority_ipv6_01.http",
    "valid/compat_obs_fold.http",
    "valid/pp_04.http",  # the PROXY protocol is not HTTP
    "valid/pp_05.http",
}

HAS_HOST = re.compile(rb"\r\nhost:", re.IGNORECASE)


def routes() -> list[EgressRoute]:
    return [route(host, ports=(80,)) for host in HOSTS]


@pytest.mark.skipif(not corpus(), reason=f"the http1 corpus is not at BOT_BOTTLE_CORPORA ({CORPORA})")
def test_every_request_is_refused_or_arrives_as_one_clear_request(tmp_path: Path) -> None:
    handler = Judge()
    with Upstream(handler, tls=False) as upstream:
        settings = config(tmp_path, routes(), pins=dict.fromkeys(HOSTS, upstream.pin))
        with InProcess(tmp_path, settings) as egress:
            for case in corpus():
                payload = base64.b64decode(case["payload"])
                before = len(handler.whole)
                with egress.plain("http") as stream, contextlib.suppress(ConnectionError):
                    with contextlib.suppress(OSError):  # refused early and closed: the answer is still there
                        stream.send(payload)
                        stream.sock.shutdown(socket.SHUT_WR)
                    answers = stream.rest()
                    assert b"internal_error" not in answers, case["id"]
                    assert b"policy_error" not in answers, case["id"]
                arrived = handler.whole[before:]
                wanted = case["kind"] == "valid" and HAS_HOST.search(payload.partition(b"\r\n\r\n")[0])
                if wanted and case["id"] not in REFUSED_BY_INTENT:
                    assert len(arrived) == 1, (case["id"], answers)
                assert len(arrived) <= 1, (case["id"], arrived)
                with egress.plain("http") as other:
                    assert other.get("denied.test").reason == "host_not_allowed", case["id"]
            records = [record["decision"] for record in egress.records()]
    assert handler.faults == []
    assert records.count("allow") >= len(handler.whole) > 10
