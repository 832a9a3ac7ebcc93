"""What is known of all bottles follows what changes on disk."""

from __future__ import annotations

import contextlib
import select
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bot_bottle import bottle_state, watch
from bot_bottle.bottle_state import BottleMetadata
from bot_bottle.dashboard import board as boards
from bot_bottle.dashboard.board import Board
from bot_bottle.dashboard.rows import bottle_cells, snapshot, span, summary
from tests.support.family import wait_until
from tests.support.served_log import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ONE = "worker-abcde"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def board() -> Iterator[Board]:
    with Board() as one:
        yield one


def follow(board: Board, condition: Callable[[], bool], what: str) -> None:
    """Do as the screen does: wait for the kernel's word, or for what settles, and look at nothing else."""

    def step() -> bool:
        if board.fileno() >= 0:
            select.select([board], [], [], 0.02 if board.is_settling else 0.2)
        board.update()
        return condition()

    wait_until(step, what)


def state(board: Board, identity: str = ONE) -> str:
    found = board.bottle(identity)
    return found.state if found else ""


def test_a_bottle_from_its_beginning_to_its_end(board: Board) -> None:
    assert board.bottles() == ()
    with served(ONE) as bottle:
        follow(board, lambda: state(board) == "running", "the bottle")
        bottle.request()
        bottle.request(decision="deny", host="evil.test")
        follow(board, lambda: (found := board.bottle(ONE)) is not None and found.requests == 2, "requests")
        bottle.ask("a2345678", host="docs.test")
        follow(board, lambda: len(board.requests()) == 1, "a request of the agent's")
        found = board.bottle(ONE)
        assert found is not None
        assert (found.denied, found.asks, found.backend, found.agent) == (1, 1, "bubblewrap", "worker")
        assert found.up is not None
        assert board.requests()[0].running
        bottle.append("panic", decision="deny")
        follow(board, lambda: state(board) == "cut off", "the panic")
        bottle.append("panic", decision="lifted")
        follow(board, lambda: state(board) == "running", "its end")
    follow(board, lambda: state(board) == "preserved", "the end of the session")
    assert not board.requests()[0].running
    metadata = bottle_state.read_metadata(ONE)
    assert metadata is not None
    bottle_state.write_metadata(replace(metadata, exit_code=3))
    follow(board, lambda: (found := board.bottle(ONE)) is not None and found.exit_code == 3, "the exit code")
    bottle_state.cleanup_state(ONE)
    follow(board, lambda: board.bottle(ONE) is None, "the removal")
    assert board.requests() == ()


def test_a_session_without_a_sidecar_is_told(board: Board) -> None:
    with contextlib.ExitStack() as stack:
        bottle = stack.enter_context(served(ONE))
        follow(board, lambda: state(board) == "running", "the bottle")
        bottle.end()
        follow(board, lambda: state(board) == "no sidecar", "the end of the sidecar")
    follow(board, lambda: state(board) == "preserved", "the end of the session")


def test_a_bottle_that_is_resumed_runs_again(board: Board) -> None:
    bottle_state.create_state(BottleMetadata(identity=ONE, started_at=bottle_state.utc_now()))
    bottle_state.mark_preserved(ONE)
    follow(board, lambda: state(board) == "preserved", "the kept bottle")
    found = board.bottle(ONE)
    assert found is not None
    assert found.backend == "docker", "metadata without a backend"
    with bottle_state.hold_lock(ONE):
        (bottle_state.bottle_state_dir(ONE) / "control").touch()
        follow(board, lambda: state(board) == "running", "its launcher")


def test_nothing_that_is_no_bottles_is_taken_for_one(board: Board, home: Path) -> None:
    (home / "state" / "Not-One").mkdir()
    (home / "state" / "linked-abcde").symlink_to("/tmp")
    (home / "state" / "file-abcde").touch()
    (home / "audit" / "x").touch()
    (home / "state" / "real-abcde").mkdir()
    follow(board, lambda: state(board, "real-abcde") == "unfinished", "the folder")
    assert [one.identity for one in board.bottles()] == ["real-abcde"]


def test_looking_does_not_cause_what_is_listened_for(board: Board) -> None:
    with served(ONE):
        follow(board, lambda: state(board) == "running" and not board.is_settling, "peace")
        board.update()
        for _ in range(5):
            assert bottle_state.is_running(ONE)
        assert board.update() == frozenset()


def test_changes_that_were_lost_are_looked_for(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(ONE):
        monkeypatch.setattr(watch.Watch, "read", lambda _self: iter([watch.Change()]))
        assert board.update() == {ONE}
        assert state(board) == "running"


def test_without_watches_everything_is_looked_at_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: watch.Watch) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(watch.Watch, "__init__", refuse)
    monkeypatch.setattr(boards, "LOOK_SECONDS", 0.01)
    with Board() as board:
        assert "Too many open files" in board.trouble
        assert board.fileno() == -1
        with served(ONE) as bottle:
            follow(board, lambda: state(board) == "running", "the bottle")
            bottle.request()
            follow(
                board, lambda: (found := board.bottle(ONE)) is not None and found.requests == 1, "a request"
            )


def test_the_newest_that_run_come_first_and_all_can_be_printed(board: Board) -> None:
    for name, when in (("old-abcde", "2026-01-01"), ("new-abcde", "2026-01-02")):
        bottle_state.create_state(BottleMetadata(identity=name, started_at=f"{when}T00:00:00+00:00"))
    with served(ONE) as bottle:
        bottle.ask("a2345678", host="docs.test", reason="\x1b[31m")
        follow(board, lambda: len(board.bottles()) == 3 and bool(board.requests()), "the bottles")
        found = board.bottles()
        assert [one.identity for one in found] == [ONE, "new-abcde", "old-abcde"]
        assert summary(found, board.requests()) == "1 running, 2 kept, 1 request waits"
        data = snapshot(found, board.requests())
        assert "\x1b" not in str(data)
        assert bottle_cells(found[0])[0] == (ONE, "strong")


def test_times_take_little_room() -> None:
    assert [span(one) for one in (0, 59, 60, 3599, 3600, 86_399, 86_400)] == [
        "0s", "59s", "1m", "59m", "1h00", "23h59", "1d",
    ]  # fmt: skip
