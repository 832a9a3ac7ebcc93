"""A real sidecar on loopback ports, raw upstreams and raw clients, for the egress tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import uvloop

from bot_bottle.audit import AuditLog
from bot_bottle.audit_events import deviations
from bot_bottle.audit_reading import read_records, verify
from bot_bottle.demo.authority import Authority
from bot_bottle.egress.ca import CertificateAuthority
from bot_bottle.egress.clients import MAX_CLIENTS
from bot_bottle.egress.policy import POLICIES, Policy
from bot_bottle.egress.proxy import EgressProxy
from bot_bottle.egress.roads import Resolver, system_resolver
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.secret import Secret
from bot_bottle.sidecar.client import SidecarProcess
from bot_bottle.sidecar.config import Pin, SidecarConfig
from tests.support import http2
from tests.support.outside import download_cache

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.sidecar.listeners import ListenerRole

TOKEN = "marked-credential-8f1c2d"
SECONDS = 20.0
AUTHORITY = Authority("egress tests")

Handler: TypeAlias = Callable[[socket.socket], None]


def route(host: str, **fields: Any) -> EgressRoute:
    """Make a route; ``auth=True`` gives it the marked credential."""
    if fields.get("auth") is True:
        fields["auth"] = RouteAuth(scheme="Bearer", token_ref="LAB_TOKEN")
    return EgressRoute(host=host, origin=fields.pop("origin", f"routes[{host}]"), **fields)


def config(
    tmp_path: Path,
    routes: Sequence[EgressRoute],
    *,
    pins: dict[str, Pin] | None = None,
    secrets: dict[str, Secret] | None = None,
    marked: dict[str, Secret] | None = None,
    upstream_ca_pem: str | None = None,
) -> SidecarConfig:
    """Make a sidecar's config that trusts the tests' authority."""
    return SidecarConfig(
        identity="lab-00001",
        routes=tuple(routes),
        audit_path=str(tmp_path / "audit" / "lab.jsonl"),
        secrets={"LAB_TOKEN": Secret(TOKEN)} if secrets is None else secrets,
        pins=pins or {},
        upstream_ca_pem=AUTHORITY.pem if upstream_ca_pem is None else upstream_ca_pem,
        marked=marked or {},
        cache=str(download_cache()),
    )


def listeners() -> dict[ListenerRole, socket.socket]:
    """Open one loopback socket a role on free ports."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    roles: tuple[ListenerRole, ...] = ("dns-tcp", "http", "https", "proxy")
    opened: dict[ListenerRole, socket.socket] = {"dns-udp": udp}
    for role in roles:
        opened[role] = socket.create_server(("127.0.0.1", 0))
    return opened


class Stream:
    """A client's end of a connection; reads HTTP with a bound on waiting."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(SECONDS)
        self.sock = sock
        self._rest = b""

    def send(self, data: bytes) -> Self:
        self.sock.sendall(data)
        return self

    def until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            more = self.sock.recv(65536)
            if not more:
                raise ConnectionError(f"ended before {mark!r}: {self._rest!r}")
            self._rest += more
        data, _, self._rest = self._rest.partition(mark)
        return data + mark

    def exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            more = self.sock.recv(65536)
            if not more:
                raise ConnectionError(f"ended {count - len(self._rest)} bytes early")
            self._rest += more
        data, self._rest = self._rest[:count], self._rest[count:]
        return data

    def rest(self) -> bytes:
        """Read to the end; a reset counts as an end."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while more := self.sock.recv(65536):
                self._rest += more
        data, self._rest = self._rest, b""
        return data

    def response(self, *, head: bool = False) -> Response:
        raw = self.until(b"\r\n\r\n")
        lines = raw.decode("latin-1").split("\r\n")
        headers = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines[1:] if line)]
        fields = dict(headers)
        status = int(lines[0].split(" ")[1])
        body = b""
        if not head and status >= 200 and status not in {204, 304}:
            if fields.get("transfer-encoding") == "chunked":
                while size := int(self.until(b"\r\n"), 16):
                    body += self.exactly(size)
                    self.exactly(2)
                self.exactly(2)
            elif "content-length" in fields:
                body = self.exactly(int(fields["content-length"]))
            else:
                body = self.rest()
        return Response(status, headers, body, lines[0])

    def get(self, host: str, path: str = "/", method: str = "GET", extra: str = "") -> Response:
        self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode("latin-1"))
        return self.response(head=method == "HEAD")

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Response:
    """A parsed response."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes, line: str) -> None:
        self.status = status
        self.headers = dict(headers)
        self.all_headers = headers
        self.body = body
        self.line = line

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str | None:
        return self.headers.get("x-bot-bottle-reason")


class Upstream:
    """A raw upstream: ``handler`` gets each connection (TLS taken off) in a thread of its own."""

    def __init__(
        self, handler: Handler, *, tls: bool = True, authority: Authority = AUTHORITY, http2_for: str = ""
    ) -> None:
        self._handler = handler
        self._context = authority.server_context(http2_for or "localhost") if tls else None
        if self._context is not None and http2_for:
            self._context.sni_callback = None  # a context that it switched to would choose no protocol
            self._context.set_alpn_protocols(["h2", "http/1.1"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.heads: list[bytes] = []
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def pin(self) -> Pin:
        return Pin(address="127.0.0.1", port=self.port)

    def note(self, head: bytes) -> None:
        with self._lock:
            self.heads.append(head)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.append(sock)
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        stream = sock
        try:
            sock.settimeout(SECONDS)  # fails where close() was faster
            if self._context:
                stream = self._context.wrap_socket(sock, server_side=True)
                with self._lock:
                    self._open.append(stream)
            self._handler(stream)
        except (OSError, ValueError) as error:
            self.errors.append(error)
        finally:
            with contextlib.suppress(OSError):
                stream.close()


def heads_on(stream: Stream) -> Iterator[bytes]:
    """Give the head of each request on a connection, until it ends."""
    with contextlib.suppress(ConnectionError):
        while True:
            yield stream.until(b"\r\n\r\n")


def serve(answer: Callable[[bytes, bytes], bytes]) -> tuple[Handler, list[bytes]]:
    """Make a keep-alive handler: ``answer(head, body)`` gives whole responses; the heads are noted."""
    heads: list[bytes] = []

    def handler(sock: socket.socket) -> None:
        stream = Stream(sock)
        for head in heads_on(stream):
            heads.append(head)
            body = b""
            fields = head.lower()
            if b"transfer-encoding: chunked" in fields:
                while size := int(stream.until(b"\r\n"), 16):
                    body += stream.exactly(size)
                    stream.exactly(2)
                stream.exactly(2)
            elif b"content-length:" in fields:
                body = stream.exactly(int(fields.partition(b"content-length:")[2].partition(b"\r\n")[0]))
            sock.sendall(answer(head, body))

    return handler, heads


def ok(body: bytes = b"ok", extra: bytes = b"") -> bytes:
    """Write a plain 200."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), extra, body)


class Clients:
    """What a bottle's programs do with an egress: its ports and its CA are all they know."""

    ports: dict[str, int]
    ca_file: Path
    audit_file: Path

    def plain(self, role: str) -> Stream:
        return Stream(socket.create_connection(("127.0.0.1", self.ports[role]), SECONDS))

    def secure(self, sock: socket.socket, sni: str | None, *alpn: str) -> Stream:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.check_hostname = sni is not None
        if alpn:
            context.set_alpn_protocols(alpn)
        return Stream(context.wrap_socket(sock, server_hostname=sni))

    def connect(self, authority: str) -> tuple[Stream, Response]:
        stream = self.plain("proxy")
        try:
            stream.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            raw = stream.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        except OSError:
            stream.close()
            raise
        headers = [(k.lower(), v.strip()) for k, _, v in (line.partition(":") for line in raw[1:] if line)]
        status = int(raw[0].split(" ")[1])
        body = b"" if status == 200 else stream.exactly(int(dict(headers)["content-length"]))
        return stream, Response(status, headers, body, raw[0])

    def tunnel(self, host: str, port: int = 443, *, sni: str | None = "") -> Stream:
        stream, answer = self.connect(f"{host}:{port}")
        assert answer.status == 200, answer.line
        return self.secure(stream.sock, host if sni == "" else sni)

    def http2(self, host: str, *, transparent: bool = False, **options: Any) -> http2.Client:
        """Open an HTTP/2 connection to ``host``, through a CONNECT or not."""
        sock = self.plain("https").sock if transparent else self.connect(f"{host}:443")[0].sock
        secured = self.secure(sock, host, "h2", "http/1.1").sock
        assert isinstance(secured, ssl.SSLSocket)
        assert secured.selected_alpn_protocol() == "h2"
        return http2.Client(secured, **options)

    def transparent(self, sni: str | None) -> Stream:
        return self.secure(self.plain("https").sock, sni)

    def curl(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["curl", "-sS", "--max-time", "20", "--cacert", str(self.ca_file), *args],
            capture_output=True,
            check=False,
            env={"PATH": "/usr/bin:/bin"},
        )

    def records(self, event: str = "request") -> list[dict[str, Any]]:
        records = list(read_records(self.audit_file))
        assert [one for record in records for one in deviations(record)] == []
        return [record for record in records if record["event"] == event]


class Sidecar(Clients):
    """The real thing: a sidecar process with its sockets on loopback, and the operator's one if given."""

    def __init__(
        self, tmp_path: Path, settings: SidecarConfig, *, control: socket.socket | None = None
    ) -> None:
        self.process = SidecarProcess.start(settings)
        sockets = listeners()
        operators: list[tuple[ListenerRole, socket.socket]] = [("control", control)] if control else []
        try:
            self.process.give_listeners([*sockets.items(), *operators])
        except BaseException:
            self.process.close()
            raise
        finally:
            self.ports = {role: sock.getsockname()[1] for role, sock in sockets.items()}
            for sock in sockets.values():
                sock.close()
        self.ca_file = tmp_path / "ca.pem"
        self.ca_file.write_text(self.process.ca_pem)
        self.audit_file = tmp_path / "audit" / "lab.jsonl"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.process.close()
        assert verify(self.audit_file).ended


class InProcess(Clients):
    """An egress proxy on a thread's own loop, for what needs a scripted resolver, policy or log."""

    def __init__(
        self,
        tmp_path: Path,
        settings: SidecarConfig,
        *,
        resolver: Resolver = system_resolver,
        policies: Sequence[Policy] = POLICIES,
        audit: AuditLog | None = None,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        self.audit_file = tmp_path / "audit" / "lab.jsonl"
        self._audit = audit or AuditLog.open(self.audit_file)
        ca = CertificateAuthority("lab-00001")
        self.ca_file = tmp_path / "ca.pem"
        self.ca_file.write_text(ca.certificate_pem)
        self.loop = uvloop.new_event_loop()
        self.trouble: list[dict[str, object]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.trouble.append(context))
        self.proxy = EgressProxy(
            settings,
            audit=self._audit,
            ca=ca,
            loop=self.loop,
            resolver=resolver,
            policies=policies,
            max_clients=max_clients,
        )
        sockets = listeners()
        self.ports = {role: sock.getsockname()[1] for role, sock in sockets.items()}
        self.loop.run_until_complete(self.proxy.serve(list(sockets.items())))
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` on the loop and give its result."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.call(self.proxy.close)
        self.call(lambda: None)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(SECONDS)
        self.loop.close()
        self._audit.close()
        assert self.trouble == []
