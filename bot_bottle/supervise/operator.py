"""The operator's side of supervise: find what agents ask, answer it in a running bottle or a kept one."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from bot_bottle import bottle_state, paths
from bot_bottle.audit import AuditLog
from bot_bottle.control_client import ControlClient, NotReachableError
from bot_bottle.duration import DAY, read_duration
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.legible import legible
from bot_bottle.supervise.grant import Grant, grant_route
from bot_bottle.supervise.push_grant import PushGrant, branch_of
from bot_bottle.supervise.record import ANSWERED, answer_record, read_past
from bot_bottle.supervise.request import request_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.backend.base import BottleBackend
    from bot_bottle.supervise.ledger import Answer
    from bot_bottle.supervise.record import Past
    from bot_bottle.supervise.request import AgentRequest

#: What is to hold for longer is one of the bottle's own, or of its manifest.
_LONGEST = 3650 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request with the bottle it came from and, once given, its answer."""

    identity: str
    running: bool
    request: AgentRequest
    answer: Answer | None = None


def all_requests(identity: str = "", *, answered: bool = False) -> tuple[Asked, ...]:
    """List what the bottles that run or are kept ask, the oldest first; ``answered`` adds what is settled.

    Raises ``UsageError`` for an identity that has no state, ``LaunchError`` for a log that cannot be read.
    """
    states = [one for one in bottle_state.list_states() if identity in {"", one.identity}]
    if identity and not states:
        raise UsageError(bottle_state.no_state(identity))
    found: list[Asked] = []
    for state in states:
        past = _past(state.identity)
        found += [
            Asked(
                identity=state.identity,
                running=state.status == "running",
                request=request,
                answer=past.answers.get(request.id),
            )
            for request in (past.requests if answered else past.open)
        ]
    return tuple(sorted(found, key=lambda one: (one.request.asked, one.request.id)))


def find_open(one: str) -> Asked:
    """Find the open request of that id; raises ``UsageError`` where there is none."""
    try:
        wanted = request_id(one.strip().lower())
    except ValueError:
        raise UsageError(
            f"{legible(one)!r} is no request's id; bot-bottle requests shows those there are"
        ) from None
    for asked in all_requests(answered=True):
        if asked.request.id == wanted:
            if asked.answer is not None:
                raise UsageError(f"request {wanted} is {asked.answer.verdict} already")
            return asked
    raise UsageError(f"there is no request {wanted}; bot-bottle requests shows those that are open")


def make_grant(
    request: AgentRequest,
    *,
    lasting: str,
    host: str = "",
    paths_: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> Grant:
    """Make the grant of an ``egress`` request, as asked or changed.

    ``lasting`` is ``once``, ``bottle`` or a time like ``30m``, ``2h``, ``7d``. Raises ``UsageError``.
    """
    from bot_bottle.manifest.hosts import parse_host_pattern  # noqa: PLC0415 - what a manifest would take
    from bot_bottle.manifest.values import http_method, path_prefix  # noqa: PLC0415

    try:
        route = grant_route(
            request.id,
            parse_host_pattern(host or request.host),
            [path_prefix(path) for path in (paths_ or request.paths)],
            [http_method(method) for method in (methods or request.methods)],
        )
    except ValueError as error:
        raise UsageError(
            f"this cannot be granted: {error}; change it with --host, --path or --method"
        ) from None
    return _lasting(Grant(request=request.id, route=route), lasting)


def let_pass(asked: Asked, *, lasting: str) -> Grant:
    """Make the grant of a ``content`` request: what was found may go to its host. As :func:`make_grant`."""
    one = asked.request
    if not asked.running:
        raise UsageError(
            f"{one.id} can be approved only while its bottle runs, since what was found is not kept; resume "
            f"{asked.identity}, and it is asked anew when it comes again"
        )
    return _lasting(Grant(request=one.id, route=grant_route(one.id, one.host), values=one.values), lasting)


def make_push_grant(
    request: AgentRequest, *, lasting: str, branches: Sequence[str] = (), paths_: Sequence[str] = ()
) -> PushGrant:
    """Make the grant of a ``git`` request: as asked, or with ``branches`` and ``paths_`` in its place.

    ``lasting`` is as for :func:`make_grant`. Raises ``UsageError``.
    """
    from bot_bottle.manifest.values import ref_pattern  # noqa: PLC0415 - what a manifest would take

    if not branches and not paths_:
        branches, paths_ = request.refs, request.paths
    try:
        grant = PushGrant(
            request=request.id,
            remote=request.remote,
            branches=tuple(ref_pattern(branch_of(ref)) for ref in branches),
            paths=tuple(ref_pattern(path) for path in paths_),
        )
    except ValueError as error:
        raise UsageError(f"this cannot be granted: {error}; change it with --branch or --path") from None
    return _lasting(grant, lasting)


_AnyGrant = TypeVar("_AnyGrant", Grant, PushGrant)


def _lasting(grant: _AnyGrant, lasting: str) -> _AnyGrant:
    if lasting == "once":
        return replace(grant, uses=1)
    return replace(grant, until=_end(lasting))


def _end(lasting: str) -> int | None:
    """Give when ``lasting`` is over, in seconds since the epoch; None for a bottle's whole life."""
    if lasting == "bottle":
        return None
    try:
        length = int(read_duration(lasting, longest=_LONGEST))
    except ValueError:
        length = 0
    if not length:
        raise UsageError(f"--for {legible(lasting)}: write once, bottle, or a time like 30m, 2h or 7d")
    return int(time.time()) + length


def respond(asked: Asked, answer: Answer, grant: Grant | PushGrant | None) -> None:
    """Answer a request: through the sidecar of a running bottle, else into the record of a kept one.

    Raises ``LaunchError`` or ``UnavailableError`` where neither can be reached; nothing is changed then.
    """
    one = asked.request.id
    try:
        with ControlClient.connect(asked.identity) as client:
            client.order(
                "answer",
                request=one,
                verdict=answer.verdict,
                words=answer.words,
                grant=grant.to_wire() if grant else None,
            )
    except NotReachableError:
        if bottle_state.is_running(asked.identity):
            raise
        _append(asked.identity, one, answer, grant)


def _append(identity: str, one: str, answer: Answer, grant: Grant | PushGrant | None) -> None:
    """Write the answer where the next session reads it; the bottle's lock keeps a starting session out.

    A log whose writer was elsewhere may not be all here: a record on its end would be a second chain beside
    the one that is still to come home.
    """
    with bottle_state.hold_lock(identity):
        _home_of(identity).complete_record(identity)
        _append_here(identity, one, answer, grant)


def _home_of(identity: str) -> BottleBackend:
    from bot_bottle.backend.registry import LEGACY_BACKEND, get_bottle_backend  # noqa: PLC0415 - heavy

    metadata = bottle_state.read_metadata(identity)
    return get_bottle_backend((metadata.backend if metadata else "") or LEGACY_BACKEND)


def _append_here(identity: str, one: str, answer: Answer, grant: Grant | PushGrant | None) -> None:
    answer = replace(answer, terms=grant.terms if grant else "")  # as a sidecar says it
    path = paths.audit_path(identity)
    try:
        log = AuditLog.open(path)
    except (OSError, ValueError) as error:
        raise LaunchError(f"{path}: the answer cannot be put on record: {error}") from error
    try:
        if one not in {request.id for request in read_past(path).open}:
            raise UsageError(f"request {one} has been answered meanwhile")
        log.append(ANSWERED, **answer_record(one, answer, grant))
    except OSError as error:
        raise LaunchError(f"{path}: the answer cannot be put on record: {error}") from error
    finally:
        log.close()


def _past(identity: str) -> Past:
    path = paths.audit_path(identity)
    try:
        return read_past(path)
    except OSError as error:
        raise LaunchError(f"{path}: cannot be read: {error.strerror or error}") from error
