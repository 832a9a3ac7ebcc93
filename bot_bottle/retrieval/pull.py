"""The last step: the scan, and then the branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle import repository as operator
from bot_bottle.errors import UsageError
from bot_bottle.git_gate.commands import Command, is_ref_name
from bot_bottle.git_gate.inspection import inspect
from bot_bottle.git_gate.scanning import PipelockScanner
from bot_bottle.retrieval import home as homes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from bot_bottle.git_gate.report import PushFinding
    from bot_bottle.repository import Repository
    from bot_bottle.retrieval.arrival import Arrival
    from bot_bottle.secret import Secret

_ENGINE_SECONDS = 120.0
_MOST_FINDINGS = 20
#: Puts one event with its fields on record.
Record: TypeAlias = "Callable[..., None]"
#: Every branch that comes out of a bottle stands below this.
PREFIX = "bottle/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What became of a branch: ``old`` is where it stood (``""``: nowhere), ``new`` where it leads now."""

    branch: str
    old: str
    new: str
    findings: tuple[PushFinding, ...] = ()


def branch_name(wanted: str) -> str:
    """Give the operator's branch for a name given by hand; raises ``UsageError`` for none that git takes."""
    branch = PREFIX + wanted.removeprefix(PREFIX)
    if not is_ref_name(f"refs/heads/{branch}"):
        raise UsageError(f"{wanted!r} is no name for a branch; use letters, digits, '-', '_', '.' and '/'")
    return branch


def nothing_new(arrival: Arrival, home: Repository, branch: str, uncommitted: int, *, named: bool) -> str:
    """Say in a sentence that there is nothing to bring; empty where ``branch`` brings something.

    Raises ``UsageError`` where there is something that was not asked for.

    ``uncommitted`` is the number of changes that could be asked for. A branch that was ``named`` may also
    lead to what another branch has already.
    """
    if arrival.tip and arrival.tip not in arrival.view.known:
        return ""
    if arrival.tip and operator.branches(home).get(branch, ("", ""))[0] == arrival.tip:
        return ""  # it was brought before
    if uncommitted:
        are = "change is" if uncommitted == 1 else "changes are"
        raise UsageError(
            f"the bottle has committed nothing that you do not have; {uncommitted} {are} uncommitted, "
            f"bring {'it' if uncommitted == 1 else 'them'} with --uncommitted"
        )
    if named and arrival.tip:
        return ""
    return "the bottle has nothing that you do not have"


async def pull(  # noqa: PLR0913 - all but the first by name
    arrival: Arrival,
    home: Repository,
    branch: str,
    *,
    secrets: Mapping[str, Secret],
    cache: Path,
    say: Callable[..., Awaitable[None]],
    record: Record,
    replace: bool = False,
    accept_findings: bool = False,
) -> Pulled:
    """Scan the work and let ``branch`` lead to it; with findings nothing happens unless they are accepted.

    ``record`` is told of the decision before anything is done; what it raises keeps the work out. Raises
    ``UsageError`` where the branch is in use or would lose commits, ``GitError``, and ``LaunchError`` where
    the operator's repository cannot be written.
    """
    old = homes.require_free(home, branch)
    if old == arrival.tip:
        return Pulled(branch=branch, old=old, new=old)
    if old and not replace and not await _follows(arrival, old):
        raise UsageError(
            f"{branch} has commits that this would drop; choose another name with --branch, or say --replace"
        )
    command = Command(ref=f"refs/heads/{branch}", old=old or "0" * len(arrival.tip), new=arrival.tip)
    from bot_bottle.pipelock.loader import LateEngine  # noqa: PLC0415 - loads a native library

    scanner = PipelockScanner(secrets, placeholders=(), engine=LateEngine(cache, wait=_ENGINE_SECONDS))
    new = await arrival.quarantine.new_objects([arrival.tip])
    findings, _ = await inspect(arrival.quarantine, [command], new, arrival.rules, scanner, say)
    taken = accept_findings or not findings
    # The scan takes its time, and the operator may have gone to that branch meanwhile.
    if taken and homes.require_free(home, branch) != old:
        raise UsageError(f"{branch} was moved meanwhile; nothing was brought, pull again")
    record(
        "pull",
        decision="allow" if taken else "deny",
        reason="" if taken else "secret_found",
        repository=str(home.folder),
        branch=branch,
        old=old,
        new=arrival.tip,
        uncommitted=bool(arrival.uncommitted.commit) and arrival.tip == arrival.uncommitted.commit,
        findings=[str(one) for one in findings[:_MOST_FINDINGS]],
        accepted_findings=bool(findings) and taken,
    )
    if not taken:
        return Pulled(branch=branch, old=old, new="", findings=findings)
    for pack in sorted((arrival.quarantine.path / "pack").glob("*.pack")):
        operator.add_pack(home, pack)
    operator.move_branch(home, branch, old=old, new=arrival.tip)
    return Pulled(branch=branch, old=old, new=arrival.tip, findings=findings)


async def _follows(arrival: Arrival, old: str) -> bool:
    return await arrival.quarantine.is_ancestor(old, arrival.tip)
