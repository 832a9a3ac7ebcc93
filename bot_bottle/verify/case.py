"""One attack, and what is known of it afterwards."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bot_bottle.verify import inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bot_bottle.verify.stage import Stage

#: The id of what shows that attacks could succeed: without it nothing else is proof.
CONTROL = "control"

Verdict = Literal["held", "NOT HELD", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was seen of one attack: whether it was held, in words; or why it was not run here."""

    verdict: Verdict
    seen: str


Run: TypeAlias = "Callable[[Stage], Finding]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attack: ``id`` names its line of docs/security.md, ``expected`` says what has to happen."""

    id: str
    title: str
    expected: str
    run: Run


def held(seen: str) -> Finding:
    """Say that an attack came to nothing."""
    return Finding(verdict="held", seen=seen)


def broken(seen: str) -> Finding:
    """Say that an attack got through, or proved nothing."""
    return Finding(verdict="NOT HELD", seen=seen)


def not_run(why: str) -> Finding:
    """Say why an attack was not made here."""
    return Finding(verdict="not run", seen=why)


#: Judges what a script told; gives what is wrong with it, or nothing.
Wrong: TypeAlias = "Callable[[Stage, dict[str, Any]], str]"


def new_mark(prefix: str) -> str:
    """Draw a text that stands nowhere else: what carries it out is found by searching for it."""
    return f"{prefix.lower()}-{secrets.token_hex(6)}"


def requests(
    code: str,
    *,
    reasons: Iterable[str] = (),
    wrong: Wrong | None = None,
    needs_whole: bool = False,
    **values: object,
) -> Run:
    """Make an attack of a script that must tell how each of its tries ended, and whose mark must not arrive.

    The script has ``mark``, and ``told``: a dictionary of tries that it fills. Each try has to end in one of
    ``reasons`` where there are any. ``needs_whole`` leaves it out where not every address is the sinkhole's.
    """
    allowed = frozenset(reasons)

    def run(stage: Stage) -> Finding:
        if needs_whole and not stage.outside.whole:
            return not_run("the sinkhole has some of the addresses only")
        mark, before = new_mark("v"), stage.refusals()
        text = f"told = {{}}\n{code}\ntell(told=told)\n"
        told = inside.run(stage.bottle, text, mark=mark, door=stage.outside.door, given=values)["told"]
        if not told:
            return broken("the script tried nothing")
        arrived = stage.outside.arrived(mark)
        if arrived:
            return broken(f"arrived: {arrived[0]}")
        other = {name: end for name, end in told.items() if allowed and end not in allowed}
        if other:
            name, end = next(iter(other.items()))
            return broken(f"{name}: {end} (nothing arrived)")
        if allowed and stage.refusals() == before:
            return broken("nothing arrived, but no refusal is on record")
        if wrong is not None and (what := wrong(stage, told)):
            return broken(what)
        return held(_ends(told))

    return run


def _ends(told: dict[str, Any]) -> str:
    ends = sorted({str(end) for end in told.values()})
    tries = f"{len(told)} tries" if len(told) > 1 else "1 try"
    shown = ", ".join(ends[:3]) + (
        f" and {len(ends) - 3} other end{'s' * (len(ends) > 4)}" if len(ends) > 3 else ""
    )
    return f"{tries}, nothing arrived: {shown}"


#: How a script names a try that got through.
THROUGH = frozenset(
    {
        "SPOKEN",
        "UPGRADED",
        "PASSED",
        "HELD UP",
        "FOREIGN",
        "ANSWERED",
        "OPEN",
        "DONE",
        "HELD",
        "NOT SET",
        "NOT TOLD",
        "NONE",
        "YES",
    }
)


def through(stage: Stage, told: dict[str, Any]) -> str:
    """Judge a script by the ends that it wrote in capitals: with those it got through."""
    del stage
    ends = [f"{name}: {end}" for name, end in told.items() if end in THROUGH]
    return ends[0] if ends else ""
