"""The egress proxy of one bottle: its listeners, its connections, and the routes they are held to."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from bot_bottle.egress import reload
from bot_bottle.egress.clients import MAX_CLIENTS, Clients
from bot_bottle.egress.decisions import Decisions
from bot_bottle.egress.dns import LOOPBACK, DnsDatagrams, DnsStream
from bot_bottle.egress.downstream import ClientConnection
from bot_bottle.egress.intercept import TlsFront, open_tunnel
from bot_bottle.egress.interceptor import Interceptor
from bot_bottle.egress.memory import give_back
from bot_bottle.egress.policy import POLICIES
from bot_bottle.egress.pool import UpstreamPool
from bot_bottle.egress.roads import system_resolver
from bot_bottle.egress.stalled import Stalled
from bot_bottle.egress.target import Arrival
from bot_bottle.egress.tls import ServerContexts
from bot_bottle.egress.way import bound_unsent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Sequence

    from bot_bottle.audit import AuditLog
    from bot_bottle.egress.ca import CertificateAuthority
    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.policy import Policy
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.roads import Resolver
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.egress.table import RouteTable
    from bot_bottle.sidecar.config import SidecarConfig
    from bot_bottle.sidecar.listeners import ListenerRole

_MAX_DNS_NAMES = 256
_BACKLOG = 512
_SWEEP_SECONDS = 1.0
#: What so many connections held is worth the milliseconds that handing it back takes.
_MANY_CLIENTS = 64
#: So many sweeps after content can be judged, what loading it took for a moment is free.
_SETTLED_SWEEPS = 2
#: More than upstream connections are kept, so that what they held is given back with the rest.
_REST_SECONDS = 35.0
#: How much the kernel holds for us a connection (it doubles this), and so how much one read brings.
_RECEIVE_BUFFER_BYTES = 48 * 1024


class EgressProxy(Decisions):
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
        super().__init__(config, audit=audit, loop=loop, policies=policies)
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
        self.clients = Clients(max_clients)
        #: What is not read from because its other side does not keep up.
        self.stalled = Stalled()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closers: list[asyncio.AbstractServer | asyncio.BaseTransport | Interceptor] = []
        self._interception = config.interception
        self._dns_names: set[str] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._decided, self._worked_at, self._rested = 0, 0.0, True
        self._most_clients, self._loaded_for = 0, 0

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
        bound_unsent(sock)
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
        self._sweeper = self.loop.call_later(_SWEEP_SECONDS, self._sweep)  # first, whatever breaks
        self.clients.sweep(now)
        self.pool.sweep(now)
        self._rest(now)
        self._give_back_what_is_left()

    def _give_back_what_is_left(self) -> None:
        """Hand memory back after many connections have ended, and once what judges content is loaded."""
        here = len(self.clients)
        self._most_clients = max(self._most_clients, here)
        if self.content.ready:
            self._loaded_for += 1
        if self._most_clients - here >= _MANY_CLIENTS or self._loaded_for == _SETTLED_SWEEPS:
            self._most_clients = here
            give_back()

    def _rest(self, now: float) -> None:
        """Hand memory back once nothing has been under way for a while after something was."""
        decided = self._audit.end.seq
        if decided != self._decided or any(client.busy for client in self.clients):
            self._decided, self._worked_at, self._rested = decided, now, False
        elif not self._rested and now - self._worked_at > _REST_SECONDS:
            self._rested = True
            give_back()

    # Routes.

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

    # Names.

    def on_dns_name(self, name: str) -> None:
        """Put a name that was asked for on record, once, and a bounded number of them."""
        if name in self._dns_names or len(self._dns_names) > _MAX_DNS_NAMES:
            return
        self._dns_names.add(name)
        name = self.shown_name(name)
        if len(self._dns_names) > _MAX_DNS_NAMES:
            self.record_event("dns", name="", decision="answered", message="further names are not listed")
        else:
            self.record_event("dns", name=name, decision="answered")

    def _speaks_http2(self, host: str) -> bool:
        return any(route.http2 for route in self.table.candidates(host))
