"""A human's yes or no to one request, in the same way from a command and from the screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError
from bot_bottle.supervise.grant import warnings
from bot_bottle.supervise.ledger import Answer
from bot_bottle.supervise.operator import make_grant, respond

if TYPE_CHECKING:
    from bot_bottle.supervise.grant import Grant
    from bot_bottle.supervise.ledger import Verdict
    from bot_bottle.supervise.operator import Asked

#: How long a yes holds unless the operator says otherwise.
USUAL = "1h"
DENIED = "the operator says no"

_NOT_LIVE = {
    "git": "the gate keeps its rules while it runs: edit the bottle (git.remotes), then resume",
    "capability": "nothing in the bottle changes by itself: change its image or its manifest, then resume",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """How a request is granted: what is empty stays as the agent asked it.

    ``lasting`` is ``once``, ``bottle`` or a time like ``2h``; ``words`` are what the agent is told.
    """

    lasting: str = USUAL
    host: str = ""
    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What a yes would do, before it is given: ``opens`` in a line, ``notes`` on what to weigh.

    ``grant`` is None where nothing opens by itself; ``changed`` tells whether it differs from what was asked.
    """

    opens: str
    notes: tuple[str, ...] = ()
    grant: Grant | None = None
    changed: bool = False


def prospect(asked: Asked, choice: Choice) -> Prospect:
    """Say what a yes would do; raises ``UsageError`` with a sentence for what cannot be granted."""
    one = asked.request
    if one.kind != "egress":
        if choice.host or choice.paths or choice.methods:
            raise UsageError(
                f"--host, --path and --method are for egress requests; {one.id} asks for {one.kind}"
            )
        return Prospect(opens=_NOT_LIVE[one.kind])
    grant = make_grant(
        one, lasting=choice.lasting, host=choice.host, paths_=choice.paths, methods=choice.methods
    )
    route = grant.route
    changed = (route.host, route.path_allowlist, route.methods) != (one.host, one.paths, one.methods)
    return Prospect(opens=grant.terms, notes=warnings(route), grant=grant, changed=changed)


def approve(asked: Asked, choice: Choice) -> Prospect:
    """Say yes; raises as :func:`prospect`, and ``LaunchError`` where the answer does not arrive."""
    given = prospect(asked, choice)
    verdict: Verdict = "changed" if given.changed else "approved"
    respond(asked, Answer(verdict=verdict, words=choice.words), given.grant)
    return given


def deny(asked: Asked, words: str = "") -> None:
    """Say no; raises as :func:`approve`."""
    respond(asked, Answer(verdict="denied", words=words or DENIED), None)
