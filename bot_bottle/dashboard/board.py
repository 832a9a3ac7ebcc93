"""What is known of all bottles, kept true by what changes on disk and by nothing else.

The kernel tells of each state folder, each launcher that lets go of its lock and each log that grows; only
what changed is looked at again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from bot_bottle import bottle_state, paths, watch
from bot_bottle.control_client import ControlClient, NotReachableError
from bot_bottle.dashboard.tally import Tally
from bot_bottle.errors import BotBottleError
from bot_bottle.events import LogReader
from bot_bottle.files import make_private_dir
from bot_bottle.legible import legible
from bot_bottle.refused_credentials import sentences
from bot_bottle.supervise.operator import Asked

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.bottle_state import BottleMetadata, BottleStateSummary
    from bot_bottle.refused_credentials import Refused

_FOLDERS = watch.CREATE | watch.DELETE | watch.MOVED_FROM | watch.MOVED_TO
_STATE = _FOLDERS | watch.CLOSE_WRITE
_LOGS = watch.MODIFY | watch.CREATE | watch.MOVED_TO | watch.CLOSE_WRITE
#: inotify tells of a closed lock an instant before the kernel lets go of it (fput(): first the one, then the
#: other), and a bottle goes on for a moment after its sidecar: both are looked at again for so long.
SETTLING_SECONDS = 3.0
#: How often everything is looked at where nothing tells of changes.
LOOK_SECONDS = 2.0

RUNNING, DETACHED, CUT_OFF, DESERTED = "running", "detached", "cut off", "no sidecar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottle:
    """One bottle as it is now.

    ``state`` is the word for that of its folder, or ``cut off`` (panic), or ``no sidecar`` where a session
    goes on without one. ``up`` is in seconds, None where it does not run; ``rate`` is requests a second.
    """

    identity: str
    state: str
    agent: str = ""
    bottle: str = ""
    backend: str = ""
    cwd: str = ""
    started_at: str = ""
    exit_code: int | None = None
    up: float | None = None
    requests: int = 0
    rate: float = 0.0
    denied: int = 0
    tokens: int = 0
    asks: int = 0
    push: str = ""
    pushed_at: str = ""
    refused_credentials: tuple[Refused, ...] = ()

    @property
    def complaints(self) -> tuple[str, ...]:
        """Say which credentials servers refused, and what to do."""
        return sentences(
            self.refused_credentials, self.identity, status=RUNNING if self.is_live else self.state
        )

    @property
    def is_live(self) -> bool:
        """Tell whether a launcher holds it."""
        return self.state in {RUNNING, DETACHED, CUT_OFF, DESERTED}


class _Known:
    """What is kept of one bottle between looks."""

    def __init__(self, summary: BottleStateSummary) -> None:
        self.summary = summary
        self.tally = Tally()
        self.deserted = False
        self.settles = 0.0
        self.reader = LogReader(paths.audit_path(summary.identity))

    def read_on(self) -> None:
        """Count what has come to the log."""
        try:
            for data in self.reader.pieces():
                self.reader.offset += len(data)
                self.tally.take(data)
        except OSError:
            pass  # there is none yet, or it was moved away: then nothing more comes

    def look(self) -> None:
        """Look at the state folder and, where that matters, knock at the control socket."""
        identity = self.summary.identity
        self.summary = bottle_state.state_of(identity)
        self.deserted = self.summary.status == RUNNING and _is_deserted(identity)


class Board:
    """All bottles of this installation; a context manager. Used by one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._watch: watch.Watch | None = None
        self._looked = 0.0
        #: Why changes are not heard of, in a sentence; empty where they are.
        self.trouble = ""
        try:
            self._begin()
        except OSError as error:
            self._stop_watching(error)
        self._look_at_all()

    def _begin(self) -> None:
        self._watch = watch.Watch()
        self._roots = {str(folder): folder for folder in (paths.state_root(), paths.audit_path("x").parent)}
        for folder, what in zip(self._roots.values(), (_FOLDERS, _LOGS), strict=True):
            make_private_dir(folder)
            self._watch.add(folder, what)

    def _stop_watching(self, error: OSError) -> None:
        self.close()
        self.trouble = f"changes cannot be heard of ({error.strerror}); looking every {LOOK_SECONDS:g} s"

    def fileno(self) -> int:
        """Give a descriptor that can be read once something has changed; -1 where none can be had."""
        return self._watch.fileno() if self._watch is not None else -1

    @property
    def is_settling(self) -> bool:
        """Tell whether something is to be looked at again soon, whatever is heard."""
        return self._watch is None or any(known.settles for known in self._known.values())

    def update(self) -> frozenset[str]:
        """Look at what has changed since the last time; gives the bottles that may be different."""
        now = time.monotonic()
        if self._watch is None:
            if now - self._looked < LOOK_SECONDS:
                return frozenset()
            return self._look_at_all()
        grown, touched = set[str](), set[str]()
        for change in self._watch.read():
            if change.is_lost:
                return self._look_at_all()
            self._sort(change, grown, touched)
        for known in self._known.values():
            if known.settles:
                touched.add(known.summary.identity)
                known.settles = 0.0 if now > known.settles else known.settles
        for identity in touched:
            self._look_at(identity)
        for identity in grown - touched:
            if identity in self._known:
                self._known[identity].read_on()
        return frozenset(grown | touched)

    def _sort(self, change: watch.Change, grown: set[str], touched: set[str]) -> None:
        """Say which bottle a change is of, and whether more than its log is to be looked at."""
        state_root, logs = self._roots
        soon = time.monotonic() + SETTLING_SECONDS
        if change.folder == logs:
            identity = change.name.removesuffix(".jsonl")
            grown.add(identity)
            if change.what & watch.CLOSE_WRITE and identity in self._known:
                self._known[identity].settles = soon
        elif change.folder == state_root:
            touched.add(change.name)
        else:
            identity = change.folder.rpartition("/")[2]
            touched.add(identity)
            if change.name in {"lock", "control"} and identity in self._known:
                self._known[identity].settles = soon

    def _look_at_all(self) -> frozenset[str]:
        self._looked = time.monotonic()
        states = {one.identity: one for one in bottle_state.list_states()}
        for identity in {*states, *self._known}:
            self._look_at(identity)
        return frozenset({*states, *self._known})

    def _look_at(self, identity: str) -> None:
        if not bottle_state.IDENTITY_PATTERN.fullmatch(identity):
            return
        folder = paths.state_dir(identity)
        if not folder.is_dir() or folder.is_symlink():
            self._known.pop(identity, None)
            return
        known = self._known.get(identity)
        if known is None:
            known = self._known[identity] = _Known(bottle_state.state_of(identity))
            self._watch_state(folder)
        known.look()
        known.read_on()

    def _watch_state(self, folder: Path) -> None:
        if self._watch is not None:
            try:
                self._watch.add(folder, _STATE)
            except OSError as error:
                self._stop_watching(error)

    def bottles(self) -> tuple[Bottle, ...]:
        """Give all bottles: those that run, the newest first, then those that are kept."""
        now, clock = time.time(), time.monotonic()
        found = [_bottle(known, now, clock) for known in self._known.values()]
        found.sort(key=lambda one: (one.started_at, one.identity), reverse=True)
        return tuple(sorted(found, key=lambda one: not one.is_live))

    def bottle(self, identity: str) -> Bottle | None:
        """Give one bottle; None where it is gone."""
        known = self._known.get(identity)
        return _bottle(known, time.time(), time.monotonic()) if known else None

    def requests(self) -> tuple[Asked, ...]:
        """Give what agents ask and nobody has answered, the oldest first."""
        found = [
            Asked(identity=identity, running=known.summary.status == RUNNING, request=request)
            for identity, known in self._known.items()
            for request in known.tally.past.open
        ]
        return tuple(sorted(found, key=lambda one: (one.request.asked, one.request.id)))

    def close(self) -> None:
        """Let go; safe to call again."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _bottle(known: _Known, now: float, clock: float) -> Bottle:
    summary, tally = known.summary, known.tally
    data = summary.metadata
    running = summary.status == RUNNING
    state = summary.word
    if running and (known.deserted or tally.halted):
        state = DESERTED if known.deserted else CUT_OFF
    push = tally.push
    started_at = data.started_at if data else ""
    return Bottle(
        identity=summary.identity,
        state=state,
        agent=data.agent_name if data else "",
        bottle=data.bottle_name if data else "",
        backend=_backend(data),
        cwd=data.cwd if data else "",
        started_at=started_at,
        exit_code=data.exit_code if data and not running else None,
        up=max(0.0, now - _seconds(tally.began or started_at, now)) if running else None,
        requests=tally.requests,
        rate=tally.rate(clock) if running else 0.0,
        denied=tally.denied,
        tokens=tally.tokens,
        asks=len(tally.past.open),
        push=_push_text(push) if push else "",
        pushed_at=str(push.get("time", "")) if push else "",
        refused_credentials=tuple(tally.refused),
    )


def _backend(data: BottleMetadata | None) -> str:
    from bot_bottle.backend.registry import LEGACY_BACKEND  # noqa: PLC0415

    return (data.backend if data else "") or LEGACY_BACKEND


def _push_text(push: dict[str, object]) -> str:
    refs = push.get("refs")
    first = refs[0].split() if isinstance(refs, list) and refs and isinstance(refs[0], str) else []
    ref = first[1].removeprefix("refs/heads/") if len(first) > 1 else ""
    if push.get("event") == "git_push_result":
        result = "taken" if push.get("taken") is True else "refused upstream"
    else:
        result = "on its way" if push.get("decision") == "allow" else "refused"
    return legible(f"{ref} {result}".strip())


def _seconds(text: str, fallback: float) -> float:
    from datetime import datetime  # noqa: PLC0415

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return fallback


def _is_deserted(identity: str) -> bool:
    """Tell whether nobody serves a control socket that is there."""
    try:
        ControlClient.connect(identity, 1.0).close()
    except NotReachableError as error:
        return error.deserted
    except (BotBottleError, OSError):
        return False
    return False
