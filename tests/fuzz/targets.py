"""What is fuzzed. A target takes any bytes and raises only where something is wrong with us."""

from __future__ import annotations

import asyncio
import posixpath
import sys
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from bot_bottle.decision import Allow
from bot_bottle.egress.bodies import LAST_CHUNK, Body, ChunkedBody, LengthBody, chunk
from bot_bottle.egress.ca import CertificateAuthority
from bot_bottle.egress.clients import Clients
from bot_bottle.egress.grammar import BadMessageError, StatusLine, read_request_line
from bot_bottle.egress.headers import ResponseHeaders, head_tail, read_request_headers
from bot_bottle.egress.hosts import format_authority, is_ip_literal, parse_authority
from bot_bottle.egress.http2.client import Http2Client
from bot_bottle.egress.policy import TARGET_POLICIES, Step, decide, first_objection
from bot_bottle.egress.precedent import Precedents
from bot_bottle.egress.reader import RequestReader
from bot_bottle.egress.routes import EgressRoute
from bot_bottle.egress.stalled import Stalled
from bot_bottle.egress.table import RouteTable
from bot_bottle.egress.target import Arrival, origin_target, read_request, with_sni
from bot_bottle.egress.tls import ServerContexts, SniSSLObject
from bot_bottle.egress.tls_stream import TlsStream
from bot_bottle.egress.upstream import UpstreamConnection, UpstreamError
from tests.fuzz import written
from tests.fuzz.checks import cut, require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.decision import Deny
    from bot_bottle.egress.pool import UpstreamPool
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.table import Verdict

PLAIN = Arrival(via="transparent", scheme="http", port=80)
PROXY = Arrival(via="absolute", scheme="http")


# Requests: reading, writing and reading again is the identity, in pieces of any size.


class _Requests:
    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes, bytes, bool]] = []
        self.bodies: list[bytes] = []
        self.whole = 0

    def may_go_on(self, *, in_body: bool) -> bool | None:
        return True

    def on_request(self, line: bytes, block: bytes, *, last: bool) -> Body | None:
        method, target, http_1_0 = read_request_line(line)
        facts = read_request_headers(block, http_1_0=http_1_0)
        if facts.host is None:
            raise BadMessageError("the request has no Host header")
        self.messages.append((method, target, head_tail(authority=facts.host, facts=facts), facts.chunked))
        self.bodies.append(b"")
        if not facts.has_body:
            self.whole += 1
            return None
        return ChunkedBody() if facts.chunked else LengthBody(facts.content_length or 0)

    def on_body(self, data: bytes) -> None:
        self.bodies[-1] += data

    def on_request_end(self) -> None:
        self.whole += 1

    def written(self) -> bytes:
        out = b""
        for (method, target, tail, chunked), body in zip(self.messages, self.bodies, strict=True):
            out += b" ".join((method, target, tail))
            out += (chunk(body) if body else b"") + LAST_CHUNK if chunked else body
        return out


def _read(pieces: list[bytes]) -> tuple[_Requests, bool]:
    sink = _Requests()
    reader = RequestReader(sink)
    try:
        for piece in pieces:
            reader.feed(piece)
    except BadMessageError:
        return sink, False
    return sink, reader.empty and not reader.in_body


def requests(data: bytes) -> None:
    """A connection's bytes, the first of which says how large their pieces are."""
    step, stream = (data[0] % 16 + 1, data[1:]) if data else (1, b"")
    at_once, clean = _read([stream])
    in_pieces, _ = _read(cut(stream, step))
    require(at_once.messages[: at_once.whole] == in_pieces.messages[: in_pieces.whole], "pieces matter")
    require(at_once.bodies[: at_once.whole] == in_pieces.bodies[: in_pieces.whole], "pieces matter")
    if clean:
        again, clean = _read([at_once.written()])
        require(clean and again.messages == at_once.messages, "what was written reads differently")
        require(again.bodies == at_once.bodies, "bodies read differently")
        require(again.written() == at_once.written(), "writing is not stable")


# Policy: names have one spelling, a path stays under its prefix however it is read.

TABLE = RouteTable(
    (
        EgressRoute(host="narrow.test", path_allowlist=("/a", "/b/"), methods=("GET",), origin="r0"),
        EgressRoute(host="open.test", origin="r1"),
        EgressRoute(host="*.wild.test", origin="r2"),
    ),
    {},
)


def policy(data: bytes) -> None:
    """A request line and header lines."""
    line, _, block = data.partition(b"\r\n")
    for arrival in (PLAIN, PROXY):
        try:
            method, target, http_1_0 = read_request_line(line)
            facts = read_request_headers(block, http_1_0=http_1_0)
            request = read_request(
                arrival,
                method=method.decode(),
                target=target.decode(),
                headers=facts,
                http_1_0=http_1_0,
            )
        except BadMessageError:
            continue
        again = parse_authority(format_authority(request.host))
        require(again.host == request.host and request.host.isascii(), "a host has two spellings")
        require(not any(char in request.host for char in " /\\@?#%[]\x00"), "a host has syntax in it")
        require(origin_target(target.decode()).startswith(("/", "*")), "a target without a path")
        verdict = decide(request, TABLE)
        if not isinstance(verdict.decision, Allow) or verdict.route is None:
            continue
        require(not is_ip_literal(request.host), "an address passed for a name")
        require(
            first_objection(Step(request, verdict.route, TABLE), tuple(TARGET_POLICIES)) is None,
            "the target policies object to what was allowed",
        )
        if verdict.route.path_allowlist:
            path = request.path
            for _ in range(3):
                resolved = posixpath.normpath(path.replace("\\", "/"))
                top = resolved.lstrip("/").split("/")[0].partition(";")[0]
                require(top in {"a", "b"}, f"{request.path!r} leaves its prefix")
                path = unquote(path, "latin-1")


# Responses: whatever a server says, a client hears one framed answer, or that there is none.


class _Transport:
    """A socket that takes everything."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.sent.extend(pieces)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _name: str, default: object = None) -> object:
        return default


class _Pool:
    def __init__(self) -> None:
        self.kept = 0

    def keep(self, _connection: UpstreamConnection, _seconds: float | None) -> None:
        self.kept += 1

    def forget(self, _connection: UpstreamConnection) -> None: ...


class _Answer:
    def __init__(self) -> None:
        self.connection: UpstreamConnection | None = None
        self.facts: ResponseHeaders | None = None
        self.body = 0
        self.ends = 0
        self.lost = 0

    def on_whole_response(
        self, line: StatusLine, headers: ResponseHeaders, message: bytes, head: int
    ) -> None:
        require(line.status >= 200, "an interim response is not the last one")
        self.on_response_head(line, headers)
        if head < len(message):
            self.on_response_body(message[head:])
        self.on_response_end()

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        require(self.facts is None and not self.ends, "a head behind the head")
        require(all(b"\r" not in kept and b"\n" not in kept for kept in headers.kept), "a line in a line")
        if line.status == 101:
            raise BadMessageError("the server switched protocols unasked", status=502)
        if line.status >= 200:
            self.facts = headers

    def on_response_body(self, data: bytes) -> None:
        require(self.facts is not None and not self.ends, "a body out of place")
        self.body += len(data)

    def on_response_end(self, _trailers: Sequence[bytes] = ()) -> None:
        require(self.facts is not None and not self.ends and not self.lost, "an end out of place")
        self.ends += 1
        if self.facts and self.facts.content_length is not None and self.body:
            require(self.body == self.facts.content_length, "the body is not as long as it says")
        if self.connection is not None:
            self.connection.release()

    def on_tunnel_data(self, _data: bytes) -> None:
        raise RuntimeError("a tunnel nobody asked for")

    def on_upstream_lost(self, _error: UpstreamError) -> None:
        require(not self.ends and not self.lost, "lost twice, or after the end")
        self.lost += 1

    def on_upstream_writable(self, *, writable: bool) -> None: ...

    def flush(self) -> None: ...


def responses(data: bytes) -> None:
    """A server's bytes, the first of which says how large their pieces are and what was asked."""
    seed, stream = (data[0], data[1:]) if data else (0, b"")
    heard = []
    for step in (len(stream) + 1, seed % 16 + 1):
        pool, sink, transport = _Pool(), _Answer(), _Transport()
        connection = UpstreamConnection(cast("UpstreamPool", pool), ("http", "open.test", 80, ""))
        sink.connection = connection
        connection.connection_made(cast("asyncio.BaseTransport", transport))
        connection.begin(sink, head_request=seed >= 128)
        for piece in cut(stream, step):
            if transport.closed:
                break
            connection.data_received(piece)
        if not transport.closed:
            connection.eof_received()
        connection.connection_lost(None)
        require(sink.ends + sink.lost == 1, "neither an answer nor a loss")
        heard.append((sink.ends, sink.body) if sink.ends else None)
    require(heard[0] == heard[1], "pieces matter")


# A TLS client's first bytes: no exception leaves, nothing is taken for a connection that is none.


class _App(asyncio.Protocol):
    def __init__(self) -> None:
        self.made = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made = True


class _Loop:
    def call_later(self, _delay: float, _callback: Callable[[], None]) -> _Loop:
        return self

    def cancel(self) -> None: ...


_contexts: list[ServerContexts] = []


def hello(data: bytes) -> None:
    """What a client says where TLS should begin, the first byte telling how large its pieces are."""
    if not _contexts:
        _contexts.append(ServerContexts(CertificateAuthority("fuzz")))
    step, stream = (data[0] + 1, data[1:]) if data else (1, b"")
    ends: list[BaseException | None] = []
    app, raw = _App(), _Transport()
    tls = TlsStream(
        app,
        _contexts[0].transparent(),
        loop=cast("asyncio.AbstractEventLoop", _Loop()),
        handshake_seconds=1.0,
        done=ends.append,
    )
    tls.connection_made(cast("Any", raw))
    hook, sys.unraisablehook = sys.unraisablehook, lambda _unraisable: None  # a server name that is not ASCII
    try:
        for piece in cut(stream, step):
            if raw.closed:
                break
            tls.data_received(piece)
    finally:
        sys.unraisablehook = hook
    session = tls.get_extra_info("ssl_object")
    require(isinstance(session, SniSSLObject), "another kind of session")
    arrival = with_sni(Arrival(via="transparent", scheme="https", port=443), session.sni)
    require(arrival.sni_missing == (session.sni is None), "a name that is there and is not")
    tls.connection_lost(None)
    require(not app.made and len(ends) == 1 and ends[0] is not None, "a handshake out of nothing")


# HTTP/2: whatever a client says, each request is judged or refused, and nothing of ours breaks.


class _Egress:
    """As much of an egress as a client connection needs, which allows nothing."""

    identity = "fuzz"

    def __init__(self) -> None:
        self.loop = self
        self.clients = Clients()
        self.stalled = Stalled()
        self.precedents = Precedents()
        self.table = RouteTable((), {})
        self.judged: list[EgressRequest] = []
        self.refused: list[Deny] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, _callback: Callable[..., None], *_arguments: object) -> None: ...

    def must_wait(self, _request: EgressRequest) -> bool:
        return False

    def judge(self, request: EgressRequest, _facts: object) -> Verdict:
        self.judged.append(request)
        return decide(request, self.table)

    def record_refusal(self, deny: Deny, **_where: object) -> None:
        self.refused.append(deny)


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def http2(data: bytes) -> None:
    """What a client says behind its preface, the first byte telling how large its pieces are."""
    step, stream = (data[0] + 1, data[1:]) if data else (1, b"")
    heard = []
    for pieces in ([_PREFACE + stream], [_PREFACE, *cut(stream, step)]):
        egress, transport = _Egress(), _Transport()
        arrival = Arrival(via="connect", scheme="https", port=443, claims=(("SNI", "open.test"),))
        connection = Http2Client(cast("Any", egress), arrival)
        connection.connection_made(cast("Any", transport))
        for piece in pieces:
            if not transport.closed:
                connection.data_received(piece)
        connection.connection_lost(None)
        require(egress.clients.streams == 0, "a stream is counted that is gone")
        require(all(deny.reason != "internal_error" for deny in egress.refused), "something of ours broke")
        for request in egress.judged:
            require(request.path.startswith("/") or request.path == "*", "a path that is none")
            require(parse_authority(request.host).host == request.host, "a host has two spellings")
        heard.append(egress.judged)
    shorter = min(map(len, heard))
    require(heard[0][:shorter] == heard[1][:shorter], "pieces matter")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "requests": requests,
    "responses": responses,
    "policy": policy,
    "hello": hello,
    "http2": http2,
    "frames": written.frames,
    "names": written.names,
    "push": written.push,
    "agents": written.agents,
    "asks": written.asks,
    "workspace": written.workspace,
    "packed": written.packed,
}
