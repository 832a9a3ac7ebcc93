"""The way back: an answer, a server's or our own, written to the client in its own protocol, framed anew."""

from __future__ import annotations

import json
from time import perf_counter
from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.egress.bodies import LAST_CHUNK, chunk
from bot_bottle.egress.denial import denial_body, denial_headers, own_head
from bot_bottle.egress.grammar import BadMessageError
from bot_bottle.egress.notice import header_lines
from bot_bottle.egress.tunnel import Tunnel
from bot_bottle.refused_credentials import STATUSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.egress.client import Client
    from bot_bottle.egress.counters import Tally
    from bot_bottle.egress.grammar import StatusLine
    from bot_bottle.egress.headers import RequestHeaders, ResponseHeaders
    from bot_bottle.egress.notice import Notice
    from bot_bottle.egress.pool import Destination
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.upstream import Upstream


#: For so long after a client let its server go on, the server's silence may be the client's doing.
LET_ON_SECONDS = 0.2


class Answering:
    """The half of an exchange that its client hears.

    It needs to know of the request what frames its answer: the method, the version, whether all of it has
    come. Bytes of the client's protocol are made in the ``_write_`` methods alone (HTTP/1.1 here).
    """

    # What most exchanges never change stands here once; an instance holds the rest.
    websocket = False
    _request: EgressRequest | None = None
    _destination: Destination | None = None
    _tally: Tally | None = None
    _sent_at = 0.0
    _tunnel: Tunnel | None = None
    _upstream: Upstream | None = None
    _waiting: list[bytes] | None = None
    _dropping = False
    _chunked_out = False
    _response_begun = False
    _response_done = False
    _finished = False
    _notices: tuple[Notice, ...] = ()
    _let_on_at = 0.0

    def __init__(self, client: Client, method: bytes, facts: RequestHeaders, *, http_1_0: bool) -> None:
        self._client = client
        self._method = method
        self.facts = facts
        self._http_1_0 = http_1_0
        self.close_after = not facts.keep_alive
        self.request_done = not facts.has_body

    @property
    def answered(self) -> bool:
        """Whether the whole answer has been given, however much of the request is still to come."""
        return self._response_done

    @property
    def behind(self) -> bool:
        """Whether the client does not keep up, or has only just begun to again."""
        client = self._client
        return client.write_paused or client.proxy.loop.time() - self._let_on_at < LET_ON_SECONDS

    @property
    def over(self) -> bool:
        """Whether nobody hears any more."""
        return self._finished

    @property
    def response_begun(self) -> bool:
        """Whether the client has got any of a final response."""
        return self._response_begun

    # From the upstream.

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """Write the response's head to the client, framed anew."""
        status = line.status
        if self._tally is not None and (status >= 200 or status == 101):
            self._tally.answered(perf_counter() - self._sent_at)
        if status in STATUSES:
            self._client.proxy.credential_refused(self._destination, status)
        if status == 101:
            self._switch_protocols(line, headers)
            return
        self._strip(headers)
        if status >= 200:
            self._response_begun = True
        elif self._http_1_0:
            return  # RFC 9110, 15.2: no interim response to an HTTP/1.0 client
        if self._notices and status >= 200:
            headers.kept.extend(header_lines(self._notices))
        self._write_head(line, headers)

    def _switch_protocols(self, line: StatusLine, headers: ResponseHeaders) -> None:
        if not (self.websocket and headers.upgrade == b"websocket"):
            raise BadMessageError("the server switched protocols unasked", status=502)
        if any(kept.lower().startswith(b"sec-websocket-extensions:") for kept in headers.kept):
            raise BadMessageError("the server chose a WebSocket extension nobody offered", status=502)
        self._strip(headers)
        lines = [line.line, *headers.kept, *header_lines(self._notices)]
        lines.append(b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        self._client.send(b"\r\n".join(lines))
        destination, upstream = self._destination, self._upstream
        if destination is None or upstream is None:
            raise TypeError("no server answers before it is known which")
        self._tunnel = Tunnel(
            self._client.proxy.conversation(destination),
            client=self._client,
            upstream=upstream,
            request=self._judged,
            tally=self._tally,
        )
        self._response_begun = True
        self._client.enter_tunnel(self)

    def on_whole_response(
        self, line: StatusLine, headers: ResponseHeaders, message: bytes, head: int
    ) -> None:
        """Write a response that came at once."""
        size = len(message) - head
        if self._tally is not None:
            self._tally.answered(perf_counter() - self._sent_at)
            self._tally.bytes_in += size
        if line.status in STATUSES:
            self._client.proxy.credential_refused(self._destination, line.status)
        self._response_begun = True
        self._strip(headers)
        if self._notices:
            headers.kept.extend(header_lines(self._notices))
        self._write_whole(line, headers, message[head:])
        self._on_end()

    def on_response_body(self, data: bytes) -> None:
        """Write a piece of the body to the client."""
        if self._tally is not None:
            self._tally.bytes_in += len(data)
        self._write_body(data)

    def on_response_end(self, trailers: Sequence[bytes] = ()) -> None:
        """End the response; the upstream connection is kept only if the request was whole too."""
        self._write_end(trailers)
        self._on_end()

    def _on_end(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if self.request_done:
                upstream.release()
            else:
                upstream.abort()
                self._dropping = True
                self._client.hold_reading(self, hold=False)
        self._response_done = True
        self._finish_if_done()

    def _strip(self, headers: ResponseHeaders) -> None:
        """Leave out cookies where the route says so: a session that a credential opened is as good as it."""
        if self._destination is not None and self._destination.route.strip_cookies:
            headers.kept = [one for one in headers.kept if one[:10].lower() != b"set-cookie"]

    def on_client_bytes(self, data: bytes) -> None:
        """Take bytes of an upgraded connection."""
        if self._tunnel is not None:
            self._tunnel.from_client(data)

    def on_tunnel_data(self, data: bytes) -> None:
        """Take bytes of an upgraded connection."""
        if self._tunnel is not None:
            self._tunnel.from_server(data)

    def on_upstream_writable(self, *, writable: bool) -> None:
        """Read from the client only while the server keeps up."""
        self._client.hold_reading(self, hold=not writable)

    def flush(self) -> None:
        """Send what has been gathered to the client."""
        self._client.flush()

    # How it reads in the client's protocol.

    def _status_of(self, deny: Deny) -> int:  # noqa: ARG002 - for protocols that tell them apart
        """Give the status of a denial by policy."""
        return 403

    def _write_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """Write the head of an interim or final response."""
        lines = [line.line, *headers.kept]
        if line.status >= 200:
            self._frame(lines, line.status, headers)
        lines.append(b"\r\n")
        self._client.send(b"\r\n".join(lines))

    def _write_whole(self, line: StatusLine, headers: ResponseHeaders, body: bytes) -> None:
        """Write a whole final response, whose length its server has said or that has no body."""
        lines = [line.line, *headers.kept]
        self._frame(lines, line.status, headers)
        lines += (b"", body)
        self._client.send(b"\r\n".join(lines))

    def _frame(self, lines: list[bytes], status: int, headers: ResponseHeaders) -> None:
        if headers.content_length is not None and not headers.chunked:
            if status not in {204, 304} or self._method == b"HEAD":
                lines.append(b"Content-Length: %d" % headers.content_length)
        elif self._method != b"HEAD" and status not in {204, 304}:
            if self._http_1_0:
                self.close_after = True
            else:
                self._chunked_out = True
                lines.append(b"Transfer-Encoding: chunked")
        if self.close_after:
            lines.append(b"Connection: close")
        elif self._http_1_0:
            lines.append(b"Connection: keep-alive")

    def _write_body(self, data: bytes) -> None:
        """Write a piece of the response's body; not empty."""
        self._client.send(chunk(data) if self._chunked_out else data)

    def _write_end(self, trailers: Sequence[bytes]) -> None:  # noqa: ARG002 - RFC 9110, 6.5.1: may be dropped
        """Write the end of the response."""
        if self._chunked_out:
            self._client.send(LAST_CHUNK)

    def _write_own(
        self,
        status: int,
        body: bytes,
        headers: tuple[tuple[str, str], ...],
        deny: Deny | None,  # noqa: ARG002 - for protocols that say it in their own way
    ) -> None:
        """Write a whole response of our own with a JSON body, the refusal ``deny`` where it is one."""
        head = own_head(status, len(body), headers, close=self.close_after)
        self._client.send(head if self._method == b"HEAD" else head + body)

    # Answers of our own.

    def _answer_locally(self, request: EgressRequest) -> None:
        proxy = self._client.proxy
        deny = proxy.judge_local(request)
        if deny is not None:
            self._refuse(404 if deny.reason == "not_found" else 403, deny, recorded=True)
            return
        self._respond(200, json.dumps(proxy.allowlist(), indent=2).encode() + b"\n")

    def _refuse(self, status: int, deny: Deny, *, recorded: bool = False, decision: str = "deny") -> None:
        if self._finished or self._response_begun:
            self._client.abort()
            return
        client = self._client
        if not recorded:
            client.proxy.record_refusal(
                deny, decision=decision, request=self._request, method=self._method, arrival=client.arrival
            )
        host = self._request.host if self._request else ""
        body = denial_body(deny, host=host, identity=client.proxy.identity)
        self._respond(status, body, denial_headers(deny, decision=decision), deny)

    def _respond(
        self, status: int, body: bytes, headers: tuple[tuple[str, str], ...] = (), deny: Deny | None = None
    ) -> None:
        self._response_begun = True
        if self.facts.expect_continue and not self.request_done:
            self.close_after = True  # whether the body will come is anyone's guess now (RFC 9110, 10.1.1)
        self._write_own(status, body, headers, deny)
        self._waiting = None
        self._dropping = True
        self._response_done = True
        self._client.hold_reading(self, hold=False)
        self._finish_if_done()

    def _finish_if_done(self) -> None:
        if self._finished or not self._response_done:
            return
        if self.request_done or self.close_after:
            self._finished = True
            self._client.exchange_done(self)

    @property
    def _judged(self) -> EgressRequest:
        if self._request is None:
            raise TypeError("a request is read before it is judged")
        return self._request


def internal_error(error: BaseException) -> Deny:
    """Describe a failure of our own by its kind alone: its text could hold anything."""
    return Deny(
        reason="internal_error",
        rule="egress",
        message=f"egress failed inside ({type(error).__name__}), so the request is refused",
        next_step="Tell the operator; this is a fault in bot-bottle",
    )
