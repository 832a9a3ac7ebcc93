"""State folders: private, atomic, and tolerant of what other versions wrote."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle import bottle_state
from bot_bottle.bottle_state import BottleMetadata
from bot_bottle.errors import LaunchError, UsageError
from tests.support.no_room import WORDS, no_room

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = "researcher-m3hxd"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bb"
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(folder))
    return folder


def test_metadata_round_trip_and_permissions(home: Path) -> None:
    metadata = BottleMetadata(
        identity=IDENTITY, agent_name="researcher", backend="bubblewrap", copy_cwd=True, cwd="/w"
    )
    folder = bottle_state.create_state(metadata)
    assert bottle_state.read_metadata(IDENTITY) == metadata
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "metadata.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_old_file_has_no_backend_and_unknown_fields_are_tolerated() -> None:
    folder = bottle_state.create_state(BottleMetadata(identity=IDENTITY))
    (folder / "metadata.json").write_text(
        json.dumps({"agent_name": "researcher", "colour": "red", "copy_cwd": "yes"})
    )
    metadata = bottle_state.read_metadata(IDENTITY)
    assert metadata is not None
    assert metadata.backend == ""
    assert metadata.agent_name == "researcher"
    assert metadata.copy_cwd is False


def test_a_state_says_its_form_and_a_later_one_is_listed_and_not_gone_on_with(home: Path) -> None:
    bottle_state.create_state(BottleMetadata(identity=IDENTITY, agent_name="one"))
    path = home / "state" / IDENTITY / "metadata.json"
    written = json.loads(path.read_text())
    assert written["version"] == bottle_state.STATE_VERSION
    assert bottle_state.require_stopped(IDENTITY).version == bottle_state.STATE_VERSION
    del written["version"]
    path.write_text(json.dumps(written))
    assert bottle_state.require_stopped(IDENTITY).version == 0
    path.write_text(json.dumps({**written, "version": 99, "of the future": {}}))
    with pytest.raises(UsageError, match=r"made by a later version .* form 99"):
        bottle_state.require_stopped(IDENTITY)
    (listed,) = bottle_state.list_states()
    assert listed.metadata is not None
    assert listed.metadata.agent_name == "one"
    bottle_state.write_metadata(listed.metadata)
    assert json.loads(path.read_text())["version"] == 99, "it is not made an older one"


def test_no_metadata_is_none_and_broken_metadata_is_a_sentence() -> None:
    assert bottle_state.read_metadata(IDENTITY) is None
    folder = bottle_state.create_state(BottleMetadata(identity=IDENTITY))
    (folder / "metadata.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        bottle_state.read_metadata(IDENTITY)
    (folder / "metadata.json").write_text("[]")
    with pytest.raises(UsageError, match="JSON object"):
        bottle_state.read_metadata(IDENTITY)
    (state,) = bottle_state.list_states()
    assert (state.identity, state.metadata) == (IDENTITY, None)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "", "UPPER-abcde", "x", "agent-abc", "agent-abcde\n"])
def test_what_cannot_be_an_identity_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no identity"):
        bottle_state.bottle_state_dir(name)


def test_a_claimed_identity_is_not_claimed_twice() -> None:
    bottle_state.create_state(BottleMetadata(identity=IDENTITY))
    with pytest.raises(UsageError, match="exists already"):
        bottle_state.create_state(BottleMetadata(identity=IDENTITY))


def test_a_state_that_cannot_be_written_is_a_sentence_and_leaves_nothing(home: Path) -> None:
    with no_room(), pytest.raises(LaunchError, match=WORDS) as caught:
        bottle_state.create_state(BottleMetadata(identity=IDENTITY))
    assert str(home / "state" / IDENTITY) in str(caught.value)
    assert list((home / "state").iterdir()) == []
    (home / "state").rmdir()
    (home / "state").touch()
    with pytest.raises(LaunchError, match="Not a directory") as caught:
        bottle_state.create_state(BottleMetadata(identity=IDENTITY))
    assert str(home / "state" / IDENTITY) in str(caught.value)


def test_new_identities_differ_and_have_the_documented_form() -> None:
    drawn = {bottle_state.new_identity("my-agent") for _ in range(50)}
    assert len(drawn) > 45
    assert all(bottle_state.IDENTITY_PATTERN.fullmatch(name) for name in drawn)


def test_status_follows_lock_and_marker() -> None:
    bottle_state.create_state(BottleMetadata(identity=IDENTITY, agent_name="researcher"))
    assert [state.status for state in bottle_state.list_states()] == ["unfinished"]
    bottle_state.mark_preserved(IDENTITY)
    assert [state.status for state in bottle_state.list_states()] == ["preserved"]
    with bottle_state.hold_lock(IDENTITY):
        assert [state.status for state in bottle_state.list_states()] == ["running"]
    assert not bottle_state.is_running(IDENTITY)
    bottle_state.clear_preserve_marker(IDENTITY)
    assert not bottle_state.is_preserved(IDENTITY)


def test_a_second_launcher_is_refused_and_a_killed_one_frees_the_lock() -> None:
    bottle_state.create_state(BottleMetadata(identity=IDENTITY))
    code = (
        "import sys; from bot_bottle import bottle_state as b\n"
        f"with b.hold_lock({IDENTITY!r}):\n print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert bottle_state.is_running(IDENTITY)
        with pytest.raises(LaunchError, match="running already"), bottle_state.hold_lock(IDENTITY):
            pytest.fail("two launchers held one identity")
        holder.kill()
    assert not bottle_state.is_running(IDENTITY)


def test_cleanup_removes_what_an_agent_made_unremovable(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("kept")
    folder = bottle_state.create_state(BottleMetadata(identity=IDENTITY))
    locked = folder / "home" / "locked" / "deeper"
    locked.mkdir(parents=True)
    (locked / "file").write_text("x")
    (folder / "home" / "link").symlink_to(outside)
    locked.chmod(0)
    locked.parent.chmod(0)
    bottle_state.cleanup_state(IDENTITY)
    assert not folder.exists()
    assert (outside / "keep").read_text() == "kept"
    bottle_state.cleanup_state(IDENTITY)
