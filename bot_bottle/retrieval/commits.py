"""The commits that a bottle made. Who made them is what they say of themselves, vouched for by nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.git_gate import git

if TYPE_CHECKING:
    from bot_bottle.retrieval.arrival import Arrival

MOST = 200
_FORM = "%H%x00%an <%ae>%x00%s"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCommit:
    """One commit; ``claims`` is the author it names."""

    commit: str
    claims: str
    subject: str


async def new_commits(arrival: Arrival) -> tuple[NewCommit, ...]:
    """List the commits that the operator does not have, newest first, at most :data:`MOST`."""
    if not arrival.committed:
        return ()
    asked = ["log", "-z", f"--format={_FORM}", f"--max-count={MOST}", "--no-show-signature", "--no-mailmap"]
    done = await arrival.view.git(
        *asked, arrival.committed, "--not", "--tags", way=git.Way(env=arrival.quarantine.env), seconds=300
    )
    fields = done.stdout.decode("utf-8", "replace").split("\0")
    return tuple(
        NewCommit(commit=fields[at], claims=fields[at + 1], subject=fields[at + 2])
        for at in range(0, len(fields) - 2, 3)
    )
