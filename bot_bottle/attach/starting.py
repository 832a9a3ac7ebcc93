"""Start or resume a detached bottle from a program that is not to become one: the dashboard's way.

The command itself is run, as a process of its own, so that nothing of the caller's (threads, a loop, a
screen) gets into a launcher.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle import process
from bot_bottle.errors import BotBottleError, LaunchError, UnavailableError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_ERRORS: dict[int, type[BotBottleError]] = {
    error.exit_code: error for error in (UsageError, UnavailableError, LaunchError)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A bottle that is up: its identity, and where what its agent writes is kept."""

    identity: str
    output: str


def start_detached(agent: str, *, options: Sequence[str] = (), cwd: Path | None = None) -> Started:
    """Start ``agent`` in a new bottle without a terminal and wait until it runs; nobody is asked anything.

    ``options`` are those of ``bot-bottle start`` (``--cwd``, ``--headless``, ``--prompt-file`` ...). Raises
    what the command ends with (``UsageError``, ``UnavailableError``, ``LaunchError``), its words the error's.
    """
    return _run("start", agent, options, cwd)


def resume_detached(identity: str, *, options: Sequence[str] = ()) -> Started:
    """Go on with a preserved bottle in the same way."""
    return _run("resume", identity, options, None)


def _run(command: str, name: str, options: Sequence[str], cwd: Path | None) -> Started:
    done = subprocess.run(
        [*process.OWN_COMMAND, command, name, "--detach", "--yes", "--json", *options],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    if done.returncode != 0:
        words = process.last_line(done.stderr, f"{command} ended with exit code {done.returncode}")
        raise _ERRORS.get(done.returncode, LaunchError)(words.removeprefix("bot-bottle: "))
    report = json.loads(done.stdout)
    return Started(identity=report["identity"], output=report["output"])
