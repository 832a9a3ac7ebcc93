"""One request and its answer: judged, recorded, sent on, streamed back. Every failure ends in a refusal."""

from __future__ import annotations

from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from bot_bottle.decision import Deny
from bot_bottle.egress.answering import Answering, internal_error
from bot_bottle.egress.grammar import BadMessageError
from bot_bottle.egress.headers import head_tail
from bot_bottle.egress.hosts import EGRESS_LOCAL_HOST
from bot_bottle.egress.pool import Destination
from bot_bottle.egress.target import origin_target, read_request, upstream_authority
from bot_bottle.egress.upstream import UpstreamError

if TYPE_CHECKING:
    import asyncio

    from bot_bottle.egress.body_guard import BodyGuard
    from bot_bottle.egress.client import Client
    from bot_bottle.egress.grpc_content import GrpcGuard
    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.metering import Metered
    from bot_bottle.egress.notice import Changed
    from bot_bottle.egress.precedent import Precedent, PrecedentKey
    from bot_bottle.egress.reload import Successor
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.upstream import Upstream

#: How much of a request body waits in memory while its upstream is not connected yet.
_MAX_WAITING_BYTES = 64 * 1024
#: How much of a refused request's body is read and dropped, so that its client gets to the refusal.
_MAX_DROPPED_BYTES = 64 * 1024 * 1024

#: Methods whose repetition does no harm (RFC 9110, 9.2.2); only these are sent again on a new connection.
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS"})


class Exchange(Answering):
    """The life of one request on one client connection.

    What is decided and in which order stands here, once for all protocols. Bytes of the client's protocol are
    made in :class:`Answering`, those of the server's in its :class:`Upstream`.
    """

    # What most exchanges never change stands here once; an instance holds the rest.
    started = False
    _head = b""
    _guard: BodyGuard | GrpcGuard | None = None
    _head_first = False
    _meter: Metered | None = None
    _dialling: asyncio.Task[None] | None = None
    _waiting_bytes = 0
    _body_sent = False
    _body_ended = False
    _sent_on = False
    _dropped = 0
    _tried_again = False

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
        super().__init__(client, method, facts, http_1_0=http_1_0)
        self._target = target
        self._key = key
        self._precedent = precedent
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

    def on_client_writable(self, *, writable: bool) -> None:
        """Read from the server only while the client keeps up."""
        if writable:
            self._let_on_at = self._client.proxy.loop.time()
        if self._upstream is not None:
            self._upstream.resume() if writable else self._upstream.pause()

    @property
    def waiting(self) -> int:
        """How many bytes of the request wait in memory for its server."""
        return self._waiting_bytes + (self._upstream.waiting if self._upstream is not None else 0)

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
        needles = client.proxy.table.needles_for(request.host)
        tail = head_tail(
            authority=upstream_authority(request.scheme, request.host, request.port),
            facts=self.facts,
            injection=injection,
            searched=needles is not None,
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
        # A server that has answered, however badly, is not asked again.
        return error.reason == "upstream_closed" and self._method in _REPEATABLE
