"""One request and its answer: judged, recorded, sent on, streamed back. Every failure ends in a refusal."""

from __future__ import annotations

import json
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.egress.bodies import LAST_CHUNK, chunk
from bot_bottle.egress.denial import denial_body, denial_headers, own_head
from bot_bottle.egress.grammar import BadMessageError
from bot_bottle.egress.headers import head_tail
from bot_bottle.egress.notice import header_lines
from bot_bottle.egress.pool import Destination
from bot_bottle.egress.target import origin_target, read_request, upstream_authority
from bot_bottle.egress.tunnel import Tunnel
from bot_bottle.egress.upstream import UpstreamError
from bot_bottle.sidecar.config import EGRESS_LOCAL_HOST

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from bot_bottle.egress.body_guard import BodyGuard
    from bot_bottle.egress.client import Client
    from bot_bottle.egress.counters import Tally
    from bot_bottle.egress.grammar import StatusLine
    from bot_bottle.egress.grpc_content import GrpcGuard
    from bot_bottle.egress.headers import RequestHeaders, ResponseHeaders
    from bot_bottle.egress.metering import Metered
    from bot_bottle.egress.notice import Changed, Notice
    from bot_bottle.egress.policy import EgressRequest
    from bot_bottle.egress.precedent import Precedent, PrecedentKey
    from bot_bottle.egress.reload import Successor
    from bot_bottle.egress.upstream import Upstream

#: How much of a request body waits in memory while its upstream is not connected yet.
_MAX_WAITING_BYTES = 64 * 1024
#: How much of a refused request's body is read and dropped, so that its client gets to the refusal.
_MAX_DROPPED_BYTES = 64 * 1024 * 1024

#: Methods whose repetition does no harm (RFC 9110, 9.2.2); only these are sent again on a new connection.
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Exchange:
    """The life of one request on one client connection.

    What is decided and in which order stands here, once for all protocols. Bytes of the client's protocol are
    made in the ``_write_`` methods alone (HTTP/1.1 here), those of the server's in its :class:`Upstream`.
    """

    # What most exchanges never change stands here once; an instance holds the rest.
    started = False
    websocket = False
    _request: EgressRequest | None = None
    _destination: Destination | None = None
    _tally: Tally | None = None
    _sent_at = 0.0
    _head = b""
    _guard: BodyGuard | GrpcGuard | None = None
    _head_first = False
    _tunnel: Tunnel | None = None
    _meter: Metered | None = None
    _upstream: Upstream | None = None
    _dialling: asyncio.Task[None] | None = None
    _waiting: list[bytes] | None = None
    _waiting_bytes = 0
    _body_sent = False
    _body_ended = False
    _sent_on = False
    _dropping = False
    _dropped = 0
    _chunked_out = False
    _tried_again = False
    _response_begun = False
    _response_done = False
    _finished = False
    _notices: tuple[Notice, ...] = ()

    def __init__(
        self,
        client: Client,
        method: bytes,
        target: bytes,
        facts: RequestHeaders,
        *,
        key: PrecedentKey,
        http_1_0: bool = False,
        precedent: Precedent | None = None,
    ) -> None:
        """Take a request; ``key`` is what its precedent is kept under."""
        self._client = client
        self._method = method
        self._target = target
        self.facts = facts
        self._key = key
        self._http_1_0 = http_1_0
        self._precedent = precedent
        self.close_after = not facts.keep_alive
        self.request_done = not facts.has_body
        if facts.upgrade == b"websocket" and method == b"GET" and not http_1_0:
            if facts.has_body:
                raise BadMessageError("a WebSocket handshake has no body")
            self.websocket = True

    # From the client.

    def start(self) -> None:
        """Judge the request and send it on its way; called once, when it is this request's turn."""
        self.started = True
        self._begin()

    def _begin(self) -> None:
        if self._finished:
            return  # given up while it waited
        try:
            self._start()
        except BadMessageError as error:
            self._refuse(error.status, error.deny)
        except Exception as error:  # noqa: BLE001 - fail closed: whatever breaks, the request is refused
            self._let_go()
            self._refuse(500, internal_error(error))

    def on_request_body(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        if self._dropping:
            self._dropped += len(data)
            if self._dropped > _MAX_DROPPED_BYTES:
                self._client.abort()
        elif self._guard is None:
            self._wait_with(data)
        else:
            self._pass_on(self._guard.feed(data))

    def on_request_end(self) -> None:
        """Take the end of the request."""
        self.request_done = True
        if self._guard is not None and not self._dropping:
            self._pass_on(self._guard.finish(), last=True)
        self._finish_if_done()

    def _pass_on(self, passed: bytes | Deny, *, last: bool = False) -> None:
        """Send on what was judged of the body, with the head where that has not gone yet."""
        if isinstance(passed, Deny):
            self._refuse_content(passed)
            return
        guard = self._guard
        if guard is not None and guard.notices:
            said, guard.notices = guard.notices, ()
            if unrecorded := self._client.proxy.record_notices(self._judged, said):
                self._refuse_content(unrecorded)
                return
            self._notices += said
        self._body_ended = last
        if self._tally is not None:
            self._tally.bytes_out += len(passed)
        if self._upstream is not None:
            if passed:
                self._body_sent = True
                self._upstream.send_body(passed)
            if last:
                self._upstream.end_body()
            return
        if passed:
            self._wait_with(passed)
        if not self._sent_on and (passed or last):
            self._send_on()

    def _wait_with(self, data: bytes) -> None:
        """Keep bytes of the body until there is somebody to take them."""
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _MAX_WAITING_BYTES:
            self._client.hold_reading(self, hold=True)

    def on_client_bytes(self, data: bytes) -> None:
        """Take bytes of an upgraded connection."""
        if self._tunnel is not None:
            self._tunnel.from_client(data)

    def on_client_writable(self, *, writable: bool) -> None:
        """Read from the server only while the client keeps up."""
        if self._upstream is not None:
            self._upstream.resume() if writable else self._upstream.pause()

    def abandon(self) -> None:
        """Give up: the client is gone or broke its own request."""
        self._finished = True
        if self._tunnel is not None:
            self._tunnel.on_client_lost()
            self._upstream = None
        self._let_go()

    def cut_off(self, successor: Successor) -> bool:
        """Drop a request that was allowed before and may not go on now; says whether that was so.

        Its upstream connection is gone when this returns. One not judged yet is judged when its turn comes.
        """
        request, destination = self._request, self._destination
        if self._finished or self._response_done or request is None or destination is None:
            return False
        route = successor(request, destination.route)
        if route is not None:
            self._destination = destination._replace(route=route)
            return False
        self._finished = True
        self._let_go()
        return True

    @property
    def answered(self) -> bool:
        """Whether the whole answer has been given, however much of the request is still to come."""
        return self._response_done

    @property
    def response_begun(self) -> bool:
        """Whether the client has got any of a final response."""
        return self._response_begun

    def refuse(self, status: int, deny: Deny) -> None:
        """Answer with a refusal and close, because of what came behind this request's head."""
        self.close_after = True
        self._let_go()
        self._refuse(status, deny)

    # Inside.

    def _let_go(self) -> None:
        if self._meter is not None:
            self._meter.settle()
        if self._dialling is not None:
            self._dialling.cancel()
            self._dialling = None
        if self._upstream is not None:
            self._upstream.abort()
            self._upstream = None

    def _start(self) -> None:
        client = self._client
        precedent = self._precedent
        if precedent is not None:
            request = client.proxy.judge_again(precedent, self._target.decode("ascii"))
            if request is not None:
                self._request = request
                self._head = b" ".join((self._method, self._target, precedent.tail))
                self._send_to(precedent.destination)
                return
        request = read_request(
            client.arrival,
            method=self._method.decode("ascii"),
            target=self._target.decode("ascii"),
            headers=self.facts,
            http_1_0=self._http_1_0,
        )
        request = client.proxy.table.placeholders.noted(request, self.facts.block)
        self._request = request
        if request.host == EGRESS_LOCAL_HOST:
            self._answer_locally(request)
            return
        if client.proxy.must_wait(request):
            client.proxy.content.when_ready(self._go_on)
            return
        verdict = client.proxy.judge(request, self.facts)
        if isinstance(verdict.decision, Deny):
            self._refuse(self._status_of(verdict.decision), verdict.decision, recorded=True)
            return
        route = verdict.route
        if route is None:
            raise TypeError("an allowed request has a route")
        if verdict.changed is not None:
            self._change(verdict.changed, request)
        injection = client.proxy.table.injection(route)
        # What cannot be searched for in the answer is never sent.
        needles = client.proxy.table.needles() if injection is not None else None
        tail = head_tail(
            authority=upstream_authority(request.scheme, request.host, request.port),
            facts=self.facts,
            injection=injection,
            cookies=not route.strip_cookies,
            websocket=self.websocket,
        )
        target = origin_target(self._target.decode("ascii")).encode("ascii")
        if injection is not None:
            target = injection.aimed(target)
        self._head = b" ".join((self._method, target, tail))
        destination = Destination(
            scheme=request.scheme,
            host=request.host,
            port=request.port,
            route=route,
            http2=route.http2 and request.scheme == "https" and not self.websocket,
            needles=needles,
        )
        plain = target == self._target and verdict.changed is None
        if plain and not (self.websocket or self._http_1_0 or target == b"*"):
            client.proxy.set_precedent(self._key, self.facts, request, destination, tail)
        self._send_to(destination)

    def _change(self, changed: Changed, request: EgressRequest) -> None:
        """Go on with what was made of the head that came."""
        self._notices = changed.notices
        self.facts = replace(self.facts, kept=changed.kept)
        if changed.query != request.query:
            path, _mark, query = self._target.partition(b"?")
            if query != request.query.encode("ascii"):
                raise ValueError("the query that was judged is not the one that came")
            self._target = path + b"?" + changed.query.encode("ascii")

    def _go_on(self) -> None:
        """Start anew, now that content can be judged."""
        self._begin()
        self._client.flush()

    def _send_to(self, destination: Destination) -> None:
        """Send the head on its way, or, where a body comes, wait for the first of it that may leave."""
        self._destination = destination
        self._tally = self._client.proxy.counters.of(destination.route.host)
        self._tally.bytes_out += len(self._head)
        if not self.facts.has_body:
            self._send_on()
            return
        self._guard = guard = self._client.proxy.content.body(self._judged, self.facts, destination.route)
        if self.facts.expect_continue or self._head_first:
            self._send_on()  # its server says whether it wants the body at all, or speaks first
        waiting, self._waiting, self._waiting_bytes = self._waiting or (), None, 0
        self._client.hold_reading(self, hold=False)
        for data in waiting:
            if not self._dropping:
                self._pass_on(guard.feed(data))
        if self.request_done and not self._dropping:
            self._pass_on(guard.finish(), last=True)

    def _send_on(self) -> None:
        if self._finished:
            return  # cut off while its body was coming
        destination = self._destination
        if destination is None:
            raise TypeError("nothing is sent before it is known where to")
        self._sent_on = True
        self._sent_at = perf_counter()
        held = self._client.proxy.pool.take(destination.key)
        if held is not None:
            self._attach(held)
        else:
            self._dial(destination)

    @property
    def _judged(self) -> EgressRequest:
        if self._request is None:
            raise TypeError("a request is read before it is judged")
        return self._request

    def _refuse_content(self, deny: Deny) -> None:
        """Refuse because of what the body says; of it nothing that was objected to has left."""
        self._client.proxy.record_content(self._judged, deny)
        self._let_go()
        self._refuse(403, deny, recorded=True)

    def _dial(self, destination: Destination) -> None:
        self._dialling = self._client.proxy.spawn(self._connect(destination))

    async def _connect(self, destination: Destination) -> None:
        try:
            upstream = await self._client.proxy.pool.dial(destination)
        except UpstreamError as error:
            self.on_upstream_lost(error)
            self._client.flush()
            return
        except Exception as error:  # noqa: BLE001 - fail closed
            self._refuse(500, internal_error(error))
            self._client.flush()
            return
        finally:
            self._dialling = None
        if self._finished:
            upstream.abort()
        else:
            self._attach(upstream)

    def _attach(self, upstream: Upstream) -> None:
        client = self._client
        self._upstream = upstream
        head_request = self._method == b"HEAD"
        self._meter = client.proxy.metered(self, self._destination)
        sink = client.proxy.guarded(self._meter or self, self._destination, head_request=head_request)
        upstream.begin(sink, head_request=head_request, chunked=self.facts.chunked)
        if self.facts.has_body:
            waiting, self._waiting = self._waiting or (), None
            self._waiting_bytes = 0
            self._body_sent = self._body_sent or bool(waiting)
            client.hold_reading(self, hold=False)  # before a server that does not keep up says otherwise
            upstream.send_request(self._head, waiting, ended=self._body_ended)
        else:
            upstream.send_request(self._head, ended=True)
        if client.write_paused:
            upstream.pause()

    # From the upstream.

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """Write the response's head to the client, framed anew."""
        status = line.status
        if self._tally is not None and (status >= 200 or status == 101):
            self._tally.answered(perf_counter() - self._sent_at)
        if status == 101:
            self._switch_protocols(line, headers)
            return
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

    def on_response_body(self, data: bytes) -> None:
        """Write a piece of the body to the client."""
        if self._tally is not None:
            self._tally.bytes_in += len(data)
        self._write_body(data)

    def on_response_end(self, trailers: Sequence[bytes] = ()) -> None:
        """End the response; the upstream connection is kept only if the request was whole too."""
        self._write_end(trailers)
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

    def on_tunnel_data(self, data: bytes) -> None:
        """Take bytes of an upgraded connection."""
        if self._tunnel is not None:
            self._tunnel.from_server(data)

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """Try once more where that is safe, or tell the client."""
        upstream, self._upstream = self._upstream, None
        if self._finished:
            return
        if self._tunnel is not None:
            self._tunnel.on_server_lost()
            return
        if self._response_begun:
            self._client.flush()
            self._client.abort()  # a truncated message must not look whole
            return
        if upstream is not None and self._may_try_again(upstream, error) and self._destination is not None:
            self._tried_again = error.unprocessed
            self._dial(self._destination)  # the server closed an idle connection as we used it
            return
        deny = Deny(
            reason=error.reason,
            rule="egress.addresses" if error.denied else "egress.upstream",
            message=str(error),
            next_step="Ask the operator; ssrf_ip_allowlist of the route or a pin opens an internal address"
            if error.denied
            else "Try again later, or ask the operator to check the host from outside the bottle",
        )
        self._refuse(403 if error.denied else 502, deny, decision="deny" if error.denied else "error")

    def _may_try_again(self, upstream: Upstream, error: UpstreamError) -> bool:
        """Tell whether a request may be sent once more: it was not looked at, or does no harm twice."""
        if not upstream.reused or not self.request_done or self._body_sent:
            return False
        if error.code >= 0:  # a word about this one request, and not the end of an idle connection
            return error.unprocessed and not self._tried_again
        return self._method in _REPEATABLE

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


def internal_error(error: BaseException) -> Deny:
    """Describe a failure of our own by its kind alone: its text could hold anything."""
    return Deny(
        reason="internal_error",
        rule="egress",
        message=f"egress failed inside ({type(error).__name__}), so the request is refused",
        next_step="Tell the operator; this is a fault in bot-bottle",
    )
