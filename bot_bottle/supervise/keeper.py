"""What a human's answers change in a running sidecar: grants are recorded, hold, are used up, end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bot_bottle.git_gate.policy import Opening
from bot_bottle.sidecar.orders import OrderError
from bot_bottle.supervise.clock import ForwardClock
from bot_bottle.supervise.ledger import VERDICTS, Answer, Ledger
from bot_bottle.supervise.push_grant import PushGrant
from bot_bottle.supervise.record import ANSWERED, USED, answer_record, read_grant
from bot_bottle.supervise.request import RequestError, clean, request_id
from bot_bottle.supervise.service import Supervisor
from bot_bottle.supervise.terms import Terms

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from bot_bottle.audit import AuditLog
    from bot_bottle.egress.proxy import EgressProxy
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.pipelock.finding import Finding
    from bot_bottle.sidecar.orders import Answer as OrderAnswer
    from bot_bottle.sidecar.orders import Desk, Order
    from bot_bottle.supervise.grant import Grant
    from bot_bottle.supervise.record import Past

MAX_WORDS = 2_000
#: The clock of a machine that slept is looked at again so often, in seconds.
_LOOK_SECONDS = 20.0


class Keeper:
    """Supervise in one sidecar; used on its loop. Its orders are given to the sidecar's desk."""

    def __init__(
        self,
        past: Past,
        *,
        proxy: EgressProxy,
        audit: AuditLog,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._proxy = proxy
        self._audit = audit
        self._loop = loop
        self._now = now or ForwardClock()
        self._terms = Terms(past.grants)
        self._pushes = {grant.request: grant for grant in past.pushes}
        self._desk: Desk | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.supervisor = Supervisor(
            Ledger(past.requests, past.answers),
            audit=audit,
            loop=loop,
            routes=proxy.allowlist,
            holds=self._holds,
        )

    def begin(self, desk: Desk) -> None:
        """Let what was granted earlier hold again, and take the operator's answers."""
        self._desk = desk
        desk.take("requests", self._requests)
        desk.take("answer", self._answer)
        self._proxy.content.human = self
        self._apply()

    def granted(self) -> tuple[EgressRoute, ...]:
        """Give the routes that hold beside the manifest's."""
        return self._terms.routes(self._now())

    def _holds(self, one: str) -> bool:
        """Tell whether what a request was granted still holds."""
        now, push = self._now(), self._pushes.get(one)
        return self._terms.holds(one, now) or (push is not None and push.holds(now))

    def claim(self, host: str, value_id: str) -> tuple[str, ...]:
        """Take a use of what was approved of a value for ``host``; gives all values approved with it."""
        grant = self._terms.passing(host, value_id, self._now())
        if grant is None or (grant.uses is not None and self._terms.use(grant.request) is None):
            return ()
        try:
            self._audit.append(USED, request=grant.request)
        except OSError:
            return ()
        return grant.values

    def ask(self, host: str, found: Sequence[Finding]) -> str:
        """Ask whether what was found may go to ``host``; gives what came of asking, for the agent."""
        text = "; ".join(dict.fromkeys(str(one) for one in found))
        values = tuple(sorted({one.value_id for one in found}))
        return self.supervisor.ask_content(host, text, values)

    def openings(self, remote: str) -> tuple[Opening, ...]:
        """Give what may be pushed to a remote now beside what its manifest allows."""
        now = self._now()
        return tuple(
            Opening(name=one.request, branches=one.branches, paths=one.paths, counted=one.uses is not None)
            for one in self._pushes.values()
            if one.remote == remote and one.holds(now)
        )

    def spend(self, name: str) -> bool:
        """Take a use of a push grant that is counted."""
        grant = self._pushes.get(name)
        if grant is None or not grant.holds(self._now()):
            return False
        try:
            self._audit.append(USED, request=name)
        except OSError:
            return False
        self._pushes[name] = replace(grant, uses=None if grant.uses is None else grant.uses - 1)
        return True

    def end_all(self) -> None:
        """Let nothing hold any more that was granted: the operator has stopped everything.

        The stop's own record says it, to this bottle's later sessions too (:func:`past_of`).
        """
        self._terms, self._pushes = Terms(), {}
        self._proxy.counted = {}
        self._look_again()

    def close(self) -> None:
        """End every connection of the agent's; what holds is on record."""
        if self._timer is not None:
            self._timer.cancel()
        self.supervisor.close()

    def _requests(self, _order: Order) -> OrderAnswer:
        return {"requests": [one.to_record() for one in self.supervisor.open_requests()]}

    def _answer(self, order: Order) -> OrderAnswer:
        one, answer, grant = _read_answer(order)
        asked = next((found for found in self.supervisor.open_requests() if found.id == one), None)
        if asked is None:
            raise OrderError(f"there is no open request {one}; bot-bottle requests shows those that are")
        if isinstance(grant, PushGrant):
            if asked.kind != "git" or asked.remote != grant.remote:
                raise OrderError(f"{one} does not ask for a push to {grant.remote}")
        elif grant is not None and grant.values != asked.values:
            raise OrderError(f"a yes to {one} lets nothing pass but what it asks for")
        try:
            self._audit.append(ANSWERED, **answer_record(one, answer, grant))
        except OSError:
            raise OrderError("the answer cannot be put on record; nothing was changed") from None
        if isinstance(grant, PushGrant):
            self._pushes[one] = grant  # the next push is judged by it
        elif grant is not None:
            self._terms.add(grant)
            self._apply()
        self.supervisor.answer(one, answer)
        return {"request": one}

    def _apply(self) -> None:
        """Decide by what holds now, and look again when the next grant ends."""
        if self._desk is None:
            return
        self._desk.refresh()
        self._proxy.counted = {origin: self._counter(one) for origin, one in self._terms.counted().items()}
        self._look_again()

    def _look_again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        end = self._terms.next_end()
        if end is not None:
            delay = min(max(end - self._now(), 0) + 0.01, _LOOK_SECONDS)
            self._timer = self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        end = self._terms.next_end()
        if end is not None and end > self._now():
            self._look_again()
        else:
            self._apply()

    def _counter(self, one: str) -> Callable[[], bool]:
        def use() -> bool:
            left = self._terms.use(one)
            if left is None:
                return False
            try:
                self._audit.append(USED, request=one)
            except OSError:
                return False
            if left == 0:
                # What was just allowed goes on; what comes after it is decided without this grant.
                self._loop.call_soon(self._retire)
            return True

        return use

    def _retire(self) -> None:
        if self._desk is not None:
            self._desk.refresh(cut=False)


def _read_answer(order: Order) -> tuple[str, Answer, Grant | PushGrant | None]:
    verdict, words, grant = order.get("verdict"), order.get("words", ""), order.get("grant")
    if verdict not in VERDICTS or not isinstance(words, str) or len(words) > MAX_WORDS:
        raise OrderError(
            f"an answer has a verdict of {', '.join(VERDICTS)} and at most {MAX_WORDS} characters"
        )
    try:
        one = request_id(str(order.get("request")))
        given = read_grant(grant) if isinstance(grant, dict) else None
    except (KeyError, TypeError, ValueError, RequestError) as error:
        raise OrderError(f"the answer cannot be read: {error}") from None
    if given is not None and (verdict == "denied" or given.request != one):
        raise OrderError("a grant goes with a yes to the same request")
    terms = given.terms if given else ""
    return one, Answer(verdict=verdict, words=clean(words, MAX_WORDS), terms=terms), given
