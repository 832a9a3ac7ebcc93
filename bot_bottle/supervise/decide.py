"""A human's yes or no to one request, in the same way from a command and from the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.declared import read_routes
from bot_bottle.errors import BotBottleError, UnavailableError, UsageError
from bot_bottle.supervise import edits
from bot_bottle.supervise.grant import warnings
from bot_bottle.supervise.ledger import Answer
from bot_bottle.supervise.operator import let_pass, make_grant, make_push_grant, respond
from bot_bottle.supervise.push_grant import HEADS, push_warnings

if TYPE_CHECKING:
    from bot_bottle.supervise.edits import FileChange
    from bot_bottle.supervise.grant import Grant
    from bot_bottle.supervise.ledger import Verdict
    from bot_bottle.supervise.operator import Asked
    from bot_bottle.supervise.push_grant import PushGrant
    from bot_bottle.supervise.request import Kind

#: How long a yes holds unless the operator says otherwise.
USUAL = "1h"
#: Holds as long as the bottle lives, and is written into the bottle's file for all later starts.
MANIFEST = "manifest"
DENIED = "the operator says no"

#: What of a request may be granted otherwise than it was asked.
_CHANGEABLE: dict[Kind, frozenset[str]] = {
    "egress": frozenset({"host", "path", "method"}),
    "git": frozenset({"branch", "path"}),
    "capability": frozenset(),
    "content": frozenset(),
}
#: What fits into a line or two is said in one sentence; what is longer has a line for each thing.
_IN_A_LINE = 110
_NOT_LIVE = "nothing in the bottle changes by itself: change its image or its manifest, then resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a request is granted: what is empty stays as the agent asked it.

    ``lasting`` is ``once``, ``bottle``, ``manifest`` or a time like ``2h``; ``words`` are what the agent is
    told. Of a push, ``branches`` and ``paths`` together take the place of what was asked.
    """

    lasting: str = USUAL
    host: str = ""
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What a yes would do, before it is given: ``opens`` in a line, ``notes`` on what to weigh.

    ``grant`` is None where nothing opens by itself; ``changed`` tells whether it differs from what was asked.
    ``edit`` is what is written for later starts.
    """

    opens: str
    notes: tuple[str, ...] = ()
    grant: Grant | PushGrant | None = None
    changed: bool = False
    edit: FileChange | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        """What it opens, to be read line by line: all of it, the widest of each kind first."""
        if self.grant is None or len(self.opens) <= _IN_A_LINE or not self.grant.items:
            return (self.opens,)
        return (f"{self.grant.head}:", *(f"  {item}" for item in self.grant.items))


def prospect(asked: Asked, choice: Choice) -> Prospect:
    """Say what a yes would do; raises ``UsageError`` with a sentence for what cannot be granted."""
    one = asked.request
    given = {"host": choice.host, "branch": choice.branches, "path": choice.paths, "method": choice.methods}
    if other := [name for name, value in given.items() if value and name not in _CHANGEABLE[one.kind]]:
        raise UsageError(f"{one.id} asks for {one.kind}, which has no {other[0]}: leave --{other[0]} out")
    if one.kind == "content":
        return _content(asked, choice)
    if one.kind == "git":
        return _push(asked, choice)
    if one.kind == "capability":
        return _image(asked) if one.dockerfile else Prospect(opens=_NOT_LIVE)
    lasting = "bottle" if choice.lasting == MANIFEST else choice.lasting
    grant = make_grant(one, lasting=lasting, host=choice.host, paths_=choice.paths, methods=choice.methods)
    route = grant.route
    edit = edits.route_edit(asked.identity, route) if choice.lasting == MANIFEST else None
    changed = (route.host, route.path_allowlist, route.methods) != (one.host, one.paths, one.methods)
    notes = warnings(route, _with_credential(asked.identity))
    return Prospect(opens=grant.terms, notes=notes, grant=grant, changed=changed, edit=edit)


def _with_credential(identity: str) -> frozenset[str]:
    """Give the hosts that the bottle's own routes bring a credential to."""
    return frozenset(route.host for route in read_routes(identity) or () if route.auth)


def _push(asked: Asked, choice: Choice) -> Prospect:
    """Say what a yes to a push does."""
    one = asked.request
    lasting = "bottle" if choice.lasting == MANIFEST else choice.lasting
    push = make_push_grant(one, lasting=lasting, branches=choice.branches, paths_=choice.paths)
    as_asked = tuple(ref.removeprefix(HEADS) for ref in one.refs), one.paths
    changed = (push.branches, push.paths) != as_asked
    notes, edit = push_warnings(push), None
    if choice.lasting == MANIFEST:
        edit = edits.push_edit(asked.identity, push)
        if push.branches and push.paths:
            notes = (*notes, "in the file the paths are open on every branch that may be pushed")
    return Prospect(opens=push.terms, notes=notes, grant=push, changed=changed, edit=edit)


def _content(asked: Asked, choice: Choice) -> Prospect:
    """Say what a yes to what content scanning found does."""
    if choice.lasting == MANIFEST:
        raise UsageError("what was found is let pass while the bottle lives; write once, bottle, or a time")
    grant = let_pass(asked, lasting=choice.lasting)
    return Prospect(opens=grant.terms, notes=("the values are kept nowhere, so none is shown",), grant=grant)


def _image(asked: Asked) -> Prospect:
    """Say what a yes to a changed Dockerfile does."""
    text = asked.request.dockerfile
    try:
        change, notes = edits.dockerfile_change(asked.identity, text)
    except UnavailableError as error:
        return Prospect(opens=f"nothing changes: {error}")
    again = f"bot-bottle resume {asked.identity}"
    if asked.running:
        again = f"bot-bottle stop {asked.identity}, then {again}"
    return Prospect(
        opens=f"the bottle's image is built from this Dockerfile from the next start on; restart it: {again}",
        notes=notes,
        edit=change,
    )


def approve(asked: Asked, choice: Choice, seen: Prospect | None = None) -> Prospect:
    """Say yes, to what ``seen`` showed where it was shown.

    Raises as :func:`prospect`, and ``LaunchError`` where the answer does not arrive; nothing holds then.
    """
    given = seen or prospect(asked, choice)
    verdict: Verdict = "changed" if given.changed else "approved"
    if given.edit is not None:
        given.edit.put_in_place()
    try:
        respond(asked, Answer(verdict=verdict, words=choice.words), given.grant)
    except (BotBottleError, OSError):
        if given.edit is not None:  # the agent was told nothing, so nothing is to hold
            given.edit.take_back()
        raise
    return given


def deny(asked: Asked, words: str = "") -> None:
    """Say no; raises as :func:`approve`."""
    respond(asked, Answer(verdict="denied", words=words or DENIED), None)
