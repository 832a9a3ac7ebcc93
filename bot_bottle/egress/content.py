"""Content scanning where egress decides: what a request says is judged before any of it is passed on.

The policies have had their word before. A head is judged whole, a body as it flows (:class:`BodyGuard`), and
both together with what the same bottle sent before, since a value may leave in pieces. The engine behind it
is loaded at the first connection, in a thread; requests wait for it, and where it cannot be loaded nothing
is passed on.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.egress import content_denial
from bot_bottle.egress.body_guard import BodyGuard
from bot_bottle.egress.chosen_names import ChosenNames
from bot_bottle.egress.grpc import is_grpc
from bot_bottle.egress.grpc_content import GrpcGuard
from bot_bottle.egress.headers import leaving, left_behind, with_values
from bot_bottle.egress.memory import give_back
from bot_bottle.egress.notice import Changed, Notice, notices

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from bot_bottle.decision import Deny
    from bot_bottle.egress.frames import Event
    from bot_bottle.egress.headers import RequestHeaders
    from bot_bottle.egress.placeholders import Placeholders
    from bot_bottle.egress.redact import Needles
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.routes import EgressRoute
    from bot_bottle.egress.websocket import Conversation
    from bot_bottle.pipelock.finding import Finding
    from bot_bottle.pipelock.instructions import Reader
    from bot_bottle.pipelock.loader import LateEngine
    from bot_bottle.pipelock.request import Header, RequestScanner
    from bot_bottle.pipelock.scanner import Scanner
    from bot_bottle.pipelock.selection import Selection
    from bot_bottle.pipelock.session import Session
    from bot_bottle.secret import Secret
    from bot_bottle.sidecar.config import SidecarConfig

_ENGINE_SECONDS = 60.0
_MOST_HOSTS = 1024
#: What stands in the record in place of what was found in it.
WITHHELD = "(withheld)"


@dataclass(frozen=True, slots=True)
class Parts:
    """What judges, once it is loaded; ``session`` sees every request of the bottle."""

    scanner: Scanner
    requests: RequestScanner
    session: Session
    answers: Reader


class ContentGuard:
    """The content scanning of one bottle's egress; made on, and but for :meth:`engine` used on, one loop."""

    def __init__(self, config: SidecarConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._guarded: Mapping[str, Secret] = config.guarded()
        self._cache = Path(config.cache) if config.cache else None
        self._reads_answers = any(route.answers != "off" for route in config.routes)
        self._lock = threading.Lock()
        self._engine: LateEngine | None = None
        self._thread: threading.Thread | None = None
        self._parts: Parts | None = None
        self._failure = ""
        self._waiting: list[Callable[[], None]] = []
        self._selections: dict[int, tuple[EgressRoute, Selection]] = {}
        self._hosts: dict[tuple[str, EgressRoute], Deny | None] = {}
        self._names = ChosenNames(self._guarded)
        self._headers_seen: object = None
        #: Who is asked where a route says so.
        self.human: content_denial.Human | None = None

    # Loading.

    @property
    def ready(self) -> bool:
        """Whether every question is answered at once, by a verdict or by why there can be none."""
        return self._parts is not None or bool(self._failure)

    def begin(self) -> None:
        """Load what is needed, in a thread; does nothing where that was begun before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._load, name="egress-content", daemon=True)
            self._thread.start()

    def when_ready(self, call: Callable[[], None]) -> None:
        """Call ``call`` on the loop once :attr:`ready` holds."""
        if self.ready:
            self._loop.call_soon(call)
            return
        self._waiting.append(call)
        self.begin()

    def engine(self) -> LateEngine:
        """Give the one engine that this sidecar has, for the git gate as well; it loads by itself."""
        from bot_bottle.pipelock.loader import LateEngine  # noqa: PLC0415 - as in _load

        with self._lock:
            if self._engine is None:
                self._engine = LateEngine(self._cache, wait=_ENGINE_SECONDS)
            return self._engine

    def _load(self) -> None:
        parts: Parts | None = None
        failure, guarded = "", self._guarded
        try:
            parts = self._make(guarded)
        except BaseException as error:  # noqa: BLE001 - fail closed: without it every request is refused
            failure = type(error).__name__
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._loaded, parts, failure, guarded)

    def _make(self, guarded: Mapping[str, Secret]) -> Parts:
        # Native libraries, none of which a bottle that never speaks should pay for.
        from bot_bottle.pipelock.instructions import Reader  # noqa: PLC0415
        from bot_bottle.pipelock.loader import busy, clock  # noqa: PLC0415
        from bot_bottle.pipelock.own_secrets import OwnSecrets  # noqa: PLC0415
        from bot_bottle.pipelock.request import RequestScanner  # noqa: PLC0415
        from bot_bottle.pipelock.scanner import Scanner  # noqa: PLC0415
        from bot_bottle.pipelock.session import Session  # noqa: PLC0415

        engine = self.engine()
        own = OwnSecrets(guarded)
        scanner = Scanner(profile="egress", engine=engine, own=own, clock=clock, busy=busy)
        engine.require()
        answers = self._parts.answers if self._parts is not None else Reader(self._cache)
        if self._reads_answers:
            answers.warm()  # in this thread: on the loop everything would wait for it
        return Parts(scanner=scanner, requests=RequestScanner(scanner), session=Session(own), answers=answers)

    def _loaded(self, parts: Parts | None, failure: str, guarded: Mapping[str, Secret]) -> None:
        self._parts, self._failure = parts, failure
        if guarded is not self._guarded:
            self.guard(self._guarded)
        give_back()
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()

    def guard(self, values: Mapping[str, Secret]) -> None:
        """Guard ``values`` from now on; where that fails nothing passes any more."""
        self._guarded = values
        self._hosts.clear()
        self._names = ChosenNames(values)
        if self._parts is not None:
            try:
                self._parts = self._make(values)  # all is loaded: a few milliseconds
            except Exception as error:  # noqa: BLE001 - fail closed
                self._parts, self._failure = None, type(error).__name__

    # Judging.

    def head(
        self, request: EgressRequest, facts: RequestHeaders, route: EgressRoute
    ) -> Deny | Changed | None:
        """Judge the head of a request that the policies allow, and its host where it is one of many.

        Where the route takes out what is found, gives the head that may go on in its place.
        """
        parts = self._parts
        if parts is None:
            return content_denial.unavailable(self._failure)
        if route.max_body is not None and (facts.content_length or 0) > route.max_body:
            return content_denial.too_large(request.host, route)
        if route.host.startswith("*.") and (deny := self.host(request.host, route)) is not None:
            return deny
        selection = self._asking(request.host, route)
        path, query = _bytes(request.path), _bytes(request.query)
        headers = _headers(facts, route)

        def judged(query: bytes, headers: tuple[Header, ...]) -> tuple[Finding, ...]:
            return parts.requests.scan(
                method=request.method.encode(), path=path, query=query, headers=headers, selection=selection
            ) or parts.session.request(path=path, query=query, headers=headers, host=_labels(request, route))

        found = judged(query, headers)
        self._headers_seen = facts
        if not found:
            return None
        if route.on_match == "redact":
            done = parts.requests.redacted(query=query, headers=headers, selection=selection)
            if done is not None and not judged(done.query, done.headers):
                return Changed(
                    query=done.query.decode("ascii"),
                    kept=with_values(facts, leaving(facts, cookies=not route.strip_cookies), done.headers),
                    notices=notices("redacted", done.taken),
                )
        return content_denial.denial(found, request.host, route, self.human)

    def left_behind(
        self, facts: RequestHeaders, route: EgressRoute, placeholders: Placeholders
    ) -> tuple[Notice, ...]:
        """Say what credentials stand in the headers that never go on, but for what stands for one.

        It is no reason to refuse: agents present whatever they hold, and none of it leaves.
        """
        from bot_bottle.pipelock.finding import Context  # noqa: PLC0415 - loaded with the parts

        parts = self._parts
        said: list[tuple[Finding, int]] = []
        if parts is None:
            return ()
        for line in left_behind(facts):
            if not placeholders.seen(line.value):
                context = Context(
                    place="header", field=line.name.decode("latin-1"), rules=not route.tls_passthrough
                )
                said += [
                    (found, 1)
                    for found in parts.scanner.scan(line.line, context)
                    if found.kind in {"own_secret", "credential", "financial"}
                ]
        return notices("stripped", said)

    def again(self, request: EgressRequest, facts: RequestHeaders, route: EgressRoute) -> Deny | None:
        """Judge a request whose head but for its target was allowed before, as the same object."""
        parts = self._parts
        if parts is None:
            return content_denial.unavailable(self._failure)
        path, query = _bytes(request.path), _bytes(request.query)
        found = parts.requests.scan_target(
            method=request.method.encode(), path=path, query=query, selection=self.selection(route)
        )
        if not found:
            # What the last request said too is no news; other lines may be the next part of something.
            headers = () if facts is self._headers_seen else _headers(facts, route)
            self._headers_seen = facts
            found = parts.session.request(
                path=path, query=query, headers=headers, host=_labels(request, route)
            )
        return content_denial.denial(found, request.host, route) if found else None

    def host(self, host: str, route: EgressRoute) -> Deny | None:
        """Judge a name below ``route``'s wildcard by its labels, before anyone looks it up."""
        from bot_bottle.pipelock.host_labels import judge_host  # noqa: PLC0415 - loaded with the parts

        parts = self._parts
        if parts is None:
            return content_denial.unavailable(self._failure)
        key = (host, route)
        if key in self._hosts:
            return self._hosts[key]
        found = judge_host(host, parts.scanner.own, zone=route.host)
        counts = found is not None and self.selection(route).counts(found)
        deny = content_denial.host_denial(found, route) if found is not None and counts else None
        if len(self._hosts) >= _MOST_HOSTS:
            self._hosts.clear()
        self._hosts[key] = deny
        return deny

    def body(
        self, request: EgressRequest, facts: RequestHeaders, route: EgressRoute
    ) -> BodyGuard | GrpcGuard:
        """Give what judges the body of a request whose head was allowed."""
        from bot_bottle.pipelock.finding import Context  # noqa: PLC0415 - loaded with the parts
        from bot_bottle.pipelock.stream import StreamScanner  # noqa: PLC0415

        parts = self._parts
        if parts is None:
            raise RuntimeError("a body is judged after its head")
        selection = self._asking(request.host, route)
        context = Context(
            place="body",
            content_type=_field(facts, b"content-type"),
            encoding=_field(facts, b"content-encoding"),
            rules=selection.rules,
        )

        def judge(context: Context) -> BodyGuard:
            stream = StreamScanner(
                parts.scanner,
                context,
                on_opaque=route.on_opaque,
                selection=selection,
                redact=route.on_match == "redact",
            )
            return BodyGuard(
                stream,
                parts.session,
                host=request.host,
                route=route,
                content_type=context.content_type,
                human=self.human,
            )

        if not is_grpc(context.content_type.encode("latin-1")) or context.encoding:
            return judge(context)
        packed = replace(context, encoding=_field(facts, b"grpc-encoding") or "unknown")
        return GrpcGuard(
            lambda compressed: judge(packed if compressed else context),
            most=route.max_body,
            too_large=lambda: content_denial.too_large(request.host, route),
        )

    def conversation(
        self,
        host: str,
        route: EgressRoute,
        needles: Needles | None,
        hear: Callable[[Event], None] | None = None,
    ) -> Conversation:
        """Give what reads and judges the WebSocket of a handshake that was allowed.

        ``needles`` are what no answer may show; ``hear`` is told of the server's frames.
        """
        from bot_bottle.egress.websocket import Conversation  # noqa: PLC0415 - loaded with the parts

        if self._parts is None:
            raise RuntimeError("a conversation is judged after its handshake")
        parts = self._parts
        return Conversation(
            parts.scanner,
            self._asking(host, route),
            host=host,
            route=route,
            needles=needles,
            hear=hear,
            human=self.human,
        )

    def reader(self, route: EgressRoute) -> Reader | None:
        """Give what reads the answers on ``route``; ``None`` where nobody shall."""
        if self._parts is None or route.answers == "off":
            return None
        return self._parts.answers

    def selection(self, route: EgressRoute) -> Selection:
        """Give what counts on ``route``."""
        held = self._selections.get(id(route))
        if held is None or held[0] is not route:  # an id may come again once a table was replaced
            from bot_bottle.pipelock.selection import Selection  # noqa: PLC0415 - loaded with the parts

            held = (route, Selection(frozenset(route.detectors), not route.tls_passthrough))
            if len(self._selections) >= _MOST_HOSTS:
                self._selections.clear()
            self._selections[id(route)] = held
        return held[1]

    def _asking(self, host: str, route: EgressRoute) -> Selection:
        """Give what counts in one request on ``route``, without what a human let pass."""
        selection, human = self.selection(route), self.human
        if route.on_match != "ask" or human is None:
            return selection
        from bot_bottle.pipelock.selection import Approvals  # noqa: PLC0415 - loaded with the parts

        return replace(selection, approvals=Approvals(lambda value_id: human.claim(host, value_id)))

    def recordable(self, request: EgressRequest) -> EgressRequest:
        """Give a refused request as it may stand in the record: without what is found in its name or path."""
        parts = self._parts
        if self.carries_secret(request.host):
            request = request._replace(host=WITHHELD)
        if request.path.strip("/") and (
            parts is None or parts.requests.scan_target(method=b"GET", path=_bytes(request.path), query=b"")
        ):
            request = request._replace(path=WITHHELD)
        return request

    def carries_secret(self, *names: str) -> Deny | None:
        """Say so where one of ``names``, which a bottle chose, carries a guarded value."""
        return self._names.objection(names)


def withheld(request: EgressRequest, deny: Deny) -> EgressRequest:
    """Give a request as it may stand in the record where ``deny`` objects to what it says."""
    if deny.rule.startswith(content_denial.HOST_RULE):
        return request._replace(host=WITHHELD, path=WITHHELD)
    return request._replace(path=WITHHELD)


def _bytes(text: str) -> bytes:
    return text.encode("ascii", "replace")


def _headers(facts: RequestHeaders, route: EgressRoute) -> tuple[Header, ...]:
    """List the header lines that go on, names as they were written; what is dropped says nothing."""
    lines = leaving(facts, cookies=not route.strip_cookies)
    return tuple((kept.line.partition(b":")[0], kept.value) for kept in lines)


def _field(facts: RequestHeaders, name: bytes) -> str:
    return b", ".join(kept.value for kept in facts.kept if kept.name == name).decode("latin-1")


def _labels(request: EgressRequest, route: EgressRoute) -> str:
    """Give the labels that an agent chose, which may be the next part of something."""
    return request.host.removesuffix(route.host[1:]) if route.host.startswith("*.") else ""
