"""Which control groups are ours to remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle import bottle_state, paths
from bot_bottle.backend.bubblewrap import backend
from bot_bottle.bottle_state import BottleMetadata

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_only_groups_of_this_installations_dead_launches_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "bb"))
    folders = {
        name: ["/sys/fs/cgroup/x"] for name in ("dead-aaaaa", "alive-bbbbb", "foreign-ccccc", "no identity")
    }
    monkeypatch.setattr(backend, "leftover_folders", lambda: folders)
    for identity in ("dead-aaaaa", "alive-bbbbb"):
        bottle_state.create_state(BottleMetadata(identity=identity))
        paths.audit_path(identity).parent.mkdir(exist_ok=True)
        paths.audit_path(identity).touch()
    with bottle_state.hold_lock("alive-bbbbb"):
        found = backend.BubblewrapBackend().leftovers()
    assert [leftover.identity for leftover in found] == ["dead-aaaaa"]
