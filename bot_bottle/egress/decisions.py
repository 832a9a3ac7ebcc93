"""What is decided about requests, and its record: the policies, content, grants, precedents; no connection.

What cannot be put on record is refused.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from bot_bottle.audit import RecordForm
from bot_bottle.decision import Allow, Deny
from bot_bottle.egress.content import WITHHELD, ContentGuard, withheld
from bot_bottle.egress.counters import Counters
from bot_bottle.egress.local import allowlist, decide_local
from bot_bottle.egress.notice import Changed
from bot_bottle.egress.policy import (
    POLICIES,
    TARGET_POLICIES,
    Step,
    decide,
    first_objection,
    may_object,
)
from bot_bottle.egress.precedent import Precedent, Precedents
from bot_bottle.egress.recorded import (
    audit_failed,
    credential_name,
    grant_used_up,
    record_fields,
    shown_path,
)
from bot_bottle.egress.sent import sent_by_git
from bot_bottle.egress.table import RouteTable, Verdict
from bot_bottle.refused_credentials import LIKELY

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from bot_bottle.audit import AuditLog
    from bot_bottle.egress.counters import Tally
    from bot_bottle.egress.guarded import Guarded
    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.metering import Metered
    from bot_bottle.egress.notice import Notice
    from bot_bottle.egress.policy import Policy
    from bot_bottle.egress.pool import Destination
    from bot_bottle.egress.reflection import Answered
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.egress.target import Arrival
    from bot_bottle.egress.upstream import ResponseSink
    from bot_bottle.egress.websocket import Conversation
    from bot_bottle.sidecar.config import SidecarConfig
    from bot_bottle.usage import Usage


class Decisions:
    """What one bottle's egress decides by, and where it says so."""

    def __init__(
        self,
        config: SidecarConfig,
        *,
        audit: AuditLog,
        loop: asyncio.AbstractEventLoop,
        policies: Sequence[Policy] = POLICIES,
    ) -> None:
        self.identity = config.identity
        self.table = RouteTable(config.routes, config.secrets, sent=sent_by_git(config.git))
        self.counters = Counters(route.host for route in config.routes)
        self.content = ContentGuard(config, loop)
        self._loop = loop
        self._guard: type[Guarded] | None = None
        #: Origins of routes whose uses are counted, each with what takes one, if there is one left.
        self.counted: dict[str, Callable[[], bool]] = {}
        #: Who follows the routes that hold.
        self.on_table: Callable[[Sequence[EgressRoute]], None] | None = None
        self._audit = audit
        self._policies = tuple(policies)
        # Run on every request, whatever went before: those that look at its target and those we do not know.
        self._target_policies = tuple(
            policy for policy in self._policies if policy in TARGET_POLICIES or policy not in POLICIES
        )
        self.precedents = Precedents()

    def decide_by(self, table: RouteTable) -> None:
        """Decide by ``table`` from now on; what was allowed before goes on."""
        table.follow(self.table)
        self.table = table
        if self.on_table is not None:
            self.on_table(table.routes)
        if table.halt is None:
            self.counters.keep(route.host for route in table.routes)
        self.precedents = self.precedents.successor()

    def must_wait(self, request: EgressRequest) -> bool:
        """Tell whether a request waits for content scanning: that goes on which the policies have nothing
        against, and a path is not put on record before it was searched.
        """
        if self.content.ready:
            return False
        if request.path.strip("/"):
            return True
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
            named = (request.host, *(name for _where, name in request.claims))
            verdict = Verdict(deny) if (deny := self.content.carries_secret(*named)) else verdict
        if self.counted:
            verdict = self._counted(verdict)
        decision = verdict.decision
        injected = credential_name(verdict.route) if verdict.route and isinstance(decision, Allow) else None
        try:
            self._record(shown, decision, injected=injected)
        except OSError:
            return Verdict(audit_failed())
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
        return verdict if use is None or use() else Verdict(grant_used_up(route))

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
        fields = record_fields(request, Allow(rule=route.origin), injected=credential_name(route))
        del fields["path"]
        precedent = Precedent(
            table=self.table,
            facts=facts,
            request=request,
            route=route,
            policies=tuple(policy for policy in self._target_policies if may_object(policy, route)),
            destination=destination,
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
            self._audit.fill(precedent.form, shown_path(path))
        except OSError:
            return None
        self.counters.of(precedent.route.host).requests += 1
        return request

    def judge_local(self, request: EgressRequest) -> Deny | None:
        """Decide and record a request for the name that egress answers itself."""
        verdict = decide_local(request, self.table)
        if verdict is not None:
            verdict = self.content.carries_secret(*(name for _where, name in request.claims)) or verdict
        try:
            shown = self.content.recordable(request) if verdict else request
            self._record(shown, verdict or Allow(rule="egress.local"), via="local")
        except OSError:
            return audit_failed()
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
        host has a credential.
        """
        if destination is None:
            return exchange
        reader = self.content.reader(destination.route)
        if reader is None and destination.needles is None:
            return exchange
        guard = self._guard
        if guard is None:
            from bot_bottle.egress.guarded import Guarded  # noqa: PLC0415 - loaded with what it looks for

            guard = self._guard = Guarded
        return guard(
            exchange,
            reader,
            destination,
            head_request=head_request,
            record=self.record_event,
            later=self._loop.call_later,
        )

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

    def credential_refused(self, destination: Destination | None, status: int) -> None:
        """Put on record that a server refused a request that carried a credential of ours."""
        name = credential_name(destination.route) if destination is not None else None
        if destination is None or name is None:
            return
        tally = self.counters.of(destination.route.host)
        tally.refused += 1
        self.record_event(
            "credential_refused",
            decision="refused",
            host=destination.host,
            credential=name,
            status=status,
            count=tally.refused,
            message=LIKELY,
        )

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
            return audit_failed()
        return None

    def conversation(self, destination: Destination) -> Conversation:
        """Give what reads and judges an upgraded connection to ``destination``."""
        route, hear = destination.route, None
        if route.usage is not None:
            from bot_bottle.egress.metering import hears_messages  # noqa: PLC0415 - as in metered

            hear = hears_messages(route.usage, self._usage_note(destination))
        return self.content.conversation(destination.host, route, destination.needles, hear)

    def shown_name(self, name: str) -> str:
        """Give a name that a bottle chose as it may stand in the record."""
        return WITHHELD if self.content.carries_secret(name) else name

    def record_event(self, event: str, **fields: str | int) -> None:
        """Put something on record that decides nothing."""
        with contextlib.suppress(OSError):
            self._audit.append(event, **fields)

    def allowlist(self) -> dict[str, object]:
        """Give the route table as the bottle may see it."""
        return allowlist(self.identity, self.table.routes)

    def _record(
        self,
        request: EgressRequest,
        decision: Allow | Deny,
        *,
        kind: str = "deny",
        via: str = "",
        injected: str | None = None,
    ) -> None:
        self._audit.append(
            "request", **record_fields(request, decision, kind=kind, via=via, injected=injected)
        )
