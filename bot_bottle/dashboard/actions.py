"""What the dashboard's keys do and what its pages say; nothing here draws."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import bottle_state, paths, running
from bot_bottle.control_client import ControlClient, wait_until_ended
from bot_bottle.dashboard.rows import Column, span
from bot_bottle.errors import LaunchError
from bot_bottle.legible import legible
from bot_bottle.supervise import decide
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bot_bottle.apply import Proposal
    from bot_bottle.backend.base import Bottle as BottleHandle
    from bot_bottle.dashboard.board import Bottle
    from bot_bottle.dashboard.rows import Cell
    from bot_bottle.dashboard.screens import Reply
    from bot_bottle.dashboard.table import Row
    from bot_bottle.supervise.operator import Asked

_STOP_SECONDS = 60.0
_ASK_SECONDS = 3.0

HELP: tuple[Cell, ...] = (
    ("Tab     from list to list, Shift+Tab back; arrows or j, k", ""),
    ("Enter   details of a bottle; answer a request; a decision", ""),
    ("", ""),
    ("Bottles", "strong"),
    ("n       start an agent; it lives on without this terminal", ""),
    ("r       resume the kept bottle at the cursor", ""),
    ("t       give the terminal to the agent of a running bottle", ""),
    ("x       stop a running bottle; its work is kept", ""),
    ("X       remove a kept bottle with its work, after a yes", ""),
    ("m       apply the manifest as it is now, after a look at it", ""),
    ("i       details, with what each route has carried", ""),
    ("P       cut all bottles off at once; L lifts that", ""),
    ("Requests", "strong"),
    ("a       look at it, change it, allow (^O) or deny it (^D)", ""),
    ("d       deny it, with words for the agent", ""),
    ("v       all fields of the request or decision at the cursor", ""),
    ("Decisions", "strong"),
    ("Enter   all fields of the one at the cursor", ""),
    ("/       only lines with these words; Escape shows all again", ""),
    ("f       refusals only, or everything again", ""),
    ("", ""),
    ("q       leave; bottles run on", ""),
)
AGENTS: tuple[Column, ...] = (
    Column(title="AGENT", width=24),
    Column(title="BOTTLE", width=24),
    Column(title="DECLARED IN", width=0, tail=True),
)


def details(one: Bottle, asked: Sequence[Asked]) -> list[str]:
    """Say what is known of a bottle without asking it."""
    facts = {
        "state": one.state,
        "agent": one.agent,
        "bottle": one.bottle,
        "backend": one.backend,
        "folder": one.cwd,
        "started": one.started_at,
        "up": span(one.up) if one.up is not None else "",
        "exit code": "" if one.exit_code is None else str(one.exit_code),
        "requests": f"{one.requests}, {one.denied} denied",
        "tokens": str(one.tokens) if one.tokens else "",
        "last push": f"{one.push} ({one.pushed_at[:19]})" if one.push else "",
        "record": str(paths.audit_path(one.identity)),
    }
    lines = [one.identity, ""]
    lines += [f"{name:<10} {legible(value)}" for name, value in facts.items() if value]
    lines += [f"refused    {sentence}" for sentence in one.complaints]
    if asked:
        lines += ["", "asks for"]
        lines += [f"{request.request.id}  {legible(request.request.summary)}" for request in asked]
    return lines


def full_details(one: Bottle, asked: Sequence[Asked]) -> list[Cell]:
    """Say all about a bottle, what its sidecar tells included."""
    lines: list[Cell] = [(line, "") for line in details(one, asked)[2:]]
    if not one.is_live:
        kept = bottle_state.bottle_state_dir(one.identity)
        return [
            *lines,
            ("", ""),
            (f"go on with: bot-bottle resume {one.identity}", "dim"),
            (str(kept), "dim"),
        ]
    try:
        with ControlClient.connect(one.identity, _ASK_SECONDS) as client:
            status = client.order("status")
    except LaunchError as error:
        return [*lines, ("", ""), (legible(str(error)), "bad")]
    return [*lines, ("", ""), ("routes: requests, refusals, errors", "strong"), *_routes(status)]


def _routes(status: Mapping[str, object]) -> Iterator[Cell]:
    routes = status.get("routes")
    for route in routes if isinstance(routes, list) else ():
        if isinstance(route, dict):
            counters = route.get("counters")
            yield _counted(str(route.get("host")), counters if isinstance(counters, dict) else {})
    elsewhere = status.get("elsewhere")
    if isinstance(elsewhere, dict) and isinstance(elsewhere.get("counters"), dict):
        yield _counted("(no route)", elsewhere["counters"])


def _counted(name: str, counters: Mapping[str, object]) -> Cell:
    numbers = [counters.get(key, 0) for key in ("requests", "denied", "errors")]
    return legible(f"{name:<40} {' '.join(f'{number!s:>8}' for number in numbers)}"), ""


def agents(cwd: Path) -> list[Row]:
    """Give the agents that can be started; raises ``BotBottleError``."""
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415 - at the first start

    manifest = Manifest.resolve(cwd)
    return [
        (one.name, ((one.name, "strong"), (one.bottle, ""), (legible(str(one.path)), "dim")))
        for one in sorted(manifest.agents.values(), key=lambda one: one.name)
    ]


def answer(asked: Asked, reply: Reply) -> str:
    """Answer a request; raises ``BotBottleError``."""
    one = asked.request
    if reply.verdict == "no":
        decide.deny(asked, reply.choice.words)
        return f"{one.id} of {asked.identity} is denied"
    given = decide.approve(asked, reply.choice, reply.seen)
    if given.grant is None:
        return f"{one.id} is approved; {given.opens}"
    when = "open now" if asked.running else f"it opens with: bot-bottle resume {asked.identity}"
    return f"{one.id} is approved, {when}: {given.opens}"


def stop(handle: BottleHandle, identity: str) -> str:
    """End a bottle's session; raises ``BotBottleError``."""
    handle.close()
    if not wait_until_ended(identity, _STOP_SECONDS):
        raise LaunchError(f"the session of {identity} has not ended within {_STOP_SECONDS:g} s")
    kept = bottle_state.bottle_state_dir(identity).is_dir()
    return f"{identity} is stopped" + ("; r resumes it" if kept else "")


def remove(identity: str) -> str:
    """Remove a kept bottle for good; raises ``BotBottleError`` or ``OSError``."""
    from bot_bottle.backend.launch import remove_bottle  # noqa: PLC0415 - seldom, and heavy

    with bottle_state.hold_lock(identity):
        remove_bottle(identity)
    return f"{identity} is removed; its record stays: bot-bottle audit {identity}"


def request_fields(asked: Asked) -> dict[str, object]:
    """Give all there is to know of a request, by name; what it does not have is left out."""
    fields = {"bottle": asked.identity, **asked.request.to_record(), "asks for": asked.request.summary}
    fields["asked"] = datetime.fromtimestamp(asked.request.asked, UTC).isoformat()
    return {name: value for name, value in fields.items() if value not in ("", [])}


def propose(identity: str, cwd: Path) -> Proposal:
    """Hold the manifest as it is now against a running bottle; raises ``BotBottleError``."""
    from bot_bottle import apply as applying  # noqa: PLC0415
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415

    metadata = bottle_state.require_running(identity)
    folder = Path(metadata.cwd) if metadata.cwd and Path(metadata.cwd).is_dir() else cwd
    return applying.propose(metadata, Manifest.resolve(folder), os.environ)


def proposed(proposal: Proposal) -> list[Cell]:
    """Say what a proposal changes, and what needs a restart."""
    lines: list[Cell] = [(f"- {legible(line)}", "bad") for line in proposal.change.before]
    lines += [(f"+ {legible(line)}", "good") for line in proposal.change.after]
    lines += [(f"+ credential {legible(name)}, read now", "good") for name in sorted(proposal.secrets)]
    if not lines:
        lines = [("routes: no difference", "dim")]
    if proposal.restart:
        lines += [("", ""), ("only from the next start on:", "strong")]
        lines += [(f"  {legible(line)}", "") for line in proposal.restart]
    return lines


def apply(proposal: Proposal) -> str:
    """Let a proposal hold; raises ``BotBottleError``."""
    from bot_bottle import apply as applying  # noqa: PLC0415

    closed = applying.apply(proposal)
    return f"{proposal.identity}: applied; {counted(closed, 'open connection')} closed"


def panic() -> str:
    """Cut every running bottle off and hold its agent still where that can be."""
    chosen = running.running_identities()
    outcomes = running.order_all(chosen, "panic")
    frozen = running.freeze_all(chosen)
    failed = [f"{one.identity}: {one.trouble}" for one in outcomes if one.trouble]
    if failed:
        raise LaunchError("\n".join([*failed, "end what does not answer with: bot-bottle panic --stop"]))
    cut, held = counted(len(chosen), "bottle"), counted(len(frozen), "agent")
    return f"{cut} cut off, {held} held still; L lifts it"


def lift() -> str:
    """Let the routes of all running bottles hold again."""
    chosen = running.running_identities()
    outcomes = running.order_all(chosen, "lift")
    running.thaw_all(chosen)
    failed = [f"{one.identity}: {one.trouble}" for one in outcomes if one.trouble]
    if failed:
        raise LaunchError("\n".join(failed))
    return f"the routes of {counted(len(chosen), 'bottle')} hold again"
