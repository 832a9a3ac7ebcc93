"""What one sidecar is made of, joined: egress, the git gate, the control socket.

Loaded while the launcher is busy with the CA.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from bot_bottle.egress.proxy import EgressProxy
from bot_bottle.sidecar.orders import Desk

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.audit import AuditLog
    from bot_bottle.decision import Deny
    from bot_bottle.egress.ca import CertificateAuthority
    from bot_bottle.egress.roads import Roads
    from bot_bottle.git_gate.push import Human
    from bot_bottle.git_gate.scanning import PipelockScanner
    from bot_bottle.git_gate.service import GitGate
    from bot_bottle.pipelock.loader import LateEngine
    from bot_bottle.sidecar.config import SidecarConfig
    from bot_bottle.sidecar.control_server import ControlServer
    from bot_bottle.sidecar.listeners import Listeners
    from bot_bottle.sidecar.orders import Answer, Order
    from bot_bottle.sidecar.second_hop import SecondHop
    from bot_bottle.supervise.keeper import Keeper


class Parts:
    """The parts of one sidecar; made and used on one event loop.

    ``folder`` is the sidecar's private one, empty where the config says itself where mirrors lie. Raises
    ``ValueError`` for a key that does not load.
    """

    def __init__(
        self,
        config: SidecarConfig,
        *,
        audit: AuditLog,
        ca: CertificateAuthority,
        loop: asyncio.AbstractEventLoop,
        folder: str = "",
    ) -> None:
        self._audit = audit
        self._folder = folder
        self._halt: Deny | None = None
        self._gate: GitGate | None = None
        self._control: ControlServer | None = None
        self._hop = _begin_hop(config, audit)
        if self._hop is not None:
            config = replace(
                config,
                upstream_proxy=self._hop.proxy,
                upstream_ca_pem=config.upstream_ca_pem + self._hop.ca_pem,
            )
        self._config = config
        self.proxy = EgressProxy(config, audit=audit, ca=ca, loop=loop)
        if self._hop is not None:
            self.proxy.on_table = self._hop.follow
        # Most bottles never knock at git's door: what the gate is made of is loaded for those that do.
        self.proxy.doors["git"] = lambda: self._open_gate().protocol()
        keeper = self._keeper = _make_keeper(config, proxy=self.proxy, audit=audit, loop=loop)
        if config.git is not None:
            self._open_gate()
        self.proxy.doors["supervise"] = keeper.supervisor.protocol if keeper else ClosedDoor
        self._desk = Desk(
            config,
            proxy=self.proxy,
            audit=audit,
            on_halt=self._on_halt,
            on_secrets=self._on_secrets,
            granted=keeper.granted if keeper else tuple,
        )
        if keeper:
            keeper.begin(self._desk)

    async def serve(self, listeners: Listeners) -> None:
        """Serve sockets that were handed over; raises ``OSError`` and ``ValueError``."""
        if self._hop is not None:
            await self._hop.ready()
        await self.proxy.serve([(role, sock) for role, sock in listeners if role != "control"])
        for role, sock in listeners:
            if role == "control":
                await self._serve_control(sock)

    def answer(self, order: Order) -> Answer:
        """Carry out one of the operator's orders."""
        return self._desk.answer(order)

    def close(self) -> None:
        """Drop every connection and stop listening."""
        self.proxy.close()
        if self._hop is not None:
            self._hop.close()
        if self._gate is not None:
            self._gate.close()
        if self._keeper is not None:
            self._keeper.close()
        if self._control is not None:
            self._control.close()

    async def _serve_control(self, sock: object) -> None:
        import socket  # noqa: PLC0415

        from bot_bottle.sidecar.control_server import ControlServer  # noqa: PLC0415 - as the gate

        if self._control is not None or not isinstance(sock, socket.socket):
            raise ValueError("a sidecar has one control socket")

        async def answer(order: Order) -> Answer:
            return self.answer(order)

        server: ControlServer | None = None

        def on_record() -> None:
            if server is not None:
                server.grew()

        server = self._control = ControlServer(answer, self._audit.watch(on_record))
        await server.serve(sock)

    def _open_gate(self) -> GitGate:
        if self._gate is None:
            engine = self.proxy.content.engine
            self._gate = make_gate(
                self._config,
                self._audit,
                engine,
                roads=self.proxy.pool.roads,
                folder=self._folder,
                human=self._keeper,
            )
            self._gate.halt(self._halt)
        return self._gate

    def _on_halt(self, halt: Deny | None) -> None:
        self._halt = halt
        if halt is not None and self._keeper is not None:
            self._keeper.end_all()
        if self._gate is not None:
            self._gate.halt(halt)

    def _on_secrets(self, config: SidecarConfig) -> None:
        self._config = config
        self.proxy.content.guard(self._config.guarded())
        if self._gate is not None:
            self._gate.scan_with(_scanner_maker(self._config, self.proxy.content.engine))


def _begin_hop(config: SidecarConfig, audit: AuditLog) -> SecondHop | None:
    settings = config.second_hop
    if settings is None:
        return None
    from bot_bottle.sidecar.second_hop import SecondHop  # noqa: PLC0415 - for bottles that ask for it

    def note(message: str) -> None:
        with contextlib.suppress(OSError):
            audit.append("second_hop", message=message)

    # Git's upstreams are the gate's to reach, by its own policy and scan.
    bypass = [remote.upstream_host for remote in config.git.remotes] if config.git else []
    return SecondHop(settings, config.routes, bypass=bypass, note=note)


def _make_keeper(
    config: SidecarConfig, *, proxy: EgressProxy, audit: AuditLog, loop: asyncio.AbstractEventLoop
) -> Keeper | None:
    if config.supervise is None:
        return None
    from bot_bottle.supervise.keeper import Keeper  # noqa: PLC0415 - for bottles that may ask

    return Keeper(config.supervise, proxy=proxy, audit=audit, loop=loop)


class ClosedDoor(asyncio.Protocol):
    """Serves a port where nothing is to be had: the connection ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """End it."""
        cast("asyncio.Transport", transport).abort()


def make_gate(
    config: SidecarConfig,
    audit: AuditLog,
    engine: Callable[[], LateEngine],
    *,
    roads: Roads,
    folder: str = "",
    human: Human | None = None,
) -> GitGate:
    """Make the git gate; ``folder`` is the sidecar's private one, if not the launcher says where mirrors lie.

    ``engine`` gives the one rule engine of the sidecar; it is asked for at the first push. ``roads`` are
    egress's: where the operator's proxy is on the way to an upstream, git is led there. Raises
    ``ValueError`` for a key that does not load.
    """
    from bot_bottle.git_gate.service import GitGate  # noqa: PLC0415 - with asyncio's streams, git's rules

    settings = config.git
    if settings is not None and folder:
        settings = replace(settings, folder=f"{folder}/git-gate")
    return GitGate(
        settings,
        audit=audit,
        scanner=_scanner_maker(config, engine),
        pins=config.pins,
        upstream_ca_pem=config.upstream_ca_pem,
        roads=lambda host: roads if roads.around(host) else None,
        human=human,
    )


def _scanner_maker(config: SidecarConfig, engine: Callable[[], LateEngine]) -> Callable[[], PipelockScanner]:
    def make() -> PipelockScanner:
        from bot_bottle.git_gate.scanning import PipelockScanner  # noqa: PLC0415 - loads a native library

        return PipelockScanner(config.guarded(), placeholders=(), engine=engine())

    return make
