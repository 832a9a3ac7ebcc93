"""What the operator may order of a running sidecar, and how each order is carried out.

An order is one JSON object with a name under ``order``; its answer is one with ``ok``. Whoever can reach
the control socket is the operator (:mod:`bot_bottle.sidecar.control_server`), so an order is obeyed; it is
still judged, since a table that is half right must never be half taken.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.decision import Deny
from bot_bottle.egress import reload
from bot_bottle.egress.table import RouteTable
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import MOST_FORMER, SidecarConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from bot_bottle.audit import AuditLog
    from bot_bottle.egress.proxy import EgressProxy
    from bot_bottle.egress.routes import EgressRoute

Order: TypeAlias = "Mapping[str, object]"
Answer: TypeAlias = dict[str, object]

#: How many lines of a change are put on record; the digests stand for the rest.
_MAX_LINES = 100
_MAX_SECRETS = 256
#: What a launcher may tell of the agent's session.
SESSION_STATES = ("started", "resumed", "attached", "detached", "frozen", "thawed", "timed out", "ended")
_MAX_SECRET_CHARS = 64 * 1024

HALT = Deny(
    reason="panic",
    rule="operator.panic",
    message="the operator has stopped everything that leaves this bottle",
    next_step="Wait for the operator; bot-bottle panic --lift opens the routes again",
)


class OrderError(ValueError):
    """An order that is not carried out; the text says why, without any value of the order's."""


class Desk:
    """Carries out orders on one sidecar. Used on the sidecar's loop; what an order changes holds at once."""

    def __init__(
        self,
        config: SidecarConfig,
        *,
        proxy: EgressProxy,
        audit: AuditLog,
        on_halt: Callable[[Deny | None], None] = lambda _halt: None,
        on_secrets: Callable[[SidecarConfig], None] = lambda _config: None,
        granted: Callable[[], tuple[EgressRoute, ...]] = tuple,
    ) -> None:
        """``on_halt`` and ``on_secrets`` tell the sidecar's other parts of a stop and of new credentials.

        ``granted`` gives the routes that hold beside those of the manifest.
        """
        self._granted = granted
        self._proxy = proxy
        self._audit = audit
        self._on_halt = on_halt
        self._on_secrets = on_secrets
        self._identity = config.identity
        self._config = config
        #: Names of those that are good no more, until they are renewed.
        self._ended: frozenset[str] = frozenset()
        self._began = time.monotonic()
        #: The manifest's routes; with what is granted they hold, or will again once a stop is lifted.
        self._table = proxy.table
        self._orders: dict[str, Callable[[Order], Answer]] = {
            "ping": lambda _order: {},
            "status": self._status,
            "reload": self._reload,
            "renew": self._renew,
            "expire": self._expire,
            "panic": self._panic,
            "lift": self._lift,
            "session": self._session,
        }

    def take(self, name: str, carry_out: Callable[[Order], Answer]) -> None:
        """Take one more kind of order; ``carry_out`` may raise :class:`OrderError`."""
        self._orders[name] = carry_out

    def refresh(self, *, cut: bool = True) -> int:
        """Decide by the manifest's routes and what is granted now; gives how many connections were closed.

        Without ``cut`` what was allowed before goes on.
        """
        if self._proxy.table.halt is not None:
            return 0
        granted = self._granted()
        table = self._table
        if granted or table.ended != self._ended:
            table = self._made((*table.routes, *granted), ended=self._ended)
        if cut:
            return self._proxy.replace_table(table)
        self._proxy.decide_by(table)
        return 0

    def answer(self, order: Order) -> Answer:
        """Carry out an order; gives ``{"ok": true, ...}`` or ``{"ok": false, "error": "a sentence"}``."""
        name = order.get("order")
        carry_out = self._orders.get(name) if isinstance(name, str) else None
        if carry_out is None:
            return _refused(f"there is no such order; the orders are {', '.join(self._orders)} and events")
        try:
            return {"ok": True, "identity": self._identity, **carry_out(order)}
        except OrderError as error:
            return _refused(str(error))
        except Exception as error:  # noqa: BLE001 - told by its kind alone: its text could quote a credential
            return _refused(f"the sidecar failed inside ({type(error).__name__}); nothing was changed")

    # The orders.

    def _status(self, _order: Order) -> Answer:
        counters = self._proxy.counters
        return {
            "pid": os.getpid(),
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "halted": self._proxy.table.halt is not None,
            "routes": [
                {**route.to_wire(), "counters": counters.of(route.host).to_wire()}
                for route in self._table.routes
            ],
            "granted": [
                {**route.to_wire(), "counters": counters.of(route.host).to_wire()}
                for route in self._granted()
            ],
            "elsewhere": {"counters": counters.elsewhere.to_wire()},
            "credentials": sorted(self._config.secrets),
            "connections": len(self._proxy.clients),
        }

    def _reload(self, order: Order) -> Answer:
        held = dict(self._config.secrets)
        try:
            held.update(_read_secrets(order.get("secrets", {})))
            table = reload.read_table(order.get("routes"), held)
        except (reload.TableError, OrderError) as error:
            self._record("reload", decision="refused", message=str(error))
            raise OrderError(f"{error}; the routes stay as they are") from None
        change = reload.change(self._table.routes, table.routes)
        # Guarded before anything could carry them, the record of this change included.
        new = {name: secret for name, secret in held.items() if self._config.secrets.get(name) != secret}
        said = self._hold(new)
        recorded = self._record(
            "reload",
            decision="applied",
            before=_bounded(change.before),
            after=_bounded(change.after),
            before_sha256=change.before_sha256,
            after_sha256=change.after_sha256,
            routes=len(table.routes),
            credentials=sorted(new),
            **said,
        )
        if not recorded:
            raise OrderError("the change cannot be put on record; the routes stay as they are")
        self._table = self._made(table.routes)
        closed = self.refresh()
        return {"before": list(change.before), "after": list(change.after), "closed": closed}

    def _made(self, routes: Sequence[EgressRoute], *, ended: Collection[str] = ()) -> RouteTable:
        config = self._config
        return RouteTable(routes, config.secrets, former=config.former, ended=ended)

    def _hold(self, new: Mapping[str, Secret]) -> dict[str, str]:
        """Hold credentials from now on, and guard them; a new value of one that has ended is good again.

        What they take the place of is guarded on. Gives what the record is to say besides: where that went on
        for so long that a value fell out.
        """
        if not new:
            return {}
        before, self._config = self._config, self._config.holding(new)
        self._audit.redact_too(new.values())
        self._on_secrets(self._config)
        self._ended -= new.keys()
        out = before.forgotten(self._config)
        words = f"the oldest value of {', '.join(out)} is guarded no more; {MOST_FORMER} earlier ones are"
        return {"message": words} if out else {}

    def _renew(self, order: Order) -> Answer:
        """Use other values of credentials that are held; the routes stay as they are."""
        given = _read_secrets(order.get("secrets", {}))
        if unknown := sorted(given.keys() - self._config.secrets.keys()):
            raise OrderError(f"secrets: the sidecar holds no {unknown[0][:100]!r} that could be renewed")
        new = {name: secret for name, secret in given.items() if self._config.secrets[name] != secret}
        said = self._hold(new)
        if not self._record("credential", decision="renewed", credentials=sorted(new), **said):
            raise OrderError("the renewal cannot be put on record; requests go on as before")
        self._table = self._made(self._table.routes)
        return {"closed": self.refresh()}

    def _expire(self, order: Order) -> Answer:
        """Refuse what needs credentials that have ended; what is under way goes on."""
        names = order.get("credentials")
        if not isinstance(names, list) or not all(name in self._config.secrets for name in names):
            raise OrderError("credentials: expected a list of names of credentials that are held")
        self._ended |= set(names)
        words = "has ended and could not be renewed; what needs it is refused"
        self._record("credential", decision="expired", credentials=sorted(names), message=words)
        self.refresh(cut=False)
        return {}

    def _panic(self, _order: Order) -> Answer:
        if self._proxy.table.halt is None:
            closed = self._proxy.replace_table(RouteTable((), {}, halt=HALT))
            self._on_halt(HALT)
            # After the deed: a full disk must not keep anything open.
            self._record("panic", decision="deny", reason=HALT.reason, message=HALT.message)
            return {"closed": closed}
        return {"closed": 0}

    def _lift(self, _order: Order) -> Answer:
        if self._proxy.table.halt is not None:
            if not self._record("panic", decision="lifted", message="the routes hold again"):
                raise OrderError("the lifting cannot be put on record; everything stays stopped")
            self._proxy.replace_table(self._table)  # out of the stop, which refresh leaves as it is
            self.refresh()
            self._on_halt(None)
        return {}

    def _session(self, order: Order) -> Answer:
        """Put on record what only the launcher knows: what became of the agent's session."""
        state, code = order.get("state"), order.get("exit_code")
        if state not in SESSION_STATES or not (code is None or type(code) is int):
            raise OrderError(f"state is one of {', '.join(SESSION_STATES)}, exit_code a number or null")
        ended = {"exit_code": code} if type(code) is int else {}
        if not self._record("session", state=str(state), **ended):
            raise OrderError("it cannot be put on record")
        return {}

    def _record(self, event: str, **fields: str | int | list[str]) -> bool:
        try:
            self._audit.append(event, **fields)
        except OSError:
            return False
        return True


def _read_secrets(obj: object) -> dict[str, Secret]:
    """Read the credentials that an order brings; raises ``OrderError``."""
    if not isinstance(obj, dict) or len(obj) > _MAX_SECRETS:
        raise OrderError("secrets: expected an object of names and values")
    for name, value in obj.items():
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_SECRET_CHARS:
            raise OrderError(f"secrets: {name[:100]!r} has no value")
        if not value.isascii() or not value.isprintable():
            raise OrderError(f"secrets: the value of {name[:100]!r} could not be sent in a header")
    return {name: Secret(value) for name, value in obj.items()}


def _bounded(lines: tuple[str, ...]) -> list[str]:
    more = len(lines) - _MAX_LINES
    return [*lines[:_MAX_LINES], *([f"and {more} more"] if more > 0 else [])]


def _refused(sentence: str) -> Answer:
    return {"ok": False, "error": sentence}
