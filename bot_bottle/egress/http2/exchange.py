"""An exchange whose client speaks HTTP/2; what is decided about it is decided where all exchanges are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.egress.exchange import Exchange
from bot_bottle.egress.http2.messages import malformed, write_lines, write_response_fields
from bot_bottle.egress.http2.own import grpc_fields, own_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hpack import HeaderTuple

    from bot_bottle.egress.grammar import StatusLine
    from bot_bottle.egress.headers import RequestHeaders, ResponseHeaders
    from bot_bottle.egress.http2.client import ClientStream
    from bot_bottle.egress.http2.messages import RequestParts
    from bot_bottle.egress.precedent import Precedent, PrecedentKey
    from bot_bottle.egress.upstream import Upstream, UpstreamError


class Http2Exchange(Exchange):
    """The life of one request on one stream."""

    def __init__(
        self,
        stream: ClientStream,
        parts: RequestParts,
        facts: RequestHeaders,
        *,
        key: PrecedentKey,
        precedent: Precedent | None,
    ) -> None:
        super().__init__(stream, parts.method, parts.target, facts, key=key, precedent=precedent)
        self._stream = stream
        self._grpc = self._head_first = parts.grpc
        self._held: list[HeaderTuple] | None = None
        self._came = 0
        # A stream carries one request: it is over with its answer, whether or not the request is whole.
        self.close_after = True

    def on_request_body(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        self._came += len(data)
        super().on_request_body(data)

    def on_request_end(self) -> None:
        """Take the end of the request; raises :class:`BadMessageError` where its length is not what it said.

        Its frames say where it ends (RFC 9113, 8.1.1). A server of HTTP/1.1 that was promised more would take
        the next request on its connection for the rest, and what stands in that one for a request of its own.
        """
        if self.facts.content_length not in {None, self._came}:
            raise malformed("the request's body is not as long as it says", reason="smuggling")
        super().on_request_end()

    def flush(self) -> None:
        """Send what has been gathered to the client."""
        self._send_held()
        super().flush()

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """Say where an answer breaks off what the server said."""
        if error.code >= 0:
            self._stream.code = error.code
        super().on_upstream_lost(error)

    def _attach(self, upstream: Upstream) -> None:
        if self._grpc and not upstream.http2:
            upstream.release()
            self._refuse(502, _NO_GRPC, decision="error")
            self.flush()  # nothing of the client's need come that would bring it on its way
        else:
            super()._attach(upstream)

    def _status_of(self, deny: Deny) -> int:
        # RFC 9113, 9.1.2: the client took a connection for one host for another one's.
        return 421 if deny.rule == "egress.names_agree" else 403

    def _write_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        status = line.status
        if status < 200:
            self._stream.connection.send_headers(self._stream, write_response_fields(status, headers.kept))
            return
        length = None if headers.chunked else headers.content_length
        if status in {204, 304} and self._method != b"HEAD":
            length = None
        # Held until more comes or all has: a gRPC answer of one frame must stay one frame (Trailers-Only).
        self._held = write_response_fields(status, headers.kept, length)

    def _write_whole(self, line: StatusLine, headers: ResponseHeaders, body: bytes) -> None:
        self._write_head(line, headers)
        if body:
            self._write_body(body)
        self._write_end(())

    def _write_body(self, data: bytes) -> None:
        self._send_held()
        self._stream.connection.send_data(self._stream, data)

    def _write_end(self, trailers: Sequence[bytes]) -> None:
        if self._held is not None and not trailers:
            self._send_held(ended=True)
            return
        self._send_held()
        self._stream.connection.end(self._stream, write_lines(trailers))

    def _write_own(
        self, status: int, body: bytes, headers: tuple[tuple[str, str], ...], deny: Deny | None
    ) -> None:
        connection, stream = self._stream.connection, self._stream
        if deny is not None and self._grpc:
            connection.send_headers(stream, grpc_fields(status, deny, headers), ended=True)
            return
        connection.send_headers(stream, own_fields(status, len(body), headers))
        if self._method != b"HEAD":
            connection.send_data(stream, body)
        connection.end(stream)

    def _send_held(self, *, ended: bool = False) -> None:
        fields, self._held = self._held, None
        if fields is not None:
            self._stream.connection.send_headers(self._stream, fields, ended=ended)


_NO_GRPC = Deny(
    reason="upstream_protocol",
    rule="egress.http2",
    message="gRPC needs HTTP/2 on the whole way, and the server speaks HTTP/1.1 only",
    next_step="Ask the operator to check that the host serves gRPC over TLS with ALPN h2",
)
