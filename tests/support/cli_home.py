"""An operator's home for the commands that start nothing, on a backend that only records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle import audit, bottle_state, paths
from bot_bottle.backend import registry
from bot_bottle.bottle_state import BottleMetadata
from tests.support.scripted_backend import ScriptedBackend

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def scripted_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``folder/bb`` the operator's home, ``folder`` the current one, ``scripted`` the only backend."""
    base = folder / "bb"
    for name in ("bottles", "agents"):
        (base / name).mkdir(parents=True, mode=0o755)
    base.chmod(0o700)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(base))
    monkeypatch.chdir(folder)
    ScriptedBackend.reset()
    place = "tests.support.scripted_backend:ScriptedBackend"
    monkeypatch.setattr(registry, "_BACKENDS", {"scripted": place})
    return base


def state(identity: str, *, kept: bool = False) -> Path:
    """Make the state of one launch, preserved where it is ``kept``; gives its folder."""
    metadata = BottleMetadata(
        identity=identity,
        agent_name=identity[:-6],
        bottle_name="b",
        backend="scripted",
        started_at="2026-11-23T10:00:00+00:00",
        exit_code=1 if kept else None,
    )
    folder = bottle_state.create_state(metadata)
    if kept:
        bottle_state.mark_preserved(identity)
    return folder


def declare(
    home: Path, bottle: str, agent: str = "bottle: b\n", body: str = "Read only.\nSecond line."
) -> None:
    """Write the bottle ``b`` and the agent ``a``, each from its frontmatter."""
    for path, text in (
        (home / "bottles" / "b.md", f"---\n{bottle}---\n"),
        (home / "agents" / "a.md", f"---\n{agent}---\n{body}\n"),
    ):
        path.write_text(text)
        path.chmod(0o644)


def record(identity: str) -> Path:
    """Write the audit log of one bottle, with one denial in it; gives its path."""
    path = paths.audit_path(identity)
    log = audit.AuditLog.open(path)
    log.append("deny", host="evil.example", reason="host_not_allowed", detail="two words\x1b[2J")
    log.close()
    return path
