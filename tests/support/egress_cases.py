"""Drive egress cases through ``bot-bottle proxy``, in a network where every address is a sinkhole.

``python -m tests.support.egress_cases FOLDER SCRATCH`` enters network and mount namespaces of its own: every
name resolves to the sinkhole, and the sinkhole takes and answers everything. It prints one JSON object a case
and mode. What is said there to have arrived is what the sinkhole wrote down, never what a status suggests.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import urllib.parse
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bot_bottle.verify import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bot_bottle.demo.upstreams import Answer, ScriptedServer, Seen
    from bot_bottle.verify.sinkhole import ScriptedDns

Mode: TypeAlias = Literal["policy", "scan"]
Case: TypeAlias = dict[str, Any]

#: Where a message for a server of the agent's goes, since those cases name none.
_SERVER = "https://tools.partner-service.net/rpc"
_MARK = "Case"
_SECONDS = 60.0


@dataclass(slots=True, kw_only=True)
class Told:
    """What the client heard."""

    status: int = 0
    reason: str = ""
    rule: str = ""
    body: bytes = b""


@dataclass(slots=True, kw_only=True)
class Sinkhole:
    """The servers that stand for the internet; ``body`` is what the next request gets."""

    dns: ScriptedDns
    body: bytes = b""
    server: ScriptedServer | None = field(default=None)

    def answer(self, seen: Seen) -> Answer:
        """Take a WebSocket, or give the body."""
        from bot_bottle.demo.upstreams import Answer  # noqa: PLC0415 - after the namespaces were entered
        from tests.support import websocket  # noqa: PLC0415

        if websocket.is_handshake(seen):
            return websocket.accept(seen, lambda _message: ())
        kind = "application/json" if self.body[:1] in b"{[" else "text/html"
        return Answer(body=self.body, content_type=kind, headers=(("Connection", "close"),))


def url_of(case: Case) -> str:
    """Say where a case's request goes."""
    return str(case["payload"].get("url", _SERVER))


def main(argv: list[str]) -> int:
    """Enter the namespaces, drive every case in both modes and print what came of it."""
    scratch = Path(argv[2])
    namespaces.leave_the_host()
    namespaces.cover_file(Path("/etc/resolv.conf"), "nameserver 192.0.2.53\noptions timeout:1\n", scratch)
    namespaces.cover_file(Path("/etc/nsswitch.conf"), "passwd: files\nhosts: dns\n", scratch)
    namespaces.own_every_address()
    cases = [json.loads(path.read_text()) for path in sorted(Path(argv[1]).glob("*/*.json"))]
    for mode in ("policy", "scan"):
        for line in _drive(cases, mode, scratch):
            sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    return 0


def _drive(cases: Sequence[Case], mode: Mode, scratch: Path) -> list[dict[str, object]]:
    from bot_bottle.demo.authority import Authority  # noqa: PLC0415 - after the namespaces were entered
    from bot_bottle.demo.upstreams import ScriptedServer  # noqa: PLC0415
    from bot_bottle.verify import sinkhole  # noqa: PLC0415

    authority = Authority("Sinkhole")
    upstream_ca = scratch / "sinkhole.pem"
    upstream_ca.write_text(authority.pem)
    upstream_ca.chmod(0o600)
    global _dns  # noqa: PLW0603 - its port can be bound once
    _dns = _dns or sinkhole.ScriptedDns()
    internet = Sinkhole(dns=_dns)
    server = ScriptedServer(
        "sinkhole", internet.answer, authority=authority, listeners=sinkhole.tcp_listeners((80, 443, 8080))
    )
    routes = scratch / f"{mode}.yaml"
    routes.write_text(json.dumps({"routes": list(_routes(cases, mode))}))
    heard: list[tuple[Told, list[str]]] = []
    with server, _proxy(routes, upstream_ca, scratch / mode) as (port, ca_file):
        trust = ssl.create_default_context(cafile=str(ca_file))
        for number, case in enumerate(cases):
            internet.body = str(case["payload"].get("response_body", "{}")).encode()
            internet.dns.settle()
            before = len(internet.dns.questions)
            told = _send(case, number, port, trust)
            internet.dns.settle()
            heard.append((told, sorted({one.name for one in internet.dns.questions[before:]})))
    # Both ends of every connection are closed and their threads are over: nothing arrives later.
    unasked = len(server.accepted) - len([one for one in server.seen if one.raw])
    lines: list[dict[str, object]] = []
    for number, (case, (told, names)) in enumerate(zip(cases, heard, strict=True)):
        mine = [one for one in server.seen if one.values(_MARK) == [str(number)]]
        lines.append({
            "mode": mode,
            "id": case["id"],
            "status": told.status,
            "reason": told.reason,
            "rule": told.rule,
            "names": names,
            "heard": told.body.decode("utf-8", "replace"),
            "requests": len([one for one in mine if one.raw]),
            "arrived": "".join(one.raw.decode("latin-1") for one in mine if one.raw),
            "messages": [one.body.decode("utf-8", "replace") for one in mine if not one.raw],
            "unasked": unasked,
        })  # fmt: skip
    return lines


_dns: ScriptedDns | None = None


def _routes(cases: Sequence[Case], mode: Mode) -> Iterator[dict[str, object]]:
    """Open the hosts of the harmless cases, or all there are and every name beside them."""
    from bot_bottle.egress.hosts import HostError, normalise_host  # noqa: PLC0415

    hosts: dict[str, None] = {}
    for case in cases:
        name = urllib.parse.urlsplit(url_of(case)).hostname or ""
        with contextlib.suppress(HostError):
            name = normalise_host(name)
        if mode == "policy":
            if case["expected_verdict"] == "allow":
                hosts[name] = None
            continue
        try:
            hosts[str(ip_address(name))] = None
        except ValueError:
            site = ".".join(name.split(".")[-2:])
            hosts.update(dict.fromkeys((site, f"*.{site}") if "." in site else (name,)))
    pipelock = {"responses": "block"}
    for name in hosts:
        yield {"host": name, "pipelock": pipelock} if mode == "scan" else {"host": name}


@contextlib.contextmanager
def _proxy(routes: Path, upstream_ca: Path, folder: Path) -> Iterator[tuple[int, Path]]:
    """Run the command; gives its port and its certificate's file."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "bot_bottle", "proxy", "--routes", str(routes)),
            *("--listen", "127.0.0.1:0", "--ca-dir", str(folder), "--upstream-ca", str(upstream_ca)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "BOT_BOTTLE_HOME": str(folder / "home")},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("bot-bottle proxy: listening on"):
            raise RuntimeError(f"the proxy did not start: {line}")
        yield int(line.rpartition(":")[2]), folder / "ca.pem"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _send(case: Case, number: int, port: int, trust: ssl.SSLContext) -> Told:
    """Do what the case's agent does, and give what it hears."""
    url = urllib.parse.urlsplit(url_of(case))
    payload = case["payload"]
    secure = url.scheme in {"https", "wss"}
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    body = str(payload.get("body", "")).encode()
    method = payload.get("method", "GET")
    headers = {"Host": url.netloc, _MARK: str(number), **payload.get("headers", {})}
    if "jsonrpc_messages" in payload:
        method = "POST"
        body = b"\n".join(json.dumps(one).encode() for one in payload["jsonrpc_messages"])
        headers["Content-Type"] = "application/json"
    elif "content_type" in payload:
        headers["Content-Type"] = payload["content_type"]
    if "frames" in payload:
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    else:
        headers["Connection"] = "close"
        if body or method not in {"GET", "HEAD"}:
            headers["Content-Length"] = str(len(body))
    told = Told()
    with (
        contextlib.suppress(ConnectionError, ssl.SSLError),
        socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as connection,
    ):
        stream: socket.socket = connection
        if secure:
            authority = url.netloc if url.port else f"{url.netloc}:443"
            connection.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            if not _hear(connection, told, head_only=True):
                return told
            stream = trust.wrap_socket(connection, server_hostname=url.hostname)
        else:
            target = f"http://{url.netloc}{target}"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        stream.sendall(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
        if "frames" not in payload:
            _hear(stream, told)
        elif _hear(stream, told, head_only=True):
            _say(stream, payload["frames"], told)
    return told


def _hear(stream: socket.socket, told: Told, *, head_only: bool = False) -> bool:
    """Read an answer; says whether it was a yes."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = stream.recv(1)
        if not piece:
            return False
        head += piece
    first, *lines = head.decode("latin-1").split("\r\n")
    told.status = int(first.split()[1])
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    told.reason = fields.get("x-bot-bottle-reason", "")
    told.rule = fields.get("x-bot-bottle-rule", "")
    good = told.status < 300
    if not (head_only and good):
        most = int(fields.get("content-length", sys.maxsize))
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # cut off is an answer too
            while len(told.body) < most and (piece := stream.recv(65536)):
                told.body += piece
    return good


def _say(stream: socket.socket, frames: Sequence[Case], told: Told) -> None:
    """Say the frames and close properly; hear until the other end is gone."""
    from tests.support import ws  # noqa: PLC0415

    opcodes = {"text": ws.TEXT, "binary": ws.BINARY, "continuation": 0x0, "ping": ws.PING, "pong": ws.PONG}
    for one in frames:
        data = str(one["payload"]).encode()
        raw = ws.said(data, opcodes[one["opcode"]], final=one.get("fin", True))
        if one.get("rsv1"):
            raw = bytes([raw[0] | 0x40]) + raw[1:]
        stream.sendall(raw)
    stream.sendall(ws.said(b"\x03\xe8", ws.CLOSE))
    while piece := stream.recv(65536):
        told.body += piece
    # A close frame of the proxy's says why (RFC 6455, 5.5.1).
    told.reason, _, told.rule = told.body[4:].decode("utf-8", "replace").partition(": ")
    told.status = int.from_bytes(told.body[2:4], "big")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
