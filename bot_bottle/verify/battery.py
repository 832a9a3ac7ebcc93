"""Run every case against one bottle, tell each as it ends, and say what was not tried here."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import BotBottleError, UsageError
from bot_bottle.legible import legible
from bot_bottle.verify import inside
from bot_bottle.verify.case import CONTROL, Case, Finding, broken
from bot_bottle.verify.outside import (
    Outside,
    enter_own_network,
    own_network_possible,
    pinned_outside,
    whole_outside,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from bot_bottle.backend.base import BottleBackend
    from bot_bottle.verify.stage import Stage

_LOOPBACK = "127.0.0.1"

#: Every line of docs/security.md's battery that an attack can be made of.
LINES = tuple(
    f"{family}{number}"
    for family, last in (("A", 15), ("B", 16), ("C", 12), ("D", 8), ("E", 7), ("F", 7), ("G", 13), ("H", 4))
    for number in range(1, last + 1)
)

#: What no boundary prevents, whatever the backend.
_AT_ALL = (
    "What may be said to an allowed host can be nearly anything; a model's conversation is such a channel.",
    "An allowed host of many tenants is open to a stranger's account there too, unless paths narrow it.",
    "When and how much is sent to allowed hosts carries information.",
    "A route's credential can be used within its paths and methods, though not read.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One attack, what was seen of it, and how long it took in seconds."""

    case: Case
    finding: Finding
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole run. ``accounts`` says who runs inside; ``whole`` whether every address was the sinkhole's.

    ``seconds`` is with the launch.
    """

    backend: str
    boundary: str
    accounts: str
    whole: bool
    tried: tuple[Tried, ...]
    not_prevented: tuple[str, ...]
    seconds: float

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Give the lines of docs/security.md that no attack of this run stands for."""
        made = {
            line for one in self.tried if one.finding.verdict != "not run" for line in one.case.id.split()
        }
        return tuple(line for line in LINES if line not in made)

    @property
    def holds(self) -> bool:
        """Whether nothing got through; what was not run counts for nothing."""
        return all(one.finding.verdict != "NOT HELD" for one in self.tried)


def run_battery(backend: BottleBackend, tell: Callable[[Tried], None], only: Sequence[str] = ()) -> Report:
    """Launch a bottle on ``backend``, run all attacks in it, take it down; ``tell`` hears of each as it ends.

    ``only`` names lines (``B10``) or families of them (``B``), and then nothing else is run but what shows
    that the attacks could succeed. This process must have one thread: where it can, it moves into a network
    of its own for good. Raises ``UsageError`` for a name that is no line, and as a launch does.
    """
    wanted = _wanted(only)
    started = time.monotonic()
    place, settings = backend.host_address(), backend.demo_settings()
    with tempfile.TemporaryDirectory(prefix="bot-bottle-verify-") as name:
        scratch = Path(name)
        with _outside(scratch, place) as outside, _prepared(scratch, backend, outside, settings) as stage:
            tried = _run(stage, wanted, tell)
            limits = tuple(
                f"Nothing bounds the {limit.name} a bottle takes here: {limit.how}."
                for limit in stage.plan.limits
                if not limit.holds
            )
    return Report(
        backend=backend.name,
        boundary=backend.boundary,
        accounts=backend.accounts,
        whole=outside.whole,
        tried=tried,
        not_prevented=(*backend.not_prevented, *limits, *_AT_ALL),
        seconds=time.monotonic() - started,
    )


def _wanted(only: Sequence[str]) -> frozenset[str]:
    wanted = {line for line in LINES for name in only if name.upper() in {line, line[0]}}
    for name in only:
        if not any(name.upper() in {line, line[0]} for line in LINES):
            raise UsageError(
                f"--only {legible(name)}: no such line; give one (A1 to {LINES[-1]}) or a family (A to H)"
            )
    return frozenset(wanted)


def _outside(scratch: Path, place: str) -> AbstractContextManager[Outside]:
    if place == _LOOPBACK and own_network_possible():
        enter_own_network(scratch)
        return whole_outside()
    return pinned_outside(place)


def _prepared(
    scratch: Path, backend: BottleBackend, outside: Outside, settings: str
) -> AbstractContextManager[Stage]:
    # There are threads from here on, and so what brings them is imported after the network was made.
    from bot_bottle.verify.stage import bottle_under_test  # noqa: PLC0415

    return bottle_under_test(scratch, backend, outside, settings)


def all_cases() -> tuple[Case, ...]:
    """Give every attack there is, in the order in which they are made."""
    # There may be threads once these are imported.
    from bot_bottle.verify import (  # noqa: PLC0415
        becoming_root,
        boundary,
        content,
        credentials,
        destinations,
        host,
        names,
        network,
        surface,
    )

    families = (network, surface, names, destinations, credentials, content, becoming_root, boundary, host)
    cases = [case for family in families for case in family.CASES]
    return (*cases, *credentials.LAST, *host.LAST)


def _run(stage: Stage, wanted: frozenset[str], tell: Callable[[Tried], None]) -> tuple[Tried, ...]:
    from bot_bottle.verify.destinations import ASTRAY  # noqa: PLC0415 - as above

    stage.outside.lead(ASTRAY)
    tried = []
    for case in all_cases():
        if not wanted or case.id == CONTROL or not wanted.isdisjoint(case.id.split()):
            one = _try(case, stage)
            tell(one)
            tried.append(one)
    return tuple(tried)


def _try(case: Case, stage: Stage) -> Tried:
    started = time.monotonic()
    try:
        finding = case.run(stage)
    except inside.ScriptError as error:
        finding = broken(f"the attack's own script failed, so it proves nothing: {error}")
    except (BotBottleError, OSError) as error:
        finding = broken(f"the bottle failed meanwhile, so it proves nothing: {error}")
    return Tried(case=case, finding=finding, seconds=time.monotonic() - started)
