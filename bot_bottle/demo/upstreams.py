"""Scripted upstreams: small HTTP/1.1 servers, with or without TLS, that write down all that reaches them.

They stand in for the outside world in the demo and the tests. What they recorded, not what a client says
it got, is the truth about what left a bottle. One port speaks plain HTTP and TLS (told apart by the first
byte), and bytes that are no HTTP at all are recorded as they are.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from types import TracebackType

    from bot_bottle.demo.authority import Authority

_HEAD_LIMIT = 1 << 20
_IDLE_SECONDS = 30.0
_TLS_HANDSHAKE = 0x16  # RFC 8446, 5.1: the content type every TLS connection starts with


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as it arrived. ``method`` is empty for bytes that are no HTTP; ``raw`` is the head's bytes.

    A message on an upgraded connection is the request that upgraded it, with no ``raw`` and its own ``body``.

    ``local`` is the address and port the client dialled; ``sni`` the name it asked for in TLS.
    """

    server: str
    local: tuple[str, int]
    tls: bool
    sni: str
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes
    body: bytes

    def values(self, name: str) -> list[str]:
        """Give every value of header ``name``, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def host(self) -> str:
        """The Host header, or nothing."""
        return next(iter(self.values("host")), "")


#: Speaks on a connection after it was upgraded; calls its second argument with each message that arrived.
Upgraded: TypeAlias = Callable[[socket.socket, Callable[[bytes], None]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response; an iterable ``body`` is sent chunk by chunk as it is produced (RFC 9112, 7.1).

    With ``upgraded`` it is sent as a head alone, and the connection is that function's until it returns.
    """

    status: int = 200
    content_type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | Iterable[bytes] = b""
    upgraded: Upgraded | None = None


Handler: TypeAlias = Callable[[Seen], Answer]


def json_answer(obj: object, status: int = 200) -> Answer:
    """Answer with ``obj`` as JSON."""
    return Answer(status=status, content_type="application/json", body=json.dumps(obj).encode())


def hello(seen: Seen) -> Answer:
    """Say which server was reached, under which name; the handler of a plain allowed site."""
    return json_answer(
        {"server": seen.server, "host": seen.host, "method": seen.method, "target": seen.target}
    )


class ScriptedServer:
    """Serve ``handler`` on ``listeners``, one thread a connection, until closed."""

    def __init__(
        self,
        name: str,
        handler: Handler = hello,
        *,
        authority: Authority | None = None,
        listeners: tuple[socket.socket, ...] | None = None,
        default_host: str = "localhost",
    ) -> None:
        self.name = name
        self._handler = handler
        self._authority = authority
        self._tls = authority.server_context(default_host) if authority else None
        self._listeners = listeners or (_loopback_listener(),)
        self._lock = threading.Lock()
        self._seen: list[Seen] = []
        self._accepted: list[tuple[str, int]] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._wake_read, self._wake_write = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name=f"{name}-accept", daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return int(self._listeners[0].getsockname()[1])

    @property
    def address(self) -> str:
        """``ADDRESS:PORT`` of the first listener (IPv4), as a pin in the operator's config takes it."""
        return f"{self._listeners[0].getsockname()[0]}:{self.port}"

    @property
    def seen(self) -> tuple[Seen, ...]:
        """Every request so far, oldest first."""
        with self._lock:
            return tuple(self._seen)

    @property
    def accepted(self) -> tuple[tuple[str, int], ...]:
        """The address every connection so far dialled, oldest first, whether or not bytes followed."""
        with self._lock:
            return tuple(self._accepted)

    def close(self) -> None:
        """Stop serving and end every connection; safe to call again."""
        if self._wake_write.fileno() == -1:
            return
        self._wake_write.close()
        self._acceptor.join()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._wake_read.close()
        for listener in self._listeners:
            listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_read, selectors.EVENT_READ)
            for listener in self._listeners:
                listener.settimeout(0)
                selector.register(listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake_read:
                        return
                    if isinstance(key.fileobj, socket.socket):
                        self._take(key.fileobj)

    def _take(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # the client was gone again before we took it
            return
        connection.settimeout(_IDLE_SECONDS)
        local = connection.getsockname()
        with self._lock:
            self._accepted.append((local[0], local[1]))
            self._open.add(connection)
        thread = threading.Thread(target=self._connection, args=(connection,), name=self.name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _connection(self, plain: socket.socket) -> None:
        local = plain.getsockname()
        connection = plain
        try:
            first = plain.recv(1, socket.MSG_PEEK)
            if first and first[0] == _TLS_HANDSHAKE and self._tls:
                connection = self._handshake(plain)
            sni = self._sni_of(connection)
            while self._exchange(connection, (local[0], local[1]), sni):
                pass
        except (OSError, ssl.SSLError):
            pass
        finally:
            with self._lock:
                self._open.discard(plain)
                self._open.discard(connection)
            connection.close()
            plain.close()

    def _handshake(self, plain: socket.socket) -> ssl.SSLSocket:
        assert self._tls is not None  # noqa: S101 - the caller looked
        wrapped = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self._open.discard(plain)
            self._open.add(wrapped)
        wrapped.do_handshake()
        return wrapped

    def _sni_of(self, connection: socket.socket) -> str:
        if self._authority is None or not isinstance(connection, ssl.SSLSocket):
            return ""
        return self._authority.name_of(connection.context)

    def _exchange(self, connection: socket.socket, local: tuple[str, int], sni: str) -> bool:
        """Read one request, record it, answer it; whether another may follow."""
        reader = _Reader(connection)
        raw = reader.head()
        if not raw:
            return False
        method, target, headers = _parse_head(raw)
        seen = Seen(
            server=self.name,
            local=local,
            tls=isinstance(connection, ssl.SSLSocket),
            sni=sni,
            method=method,
            target=target,
            headers=headers,
            raw=raw,
            body=reader.body(headers) if method else b"",
        )
        self._record(seen)
        if not method:
            return False
        answer = self._handler(seen)
        if answer.upgraded:
            connection.sendall(_head(answer))
            answer.upgraded(connection, lambda message: self._record(replace(seen, raw=b"", body=message)))
            return False
        _send(connection, answer, head_only=method == "HEAD")
        return "close" not in ",".join(seen.values("connection")).lower()

    def _record(self, seen: Seen) -> None:
        with self._lock:
            self._seen.append(seen)


class _Reader:
    """Read one request from a connection that is never pipelined (one request, then its answer)."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""

    def head(self) -> bytes:
        """Give the bytes up to and with the empty line, or all there were before the client stopped."""
        data = b""
        while b"\r\n\r\n" not in data and len(data) < _HEAD_LIMIT:
            try:
                more = self._connection.recv(65536)
            except OSError:  # a reset or a timeout after bytes that are no request: still what reached us
                return data
            if not more:
                return data
            data += more
        head, separator, self._rest = data.partition(b"\r\n\r\n")
        return head + separator

    def body(self, headers: tuple[tuple[str, str], ...]) -> bytes:
        """Give the body that ``headers`` announce (RFC 9112, 6.3)."""
        fields = {key.lower(): value for key, value in headers}
        if "100-continue" in fields.get("expect", "").lower():
            self._connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in fields.get("transfer-encoding", "").lower():
            return self._chunked()
        return self._exactly(int(fields.get("content-length", "0")))

    def _exactly(self, count: int) -> bytes:
        while len(self._rest) < count:
            self._more()
        body, self._rest = self._rest[:count], self._rest[count:]
        return body

    def _chunked(self) -> bytes:
        body = b""
        while True:
            size = int(self._line().split(b";")[0], 16)
            if size == 0:
                while self._line():
                    pass
                return body
            body += self._exactly(size)
            self._line()

    def _line(self) -> bytes:
        while b"\r\n" not in self._rest:
            self._more()
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line

    def _more(self) -> None:
        more = self._connection.recv(65536)
        if not more:
            raise ConnectionError("the client stopped in the middle of a body")
        self._rest += more


def _loopback_listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=128)


def _parse_head(raw: bytes) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    lines = raw.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        return "", "", ()
    headers = tuple(
        (key.strip(), value.strip())
        for key, colon, value in (line.partition(":") for line in lines[1:])
        if colon
    )
    return parts[0], parts[1], headers


def _send(connection: socket.socket, answer: Answer, *, head_only: bool) -> None:
    fixed = answer.body if isinstance(answer.body, bytes) else None
    framing = f"Content-Length: {len(fixed)}" if fixed is not None else "Transfer-Encoding: chunked"
    head = _head(answer, f"Content-Type: {answer.content_type}", framing)
    if head_only:
        connection.sendall(head)
        return
    if fixed is not None:
        connection.sendall(head + fixed)
        return
    connection.sendall(head)
    for chunk in _chunks(answer.body):
        connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    connection.sendall(b"0\r\n\r\n")


def _head(answer: Answer, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} Scripted", *fields]
    lines += [f"{key}: {value}" for key, value in answer.headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _chunks(body: bytes | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    for chunk in body:
        if chunk:  # an empty chunk would end the message (RFC 9112, 7.1)
            yield chunk
