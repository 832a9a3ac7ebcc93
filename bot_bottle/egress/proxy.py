"""The egress proxy of one bottle: listeners, limits, decisions and their record."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from bot_bottle.audit import RecordForm
from bot_bottle.decision import Allow, Deny
from bot_bottle.egress import reload
from bot_bottle.egress.clients import MAX_CLIENTS, Clients
from bot_bottle.egress.content import WITHHELD, ContentGuard, withheld
from bot_bottle.egress.counters import Counters
from bot_bottle.egress.dns import LOOPBACK, DnsDatagrams, DnsStream
from bot_bottle.egress.downstream import ClientConnection
from bot_bottle.egress.intercept import TlsFront, open_tunnel
from bot_bottle.egress.interceptor import Interceptor
from bot_bottle.egress.notice import Changed
from bot_bottle.egress.policy import (
    POLICIES,
    TARGET_POLICIES,
    EgressRequest,
    RouteTable,
    Step,
    Verdict,
    decide,
    first_objection,
    may_object,
    names_agree,
    not_halted,
    sni_present,
)
from bot_bottle.egress.pool import UpstreamPool
from bot_bottle.egress.precedent import Precedent, Precedents
from bot_bottle.egress.roads import system_resolver
from bot_bottle.egress.target import Arrival
from bot_bottle.egress.tls import ServerContexts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Sequence

    from bot_bottle.audit import AuditLog, AuditValue
    from bot_bottle.egress.ca import CertificateAuthority
    from bot_bottle.egress.counters import Tally
    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.metering import Metered
    from bot_bottle.egress.notice import Notice
    from bot_bottle.egress.policy import Policy
    from bot_bottle.egress.pool import Destination
    from bot_bottle.egress.reflection import Answered
    from bot_bottle.egress.roads import Resolver
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.egress.upstream import ResponseSink
    from bot_bottle.egress.websocket import Conversation
    from bot_bottle.sidecar.config import SidecarConfig
    from bot_bottle.sidecar.listeners import ListenerRole
    from bot_bottle.usage import Usage

_MAX_DNS_NAMES = 256
_MAX_RECORDED_PATH = 1024
_BACKLOG = 512
_SWEEP_SECONDS = 1.0
#: How much the kernel holds for us a connection (it doubles this), and so how much one read brings.
_RECEIVE_BUFFER_BYTES = 48 * 1024


class EgressProxy:
    """Everything one bottle's egress shares; made and used on one event loop."""

    def __init__(
        self,
        config: SidecarConfig,
        *,
        audit: AuditLog,
        ca: CertificateAuthority,
        loop: asyncio.AbstractEventLoop,
        resolver: Resolver = system_resolver,
        policies: Sequence[Policy] = POLICIES,
        max_clients: int = MAX_CLIENTS,
    ) -> None:
        self.identity = config.identity
        self.table = RouteTable(config.routes, config.secrets)
        self.counters = Counters(route.host for route in config.routes)
        self.content = ContentGuard(config, loop)
        self.contexts = ServerContexts(ca, speaks_http2=self._speaks_http2)
        self.loop = loop
        self.pool = UpstreamPool(
            loop=loop,
            pins=config.pins,
            upstream_ca_pem=config.upstream_ca_pem,
            roots=config.roots,
            proxy=config.upstream_proxy,
            resolver=resolver,
        )
        #: What serves the ports that are not egress's own (the git gate's).
        self.doors: dict[ListenerRole, Callable[[], asyncio.Protocol]] = {}
        #: Origins of routes whose uses are counted, each with what takes one, if there is one left.
        self.counted: dict[str, Callable[[], bool]] = {}
        self._audit = audit
        self._policies = tuple(policies)
        # Run on every request, whatever went before: those that look at its target and those we do not know.
        self._target_policies = tuple(
            policy for policy in self._policies if policy in TARGET_POLICIES or policy not in POLICIES
        )
        self.precedents = Precedents()
        self.clients = Clients(max_clients)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closers: list[asyncio.AbstractServer | asyncio.BaseTransport | Interceptor] = []
        self._interception = config.interception
        self._dns_names: set[str] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    # Listeners.

    async def serve(self, listeners: Sequence[tuple[ListenerRole, socket.socket]]) -> None:
        """Serve sockets that are bound (UDP) or listening (TCP) already; raises ``OSError``."""
        with_ipv6 = any(sock.family == socket.AF_INET6 for _role, sock in listeners)
        for role, sock in listeners:
            sock.setblocking(False)  # noqa: FBT003 - the library's signature
            await self._serve_one(role, sock, with_ipv6=with_ipv6)
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def _serve_one(self, role: ListenerRole, sock: socket.socket, *, with_ipv6: bool) -> None:
        if role == "dns-udp":
            transport, _protocol = await self.loop.create_datagram_endpoint(
                lambda: DnsDatagrams(self.on_dns_name, with_ipv6=with_ipv6), sock=sock
            )
            self._closers.append(transport)
            return
        # What is accepted inherits it (socket(7)): a thousand stalled uploads must not take a gigabyte.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        if role == "interceptor":
            if self._interception is None:
                raise ValueError("the config names no token for an interceptor")
            self._closers.append(Interceptor(self, sock, self._interception))
            return
        factory = self.protocol_of(role, with_ipv6=with_ipv6)
        server = await self.loop.create_server(factory, sock=sock, backlog=_BACKLOG)
        self._closers.append(server)

    def protocol_of(
        self, role: ListenerRole, *, here: str = LOOPBACK, with_ipv6: bool = False
    ) -> Callable[[], asyncio.Protocol]:
        """Give what serves a connection to a TCP port; ``here`` is what DNS says of any name."""
        factories: dict[ListenerRole, Callable[[], asyncio.Protocol]] = {
            "dns-tcp": lambda: DnsStream(self.on_dns_name, with_ipv6=with_ipv6, here=here),
            "http": lambda: ClientConnection(self, Arrival(via="transparent", scheme="http", port=80)),
            "https": lambda: TlsFront(self, Arrival(via="transparent", scheme="https", port=443)),
            "proxy": lambda: ClientConnection(self, Arrival(via="absolute", scheme="http")),
            **self.doors,
        }
        return factories[role]

    def close(self) -> None:
        """Stop listening and drop every connection."""
        for closer in self._closers:
            closer.close()
        for client in self.clients:
            client.abort()
        for task in tuple(self._tasks):
            task.cancel()
        self.pool.close()
        if self._sweeper:
            self._sweeper.cancel()

    def connect(self, client: ClientConnection, target: bytes, headers: RequestHeaders) -> None:
        """Answer a CONNECT."""
        open_tunnel(self, client, target, headers)

    def spawn(self, coroutine: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Run a coroutine and hold on to it until it is done."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _sweep(self) -> None:
        now = self.loop.time()
        self.clients.sweep(now)
        self.pool.sweep(now)
        self._sweeper = self.loop.call_later(_SWEEP_SECONDS, self._sweep)

    # Routes.

    def decide_by(self, table: RouteTable) -> None:
        """Decide by ``table`` from now on; what was allowed before goes on."""
        self.table = table
        if table.halt is None:
            self.counters.keep(route.host for route in table.routes)
        self.precedents = self.precedents.successor()

    def replace_table(self, table: RouteTable) -> int:
        """Decide by ``table`` from now on; gives how many connections were closed that it does not permit.

        When this returns nothing goes on that the table would not allow: requests under way, upgraded
        connections, and connections (of clients and to upstreams) that wait for requests to a host whose
        routes have changed.
        """
        old = self.table
        self.decide_by(table)

        def successor(request: EgressRequest, route: EgressRoute) -> EgressRoute | None:
            return reload.successor(request, route, old, table, self._policies)

        def changed(host: str) -> bool:
            return table.halt is not None or reload.host_changed(host, old, table)

        cut = 0
        for client in self.clients:
            try:
                cut += client.cut_off(successor, changed)
            except Exception:  # noqa: BLE001 - fail closed: what cannot be judged anew does not go on
                client.abort()
                cut += 1
        return cut + self.pool.drop(changed)

    # Decisions.

    def must_wait(self, request: EgressRequest) -> bool:
        """Tell whether a request waits for content scanning, since the policies have nothing against it."""
        if self.content.ready:
            return False
        return isinstance(decide(request, self.table, self._policies).decision, Allow)

    def judge(self, request: EgressRequest, facts: RequestHeaders) -> Verdict:
        """Decide a request and put the decision on record; what cannot be recorded is refused."""
        verdict = decide(request, self.table, self._policies)
        route = verdict.route
        shown = request
        if route is not None and isinstance(verdict.decision, Allow):
            outcome = self.content.head(request, facts, route)
            if isinstance(outcome, Deny):
                verdict, shown = Verdict(outcome), withheld(request, outcome)
            else:
                verdict = self._with_notices(verdict, request, facts, outcome)
        else:
            shown = self.content.recordable(request)
            verdict = Verdict(deny) if (deny := self.content.carries_secret(request.host)) else verdict
        if self.counted:
            verdict = self._counted(verdict)
        decision = verdict.decision
        injected = _injected(verdict.route) if verdict.route and isinstance(decision, Allow) else None
        try:
            self._record(shown, decision, injected=injected)
        except OSError:
            return Verdict(_unrecorded())
        if verdict.changed and (unrecorded := self.record_notices(request, verdict.changed.notices)):
            return Verdict(unrecorded)
        if verdict.route and isinstance(decision, Allow):
            self.counters.of(verdict.route.host).requests += 1
        else:
            self._tally(request).denied += 1
        return verdict

    def _with_notices(
        self, verdict: Verdict, request: EgressRequest, facts: RequestHeaders, changed: Changed | None
    ) -> Verdict:
        """Add to an allowed request's verdict what goes on in its place, and what is to be said of it."""
        if verdict.route is None:
            return verdict
        stripped = self.content.left_behind(facts, verdict.route, self.table.placeholders)
        if stripped:
            query, kept = (changed.query, changed.kept) if changed else (request.query, facts.kept)
            changed = Changed(
                query=query, kept=kept, notices=(*(changed.notices if changed else ()), *stripped)
            )
        return replace(verdict, changed=changed) if changed else verdict

    def _counted(self, verdict: Verdict) -> Verdict:
        """Take one use of an allowed request's route, and refuse where there is none left."""
        route = verdict.route
        if route is None or isinstance(verdict.decision, Deny):
            return verdict
        use = self.counted.get(route.origin)
        return verdict if use is None or use() else Verdict(_used_up(route))

    def set_precedent(
        self,
        key: tuple[int, bytes, bytes],
        facts: RequestHeaders,
        request: EgressRequest,
        destination: Destination,
        tail: bytes,
    ) -> None:
        """Let an allowed request stand for those that will differ from it in the target alone."""
        route = destination.route
        if route.origin in self.counted:
            return  # each use of it is counted
        if route.on_match == "ask":
            return  # what a human let pass of a head is let pass for a time
        if self.table.candidates(request.host) != (route,):
            return  # which of several routes it is depends on the target
        fields = _fields(request, Allow(rule=route.origin), injected=_injected(route))
        del fields["path"]
        precedent = Precedent(
            table=self.table,
            facts=facts,
            request=request,
            route=route,
            policies=tuple(policy for policy in self._target_policies if may_object(policy, route)),
            destination=destination,
            pool_key=destination.key,
            tail=tail,
            form=RecordForm("request", open_field="path", fields=fields),
        )
        self.precedents.keep(key, precedent)

    def judge_again(self, precedent: Precedent, target: str) -> EgressRequest | None:
        """Decide and record a request that differs from an allowed one in its target alone.

        ``None`` says nothing but that it must be judged from the beginning.
        """
        if precedent.table is not self.table:
            return None
        path, _, query = target.partition("?")
        request = precedent.request.aimed_at(path, query)
        if first_objection(Step(request, precedent.route, self.table), precedent.policies) is not None:
            return None
        if self.content.again(request, precedent.facts, precedent.route) is not None:
            return None
        try:
            self._audit.fill(precedent.form, path[:_MAX_RECORDED_PATH])
        except OSError:
            return None
        self.counters.of(precedent.route.host).requests += 1
        return request

    def judge_local(self, request: EgressRequest) -> Deny | None:
        """Decide and record a request for the name that egress answers itself."""
        verdict = decide_local(request, self.table)
        try:
            self._record(request, verdict or Allow(rule="egress.local"), via="local")
        except OSError:
            return _unrecorded()
        return verdict

    def record_refusal(
        self,
        deny: Deny,
        *,
        decision: str = "deny",
        request: EgressRequest | None = None,
        method: bytes = b"",
        arrival: Arrival | None = None,
        host: str = "",
        port: int = 0,
    ) -> None:
        """Put on record what was refused outside the policies; it is refused whether or not that works."""
        tally = self._tally(request)
        tally.errors += decision == "error"
        tally.denied += decision != "error"
        with contextlib.suppress(OSError):
            if request is not None:
                self._record(self.content.recordable(request), deny, kind=decision)
                return
            host = host or next((name for _where, name in arrival.claims), "") if arrival else host
            secret = self.content.carries_secret(host)
            self._audit.append(
                "request",
                decision=decision,
                reason=deny.reason,
                rule=deny.rule,
                message=secret.message if secret else deny.message,
                scheme=arrival.scheme if arrival else "",
                method=method.decode("latin-1"),
                host=WITHHELD if secret else host,
                port=port or (arrival.port if arrival else 0),
                path="",
                via=arrival.via if arrival else "",
                injected=None,
            )

    def _tally(self, request: EgressRequest | None) -> Tally:
        """Give the tally that a refusal counts for: that of the route which covers its host."""
        covering = self.table.candidates(request.host) if request is not None else ()
        return self.counters.of(covering[0].host) if covering else self.counters.elsewhere

    def guarded(
        self, exchange: Answered, destination: Destination | None, *, head_request: bool
    ) -> ResponseSink:
        """Give who hears the answer: the exchange, behind who reads it for orders, behind a search where its
        route has a credential.
        """
        if destination is None:
            return exchange
        reader = self.content.reader(destination.route)
        if reader is not None:
            from bot_bottle.egress.answers import read_for  # noqa: PLC0415 - loaded with what reads

            record = self.record_event
            exchange = read_for(exchange, reader, destination, head_request=head_request, record=record)
        if destination.needles is None:
            return exchange
        from bot_bottle.egress.reflection import Reflection  # noqa: PLC0415 - only where a credential is used

        host, needles = destination.host, destination.needles

        def note(message: str) -> None:
            self.record_event("answer", host=host, message=message)

        return Reflection(exchange, needles, head_request=head_request, note=note)

    def metered(self, exchange: Answered, destination: Destination | None) -> Metered | None:
        """Give who hears the answer first, where its route says how answers tell what they used."""
        if destination is None or destination.route.usage is None:
            return None
        from bot_bottle.egress.metering import Metered  # noqa: PLC0415 - only where it is said

        return Metered(exchange, destination.route.usage, self._usage_note(destination))

    def _usage_note(self, destination: Destination) -> Callable[[Usage], None]:
        def note(usage: Usage) -> None:
            if self.content.carries_secret(usage.model):
                usage = usage._replace(model="")
            self.counters.of(destination.route.host).used.add(usage)
            self.record_event(
                "usage",
                host=destination.host,
                model=usage.model,
                input_tokens=usage.input,
                cached_tokens=usage.cached,
                output_tokens=usage.output,
            )

        return note

    def record_content(self, request: EgressRequest, deny: Deny) -> None:
        """Put on record that a request was refused by what came behind its head, which was clean."""
        self._tally(request).denied += 1
        with contextlib.suppress(OSError):
            self._record(request, deny)

    def record_notices(self, request: EgressRequest, said: Sequence[Notice]) -> Deny | None:
        """Put on record what is to be said of a request; what cannot be recorded is refused."""
        try:
            for one in said:
                self._audit.append(one.what, host=request.host, method=request.method, **one.fields())
        except OSError:
            return _unrecorded()
        return None

    def conversation(self, destination: Destination) -> Conversation:
        """Give what reads and judges an upgraded connection to ``destination``."""
        route, hear = destination.route, None
        if route.usage is not None:
            from bot_bottle.egress.metering import hears_messages  # noqa: PLC0415 - as in metered

            hear = hears_messages(route.usage, self._usage_note(destination))
        return self.content.conversation(destination.host, route, destination.needles, hear)

    def record_event(self, event: str, **fields: str | int) -> None:
        """Put something on record that decides nothing."""
        with contextlib.suppress(OSError):
            self._audit.append(event, **fields)

    def on_dns_name(self, name: str) -> None:
        """Put a name that was asked for on record, once, and a bounded number of them."""
        if name in self._dns_names or len(self._dns_names) > _MAX_DNS_NAMES:
            return
        self._dns_names.add(name)
        if self.content.carries_secret(name):
            name = WITHHELD
        if len(self._dns_names) > _MAX_DNS_NAMES:
            self.record_event("dns", name="", decision="answered", message="further names are not listed")
        else:
            self.record_event("dns", name=name, decision="answered")

    def allowlist(self) -> dict[str, object]:
        """Give the route table as the bottle may see it: names of credentials, never values."""
        return {
            "identity": self.identity,
            "routes": [
                {
                    "host": route.host,
                    "path_allowlist": list(route.path_allowlist),
                    "methods": list(route.methods),
                    "ports": list(route.effective_ports),
                    "auth": {
                        "scheme": route.auth.scheme,
                        "token_ref": route.auth.token_ref,
                        **({"name": route.auth.name} if route.auth.name else {}),
                    }
                    if route.auth
                    else None,
                    "tls_passthrough": route.tls_passthrough,
                    "http2": route.http2,
                }
                for route in self.table.routes
            ],
        }

    def _speaks_http2(self, host: str) -> bool:
        return any(route.http2 for route in self.table.candidates(host))

    def _record(
        self,
        request: EgressRequest,
        decision: Allow | Deny,
        *,
        kind: str = "deny",
        via: str = "",
        injected: str | None = None,
    ) -> None:
        self._audit.append("request", **_fields(request, decision, kind=kind, via=via, injected=injected))


def _fields(
    request: EgressRequest,
    decision: Allow | Deny,
    *,
    kind: str = "deny",
    via: str = "",
    injected: str | None = None,
) -> dict[str, AuditValue]:
    """List what the record of a decision holds; ``kind`` is ``deny`` or ``error`` for what is refused."""
    denied = decision if isinstance(decision, Deny) else None
    return {
        "decision": kind if denied else "allow",
        "reason": denied.reason if denied else None,
        "rule": decision.rule,
        "message": denied.message if denied else None,
        "scheme": request.scheme,
        "method": request.method,
        "host": request.host,
        "port": request.port,
        "path": request.path[:_MAX_RECORDED_PATH],
        "via": via or request.via,
        "injected": injected,
    }


def _injected(route: EgressRoute) -> str | None:
    return route.auth.token_ref if route.auth else None


def decide_local(request: EgressRequest, table: RouteTable) -> Deny | None:
    """Decide a request for ``_egress.local``: one path, read only, under one name."""
    step = Step(request, None, table)
    if deny := not_halted(step) or names_agree(step) or sni_present(step):
        return deny
    if request.path == "/allowlist" and request.method in {"GET", "HEAD"}:
        return None
    return Deny(
        reason="not_found",
        rule="egress.local",
        message=f"{request.method} {request.path[:100]} is nothing that egress answers",
        next_step="GET http://_egress.local/allowlist shows what is open",
    )


def _used_up(route: EgressRoute) -> Deny:
    return Deny(
        reason="grant_used_up",
        rule=route.origin,
        message=f"what was granted for {route.host} has been used",
        next_step="Ask again with request_egress where the supervise server is at hand, or ask the operator",
    )


def _unrecorded() -> Deny:
    return Deny(
        reason="audit_failed",
        rule="egress.audit",
        message="the decision could not be put on record, so the request is refused",
        next_step="Have the operator free disk space or move a full audit log away, then start again",
    )
