"""Hand a push on to the upstream, all of it or nothing, and hear what it says."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bot_bottle.git_gate import git
from bot_bottle.git_gate.report import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.git_gate.commands import Command
    from bot_bottle.git_gate.early import EarlyWay
    from bot_bottle.git_gate.mirror import Mirror
    from bot_bottle.git_gate.quarantine import Quarantine

_PUSH_SECONDS = 1800.0
_MOST_WORDS = 60
_TAKEN = frozenset({" ", "+", "-", "*", "="})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of each command (``""``: taken, else why not), and the upstream's own words."""

    results: Mapping[Command, str]
    words: tuple[str, ...]

    @property
    def taken(self) -> bool:
        """Whether the upstream took everything."""
        return not any(self.results.values())


async def forward(
    mirror: Mirror, quarantine: Quarantine, commands: Sequence[Command], early: EarlyWay | None
) -> Outcome:
    """Push to the upstream, by the ``early`` way if that still stands.

    Raises ``GitError`` where nothing was heard of it.

    Each ref is moved only from where the client saw it (``--force-with-lease``); whether that may drop
    commits was decided before.
    """
    options = ["--porcelain", "--no-verify", "--no-follow-tags", "--no-signed", "--no-progress"]
    if len(commands) > 1:
        options.append("--atomic")
    leases, specs = [], []
    for command in commands:
        old = command.old if command.action != "create" else ""
        leases.append(f"--force-with-lease={command.ref}:{old}")
        specs.append(f"{command.new if command.action != 'delete' else ''}:{command.ref}")
    if early is not None and not early.usable:
        early = None
    with contextlib.nullcontext(early.way()) if early else mirror.upstream.access() as way:
        done = await git.run(
            mirror.path,
            ["push", *options, *leases, "--", way.url, *specs],
            cwd=mirror.folder,
            way=quarantine.way(way),
            seconds=_PUSH_SECONDS,
            check=False,
        )
    if early is not None and done.returncode != 0:  # what ssh has to say of it
        done = replace(done, stderr=done.stderr + b"\n" + await early.close())
    outcome = read_outcome(done, commands)
    if mirror.upstream.failure and not outcome.taken:
        raise git.GitError(mirror.upstream.failure)
    redacted = mirror.upstream.redacted
    return Outcome(
        results={command: redacted(why) for command, why in outcome.results.items()},
        words=tuple(redacted(line) for line in outcome.words),
    )


def read_outcome(done: git.Finished, commands: Sequence[Command]) -> Outcome:
    """Read ``git push --porcelain``: taken is only what it says was taken, in a command that succeeded."""
    said = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        parts = line.split("\t")
        if len(parts) == 3 and len(parts[0]) == 1:
            said[parts[1].partition(":")[2]] = (parts[0], parts[2])
    words = remote_words(done.stderr)
    results = {}
    for command in commands:
        flag, summary = said.get(command.ref, ("!", ""))
        if flag in _TAKEN and done.returncode == 0:
            results[command] = ""
        elif flag in _TAKEN:
            results[command] = "the upstream did not take the push as a whole"
        else:
            if "stale info" in summary or "fetch first" in summary:
                summary = "somebody else has moved it since (fetch first)"
            unheard = git.last_words(done.stderr, "no reason was given")
            why = f"refused: {summary}" if summary else f"did not take it: {unheard}"
            results[command] = one_line(f"the upstream {why}")
    return Outcome(results=results, words=words)


def remote_words(stderr: bytes) -> tuple[str, ...]:
    """Give what the upstream itself said (``remote: ...``), bounded."""
    lines = stderr.decode("utf-8", "replace").replace("\r", "\n").splitlines()
    own = [line.removeprefix("remote:").rstrip() for line in lines if line.startswith("remote:")]
    return tuple(one_line(line) for line in own if line.strip())[:_MOST_WORDS]
