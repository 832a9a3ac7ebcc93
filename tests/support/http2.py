"""Both ends of HTTP/2 over real TLS, from the `h2` library: a server with a script and a client that asks."""

from __future__ import annotations

import contextlib
import ssl
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

Fields: TypeAlias = list[tuple[bytes, bytes]]


@dataclass(kw_only=True)
class Request:
    """A request as a server got it."""

    stream: int
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name.encode()].decode("latin-1")

    def get(self, name: str) -> str | None:
        value = dict(self.fields).get(name.encode())
        return None if value is None else value.decode("latin-1")


@dataclass(kw_only=True)
class Answer:
    """A response as a client got it."""

    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list[Fields] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None
    ended_with_head: bool = False

    @property
    def status(self) -> int:
        return int(self[":status"])

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name.encode()].decode("latin-1")

    def get(self, name: str) -> str | None:
        value = dict(self.fields).get(name.encode())
        return None if value is None else value.decode("latin-1")

    @property
    def reason(self) -> str | None:
        return self.get("x-bot-bottle-reason")


class Wire:
    """One end of a connection: the library's state, its socket, and what has not been looked at."""

    def __init__(self, sock: socket.socket, *, client: bool, validate: bool = True, **settings: int) -> None:
        self.sock = sock
        self.h2 = H2Connection(
            H2Configuration(
                client_side=client,
                validate_outbound_headers=validate,
                normalize_outbound_headers=validate,
                header_encoding=None,
            )
        )
        values = {SettingCodes[name.upper()]: value for name, value in settings.items()}
        self.h2.local_settings = Settings(client=client, initial_values=values)
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def raw(self, data: bytes) -> None:
        self.flush()
        self.sock.sendall(data)

    def receive(self) -> list[Event] | None:
        """Read once; ``None`` is the end."""
        data = self.sock.recv(65536)
        if not data:
            return None
        events = list(self.h2.receive_data(data))
        self.flush()
        return events


class Client(Wire):
    """A client; answers by stream."""

    def __init__(self, sock: socket.socket, *, credit: bool = True, **settings: Any) -> None:
        super().__init__(sock, client=True, **settings)
        self.answers: dict[int, Answer] = defaultdict(Answer)
        self.going: ConnectionTerminated | None = None
        self.closed = False
        self._credit = credit

    def request(
        self,
        host: str,
        path: str = "/",
        method: str = "GET",
        *,
        extra: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        end: bool = True,
        scheme: str = "https",
    ) -> int:
        """Begin a request; gives its stream."""
        fields = [(":method", method), (":scheme", scheme), (":authority", host), (":path", path), *extra]
        return self.fields(fields, body=body, end=end)

    def fields(
        self, fields: Iterable[tuple[str, str]], *, body: bytes | None = None, end: bool = True
    ) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, list(fields), end_stream=end and body is None)
        self.flush()
        if body is not None:
            self.send(stream, body, end=end)
        return stream

    def send(self, stream: int, body: bytes, *, end: bool = False) -> int:
        """Send as much as there is room for, reading meanwhile; gives how much that was."""
        sent = 0
        while sent < len(body):
            room = min(self.h2.local_flow_control_window(stream), 16384)
            if room <= 0:
                if not self.step():
                    return sent
                continue
            piece = body[sent : sent + room]
            self.h2.send_data(stream, piece)
            self.flush()
            sent += len(piece)
        if end:
            self.h2.end_stream(stream)
            self.flush()
        return sent

    def step(self) -> bool:
        """Read once and take what came; says whether the connection goes on."""
        try:
            events = self.receive()
        except H2Error:
            self.flush()
            raise
        if events is None:
            self.closed = True
            return False
        for event in events:
            self._take(event)
        self.flush()
        return True

    def _take(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self.going = event
            return
        answer = self.answers[int(getattr(event, "stream_id", 0) or 0)]
        if isinstance(event, ResponseReceived):
            answer.fields = list(event.headers or ())
            answer.ended_with_head = event.stream_ended is not None
        elif isinstance(event, InformationalResponseReceived):
            answer.interim.append(list(event.headers or ()))
        elif isinstance(event, DataReceived):
            answer.body += event.data or b""
            if self._credit and event.flow_controlled_length:
                with contextlib.suppress(H2Error):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        elif isinstance(event, TrailersReceived):
            answer.trailers = list(event.headers or ())
        elif isinstance(event, StreamEnded):
            answer.ended = True
        elif isinstance(event, StreamReset):
            answer.reset = int(event.error_code or 0)

    def wait(self, stream: int, until: Callable[[Answer], object] | None = None) -> Answer:
        """Read until an answer is over, or ``until`` holds."""
        done = until or (lambda answer: answer.ended or answer.reset is not None)
        while not done(self.answers[stream]):
            if not self.step():
                break
        return self.answers[stream]

    def get(self, host: str, path: str = "/", **fields: Any) -> Answer:
        return self.wait(self.request(host, path, **fields))

    def until_closed(self) -> None:
        """Read until the connection is over, however it ends."""
        with contextlib.suppress(ConnectionError, ssl.SSLError, H2Error):
            while self.step():
                pass
        self.closed = True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


class Server(Wire):
    """A server's end of one connection."""

    def __init__(self, sock: socket.socket, **settings: Any) -> None:
        super().__init__(sock, client=False, **settings)
        self.requests: dict[int, Request] = {}

    def answer(
        self,
        stream: int,
        status: int = 200,
        body: bytes = b"",
        *,
        extra: Iterable[tuple[str, str]] = (),
        trailers: Iterable[tuple[str, str]] = (),
        end: bool = True,
    ) -> None:
        """Answer whole, or leave it open."""
        trailing = list(trailers)
        self.h2.send_headers(
            stream, [(":status", str(status)), *extra], end_stream=end and not body and not trailing
        )
        self.flush()
        if body:
            self.send(stream, body, end=end and not trailing)
        if trailing:
            self.h2.send_headers(stream, trailing, end_stream=True)
        self.flush()

    def send(self, stream: int, body: bytes, *, end: bool = False) -> None:
        """Send a body as its receiver makes room for it."""
        sent = 0
        while sent < len(body):
            room = min(self.h2.local_flow_control_window(stream), 16384)
            if room <= 0:
                events = self.receive()
                if events is None or any(
                    isinstance(event, StreamReset) and event.stream_id == stream for event in events
                ):
                    raise ConnectionError("the receiver went away")
                continue
            piece = body[sent : sent + room]
            sent += len(piece)
            self.h2.send_data(stream, piece, end_stream=end and sent == len(body))
            self.flush()

    def take(self, event: Event) -> Request | None:
        """Note what came; gives a request that is whole now."""
        stream = int(getattr(event, "stream_id", 0) or 0)
        if isinstance(event, RequestReceived):
            self.requests[stream] = Request(stream=stream, fields=list(event.headers or ()))
        elif isinstance(event, DataReceived) and stream in self.requests:
            self.requests[stream].body += event.data or b""
            with contextlib.suppress(H2Error):
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, stream)
        elif isinstance(event, TrailersReceived):
            self.requests[stream].trailers = list(event.headers or ())
        elif isinstance(event, StreamEnded):
            return self.requests.get(stream)
        return None


def serve(
    answer: Callable[[Server, Request], None],
    *,
    on_event: Callable[[Server, Event], None] | None = None,
    **settings: Any,
) -> tuple[Callable[[socket.socket], None], list[Request]]:
    """Make an upstream's handler: ``answer`` gets each request once it is whole."""
    seen: list[Request] = []

    def handler(sock: socket.socket) -> None:
        server = Server(sock, **settings)
        try:
            while (events := server.receive()) is not None:
                for event in events:
                    if on_event is not None:
                        on_event(server, event)
                    request = server.take(event)
                    if request is not None:
                        seen.append(request)
                        answer(server, request)
                server.flush()
        except H2Error as error:
            server.flush()
            raise ValueError(f"HTTP/2 is not spoken here ({type(error).__name__})") from error

    return handler, seen
