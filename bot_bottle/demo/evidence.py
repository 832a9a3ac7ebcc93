"""What tells whether a scene went as it should: the audit log, and where a credential's bytes are found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bot_bottle.demo.stage import PLACEHOLDER
from bot_bottle.verify.processes import all_processes, holds

if TYPE_CHECKING:
    from bot_bottle.backend.base import ExecResult
    from bot_bottle.demo.stage import Stage

#: What nothing takes that a bottle is asked to do here, not even where a machine is emulated.
SECONDS = 120.0
_KEYS = (
    "seq", "event", "decision", "reason", "rule", "method", "host", "path", "name", "via", "injected",
    "remote", "refs", "taken",
)  # fmt: skip


def last_line(stage: Stage, place: str) -> dict[str, object]:
    """Give the last audit line about a host, a name that was looked up, or a git remote."""
    lines = [
        line for line in stage.audit() if place in (line.get("host"), line.get("name"), line.get("remote"))
    ]
    return lines[-1] if lines else {}


def told_line(line: dict[str, object]) -> tuple[str, str]:
    """Tell an audit line, short."""
    return "audit", json.dumps({key: line[key] for key in _KEYS if line.get(key) is not None})


def decided(stage: Stage, place: str) -> tuple[tuple[str, str], ...]:
    """Tell who decided and the audit line that says so."""
    line = last_line(stage, place)
    who = f"the sidecar: {line.get('decision')}, by {line.get('rule') or 'its own DNS server'}"
    return ("decided", who), told_line(line)


def places_of(stage: Stage, token: str) -> list[str]:
    """Search, from outside, everything the agent can read and everything that outlives it for ``token``."""
    needle = token.encode()
    inside = stage.bottle.exec(
        "env; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null;"
        " find / -xdev -path /proc -prune -o -path /usr -prune -o -type f -exec cat {} + 2>/dev/null;"
        " find /home /tmp /run -type f -exec cat {} + 2>/dev/null",
        timeout=SECONDS,
    )
    places = ["the bottle"] if needle in inside.stdout + inside.stderr else []
    if PLACEHOLDER.encode() not in inside.stdout:  # the search finds what is there, or it proves nothing
        places.append("nowhere that could be searched")
    outside = [path for path in stage.plan.state_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    places += [str(path) for path in [*outside, stage.plan.audit_path] if holds(path, needle)]
    places += [str(path / "cmdline") for path in all_processes() if holds(path / "cmdline", needle)]
    return places


def whereabouts(found: list[str]) -> str:
    """Say what :func:`places_of` found."""
    if found:
        return f"the token's bytes are in: {', '.join(found)}"
    return (
        "the token's bytes are in none of its files, environments or arguments, nor in its state folder or"
        " audit log"
    )


def text(result: ExecResult) -> str:
    """Give what a command printed."""
    return result.stdout.decode(errors="replace").strip()


def error_text(result: ExecResult) -> str:
    """Give how a command ended and the end of its errors."""
    return f"exit {result.returncode}: {result.stderr.decode(errors='replace').strip()[-300:]}"
