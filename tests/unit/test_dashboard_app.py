"""The dashboard under its keys and its mouse, over bottles that the tests make up."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle import bottle_state, paths
from bot_bottle.backend.bubblewrap.bottle import BubblewrapBottle
from bot_bottle.backend.docker.bottle import DockerBottle
from bot_bottle.backend.smolmachines.bottle import SmolmachinesBottle
from bot_bottle.bottle_state import BottleMetadata
from bot_bottle.cli import main, terminal
from bot_bottle.cli.dashboard import _bottle_for_slug
from bot_bottle.dashboard.board import Board
from bot_bottle.errors import LaunchError
from tests.support.served_log import served

pytest.importorskip("textual", reason="the extra dashboard is not installed")

from textual.widgets import Input

from bot_bottle.dashboard.app import Dashboard
from bot_bottle.dashboard.screens import Answering, Page, Pick, Question
from bot_bottle.dashboard.sheet import Sheet
from bot_bottle.dashboard.table import LineLog, LineTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from textual.pilot import Pilot

ONE = "worker-abcde"
#: What would colour, link, run an action or end the program, were it read as markup or sent to a terminal.
HOSTILE = "[bold red]x[/] [@click=app.quit]y[/] [/nothing] \\[ [link=file:///]z \x1b[2J\x9b31m\u202e"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "agents").mkdir(parents=True)
    (tmp_path / "home" / "bottles").mkdir()
    for folder in (tmp_path, tmp_path / "home", tmp_path / "home" / "agents", tmp_path / "home" / "bottles"):
        folder.chmod(0o700)
    return tmp_path / "home"


class Stage:
    """The app on a screen of its own."""

    def __init__(self, app: Dashboard, pilot: Pilot[None]) -> None:
        self.app, self.pilot = app, pilot

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}; the screen:\n{self.shown()}"
            await self.pilot.pause(0.02)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    def shown(self) -> str:
        """What stands on the screen, as text."""
        width = self.app.size.width
        lines = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in line).ljust(width) for line in lines)

    @property
    def said(self) -> str:
        """All notices."""
        return "\n".join(one.message for one in self.app._notifications)

    def log(self) -> tuple[str, ...]:
        return self.app.screen_stack[0].query_one("#log", LineLog).lines


@contextlib.asynccontextmanager
async def stage(home: Path, size: tuple[int, int] = (80, 24), **more: Any) -> AsyncIterator[Stage]:
    with Board() as board:
        app = Dashboard(board, **{"bottle_for": _bottle_for_slug, "cwd": home, **more})
        async with app.run_test(size=size) as pilot:
            yield Stage(app, pilot)


def play(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(act())


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (40, 10)])
def test_what_a_bottle_wrote_is_shown_as_text_and_nothing_else(home: Path, size: tuple[int, int]) -> None:
    async def act() -> None:
        with served(ONE) as bottle:
            bottle.request(host="evil.test", path=f"/{HOSTILE}", decision="deny", message=HOSTILE)
            refs = [f"create refs/heads/{HOSTILE} 0..1"]
            bottle.append("git_push", remote="o", refs=refs, decision="deny")
            bottle.ask(
                "a2345678", host="docs.test", paths=["/[bold]p[/]", "/[@click=app.quit]"], reason=HOSTILE
            )
            async with stage(home, size) as one:
                await one.until(lambda: any("evil.test" in line for line in one.log()), "the decision")
                await one.until(lambda: "docs.test" in one.shown() or size[0] < 80, "the request")
                (line,) = (line for line in one.log() if "evil.test" in line)
                assert "[bold red]x[/] [@click=app.quit]y[/] [/nothing]" in line
                await one.press("i")
                await one.until(lambda: isinstance(one.app.screen, Page), "the details")
                await one.press("escape", "tab", "enter")
                await one.until(lambda: isinstance(one.app.screen, Answering), "the request in full")
                shown = one.shown()
                assert "[bold red]x[/] [@click=app.quit]y[/]" in shown or size[0] < 80
                assert not {"\x1b", "\x9b", "\u202e"} & set(shown)
                assert one.app.screen.query_one("#paths", Input).value == "/[bold]p[/] /[@click=app.quit]"
                await one.pilot.click(offset=(size[0] // 2, size[1] // 2))
                await one.press("escape")
                assert one.app.is_running

    play(act)


@pytest.mark.parametrize(("size", "shown"), [((80, 24), True), ((60, 24), False)])
def test_a_narrow_screen_keeps_the_identity_whole(home: Path, size: tuple[int, int], *, shown: bool) -> None:
    async def act() -> None:
        with served("a-longer-one-x7k2p"):
            async with stage(home, size) as one:
                await one.until(lambda: size[0] > 70 or "a-longer-one-x7k2p" in one.shown(), "the bottle")
                await one.until(lambda: ("BACKEND" in one.shown()) is shown, "the heading")

    play(act)


def test_a_request_is_changed_and_allowed(home: Path) -> None:
    async def act() -> None:
        with served(ONE) as bottle:
            bottle.ask("a2345678", host="docs.test", paths=["/3/"])
            async with stage(home) as one:
                await one.until(one.app._board.requests, "the request")
                await one.until(lambda: "a2345678" in one.shown(), "the request on the screen")
                await one.press("a")
                await one.until(lambda: isinstance(one.app.screen, Answering), "the question")
                form = one.app.screen
                opens = form.query_one(Sheet)
                assert "all methods are opened" in opens.text
                form.query_one("#methods", Input).value = "get"
                form.query_one("#lasting", Input).value = "for ever"
                await one.until(lambda: "write once, bottle" in opens.text, "what is wrong")
                await one.press("ctrl+o")
                assert one.app.screen is form, "what cannot be granted is not sent"
                form.query_one("#lasting", Input).value = "2h"
                form.query_one("#words", Input).value = "go on"
                await one.until(lambda: "GET docs.test /3/, until" in opens.text, "what it opens")
                await one.press("ctrl+o")
                await one.until(lambda: "a2345678 is approved, open now" in one.said, "the answer")
                (order,) = [order for order in bottle.orders if order["order"] == "answer"]
                assert (order["verdict"], order["words"]) == ("changed", "go on")
                assert order["grant"]["route"]["methods"] == ["GET"]

    play(act)


def test_a_request_is_denied_with_words_and_one_left_alone(home: Path) -> None:
    async def act() -> None:
        with served(ONE) as bottle:
            bottle.ask("a2345678", kind="git", remote="origin", refs=["refs/heads/main"])
            async with stage(home) as one:
                await one.until(lambda: "a2345678" in one.shown(), "the request on the screen")
                await one.press("d")
                await one.until(lambda: isinstance(one.app.screen, Answering), "the question")
                await one.press("escape")
                await one.until(lambda: len(one.app.screen_stack) == 1, "its end")
                assert not [order for order in bottle.orders if order["order"] == "answer"]
                await one.press("d")
                await one.until(lambda: isinstance(one.app.screen, Answering), "the question")
                await one.press(*"not now", "enter")
                await one.until(lambda: "is denied" in one.said, "the answer")
                (order,) = [order for order in bottle.orders if order["order"] == "answer"]
                assert (order["verdict"], order["words"], order["grant"]) == ("denied", "not now", None)

    play(act)


def test_the_decisions_follow_the_cursor_and_the_filter(home: Path) -> None:
    async def act() -> None:
        with served(ONE) as bottle, served("other-abcde") as other:
            other.request(host="other.test")
            async with stage(home) as one:
                table = one.app.query_one("#bottles", LineTable)
                await one.until(one.log, "lines")
                table.select(ONE)
                bottle.request(host="good.test")
                bottle.request(host="evil.test", decision="deny")
                await one.until(
                    lambda: any("evil.test" in line for line in one.log()), "decisions as they fall"
                )
                await one.press("f")
                await one.until(lambda: len(one.log()) == 1, "refusals only")
                bottle.request(host="third.test")
                bottle.request(host="worse.test", decision="deny")
                await one.until(lambda: len(one.log()) == 2, "one more refusal")
                await one.press("f", "slash", *"GOOD")
                await one.until(lambda: len(one.log()) == 1, "what is asked for")
                assert "good.test" in one.log()[0]
                await one.press("q")
                assert one.app.is_running, "a letter is a letter there"
                await one.press("escape")
                await one.until(lambda: len(one.log()) > 4, "everything again")
                table.focus()
                await one.press("home", "end", "up", "down", "pageup", "pagedown", "j", "k")
                table.select("other-abcde")
                await one.until(lambda: any("other.test" in line for line in one.log()), "the other's")
                assert not any("good.test" in line for line in one.log())
                await one.pilot.click("#bottles", offset=(3, 1))
                await one.until(lambda: table.key == one.app._bottles[0].identity, "the mouse")

    play(act)


def test_every_field_of_a_decision_and_of_a_request_can_be_read(home: Path) -> None:
    async def act() -> None:
        with served(ONE) as bottle:
            bottle.request(host="first.test", message=f"{HOSTILE}{'long ' * 60}end", decision="deny")
            bottle.request(host="second.test")
            bottle.ask("a2345678", host="docs.test", paths=["/3/", "/4/"], reason=f"one\n{HOSTILE}")
            async with stage(home) as one:
                await one.until(lambda: len(one.log()) == 4, "the records")
                await one.until(lambda: "a2345678" in one.shown(), "the request")
                one.app.query_one("#log").focus()
                await one.press("up", "up", "enter")
                await one.until(lambda: isinstance(one.app.screen, Page), "the decision in full")
                lines = one.app.screen.query_one(LineLog).lines
                named = {line[:13].strip() for line in lines}
                assert {"seq", "time", "event", "prev", "hash", "message", "host"} <= named
                text = "".join(line[14:] for line in lines)
                assert "first.test" in text
                assert "[bold red]x[/] [@click=app.quit]y[/] [/nothing]" in text
                assert "long end" in text
                assert not {"\x1b", "\x9b", "\u202e"} & set(text)
                assert max(map(len, lines)) <= 72
                bottle.request(host="third.test")
                await one.press("escape")
                await one.until(lambda: len(one.log()) == 5, "one more")
                await one.press("v")
                await one.until(lambda: isinstance(one.app.screen, Page), "the same as before")
                assert any("first.test" in line for line in one.app.screen.query_one(LineLog).lines)
                await one.press("escape", "end", "enter")
                await one.until(lambda: isinstance(one.app.screen, Page), "the newest")
                assert any("third.test" in line for line in one.app.screen.query_one(LineLog).lines)
                await one.press("escape")
                one.app.query_one("#requests").focus()
                await one.press("v")
                await one.until(lambda: isinstance(one.app.screen, Page), "the request in full")
                shown = one.app.screen.query_one(LineLog).lines
                assert [
                    line for at, line in enumerate(shown) if "paths" in line or "paths" in shown[at - 1]
                ] == ["paths         /3/", "              /4/"]
                assert any(line.startswith("why           one") for line in shown)
                await one.press("escape")
                log = one.app.query_one("#log")
                await one.pilot.click("#log", offset=(3, 0), times=2)
                await one.until(lambda: isinstance(one.app.screen, Page), "the mouse's")
                assert log.has_focus

    play(act)


def test_a_push_is_granted_in_part(home: Path) -> None:
    async def act() -> None:
        with served(ONE) as bottle:
            bottle.ask(
                "a2345678", kind="git", remote="origin", refs=["refs/heads/a", "b"], paths=[".github/**"]
            )
            async with stage(home) as one:
                await one.until(lambda: "a2345678" in one.shown(), "the request")
                await one.press("a")
                await one.until(lambda: isinstance(one.app.screen, Answering), "the question")
                form = one.app.screen
                assert form.query_one("#branches", Input).value == "refs/heads/a b"
                form.query_one("#branches", Input).value = "a"
                form.query_one("#paths", Input).value = ""
                form.query_one("#lasting", Input).value = "once"
                opens = form.query_one(Sheet)
                await one.until(lambda: "pushes to origin: branches a, for one push" in opens.text, "it")
                await one.press("ctrl+o")
                await one.until(lambda: "a2345678 is approved, open now" in one.said, "the answer")
                (order,) = [order for order in bottle.orders if order["order"] == "answer"]
                assert order["verdict"] == "changed"
                assert order["grant"]["push"] == {"remote": "origin", "branches": ["a"], "paths": []}
                assert order["grant"]["uses"] == 1

    play(act)


def test_a_kept_bottle_is_removed_after_a_yes_and_one_that_runs_is_not(home: Path) -> None:
    async def act() -> None:
        async with stage(home) as one:
            with served(ONE):
                await one.until(lambda: "1 running" in one.shown(), "the bottle")
                await one.press("X")
                await one.until(lambda: "only a kept bottle can be removed" in one.said, "why not")
                assert len(one.app.screen_stack) == 1
            await one.until(lambda: "0 running, 1 kept" in one.shown(), "its end")
            for answer in ("n", "y"):
                await one.press("X")
                await one.until(lambda: isinstance(one.app.screen, Question), "the question")
                assert paths.state_dir(ONE).is_dir()
                await one.press(answer)
            await one.until(lambda: "its record stays" in one.said, "the removal")
            await one.until(lambda: "no bottle: n starts" in one.shown(), "the empty list")
            assert not paths.state_dir(ONE).exists()
            assert paths.audit_path(ONE).exists()

    play(act)


def test_bottles_come_go_and_die_and_the_screen_goes_on(home: Path) -> None:
    async def act() -> None:
        async with stage(home, (140, 40)) as one:
            await one.until(lambda: "no bottle: n starts an agent" in one.shown(), "the empty screen")
            with served(ONE) as bottle:
                await one.until(lambda: "1 running, 0 kept" in one.shown(), "the bottle")
                bottle.end()
                await one.until(lambda: "no sidecar" in one.shown(), "the end of the sidecar")
                await one.press("i")
                await one.until(lambda: isinstance(one.app.screen, Page), "the details")
                assert "does not listen" in one.shown()
                await one.press("escape")
            await one.until(lambda: "0 running, 1 kept" in one.shown(), "the end of its session")
            paths.audit_path(ONE).unlink()
            bottle_state.cleanup_state(ONE)
            await one.until(lambda: "no bottle: n starts" in one.shown(), "the removal")
            for key in "xrtmiadXv":
                await one.press(key)
            assert one.app.is_running
            assert len(one.app.screen_stack) == 1

    play(act)


def test_a_bottle_is_stopped_by_its_own_handle_after_a_yes(home: Path) -> None:
    closed: list[str] = []

    class Handle:
        def __init__(self, identity: str, end: Callable[[], None]) -> None:
            self._identity, self._end = identity, end

        def close(self) -> None:
            closed.append(self._identity)
            self._end()

    async def act() -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(served(ONE))
            async with stage(home, bottle_for=lambda name: Handle(name, stack.close)) as one:
                await one.until(lambda: "running" in one.shown(), "the bottle")
                await one.press("x")
                await one.until(lambda: isinstance(one.app.screen, Question), "the question")
                await one.press("n")
                await one.until(lambda: len(one.app.screen_stack) == 1, "its end")
                assert closed == []
                await one.press("x")
                await one.until(lambda: isinstance(one.app.screen, Question), "the question")
                await one.press("y")
                await one.until(lambda: f"{ONE} is stopped; r resumes it" in one.said, "the end")
                assert closed == [ONE]
                await one.until(lambda: "1 kept" in one.shown(), "the kept bottle")

    play(act)


def test_agents_are_offered_and_the_terminal_is_handed_over(home: Path) -> None:
    (home / "bottles" / "b.md").write_text("---\nagent_provider: {template: command, argv: [/bin/sh]}\n---\n")
    (home / "agents" / "a.md").write_text("---\nbottle: b\n---\n")
    for file in (home / "bottles" / "b.md", home / "agents" / "a.md"):
        file.chmod(0o600)

    async def act() -> None:
        async with stage(home) as one:
            await one.press("n")
            await one.until(lambda: isinstance(one.app.screen, Pick), "the agents")
            await one.until(lambda: "DECLARED IN" in one.shown(), "their list")
            await one.press("enter")
            # This screen has no terminal to hand over, which is said with what to do.
            await one.until(lambda: "another terminal: bot-bottle start a --detach" in one.said, "a word")

    play(act)


def test_keys_are_explained_and_a_question_can_be_left(home: Path) -> None:
    async def act() -> None:
        async with stage(home) as one:
            await one.press("question_mark")
            await one.until(lambda: isinstance(one.app.screen, Page), "the help")
            assert "Shift+Tab" in one.shown()
            await one.press("escape", "P")
            await one.until(lambda: isinstance(one.app.screen, Question), "the question")
            await one.press("y")
            await one.until(lambda: "0 bottles cut off" in one.said, "what came of it")
            await one.press("q")
            await one.until(lambda: not one.app.is_running, "the end")

    play(act)


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("bubblewrap", BubblewrapBottle),
        ("docker", DockerBottle),
        ("smolmachines", SmolmachinesBottle),
        ("", DockerBottle),
        (None, DockerBottle),
    ],
)
def test_a_slug_leads_to_the_bottle_of_its_backend(backend: str | None, kind: type) -> None:
    if backend is not None:
        bottle_state.create_state(BottleMetadata(identity=ONE, backend=backend))
    bottle = _bottle_for_slug(ONE)
    assert type(bottle) is kind
    assert bottle.name == ONE
    with pytest.raises(LaunchError, match="held by the process that started it"):
        bottle.exec("true")
    if backend is not None:
        bottle.close()  # nobody holds it: there is nothing to end


def test_once_prints_and_ends(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", "--once"]) == 0
    assert capsys.readouterr().out == "0 running, 0 kept\n"
    with served(ONE) as bottle:
        bottle.ask("a2345678", host="docs.test", reason=HOSTILE)
        deadline = time.monotonic() + 30
        while b"docs.test" not in paths.audit_path(ONE).read_bytes():
            assert time.monotonic() < deadline
        assert main(["dashboard", "--once"]) == 0
        out = capsys.readouterr().out
        assert "1 running, 0 kept, 1 request waits" in out
        assert "any method docs.test (all paths)" in out
        assert main(["dashboard", "--once", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        assert [(one["identity"], one["state"]) for one in data["bottles"]] == [(ONE, "running")]
        assert data["requests"][0]["request"] == "a2345678"
    assert main(["dashboard", "--json"]) == 2
    assert main(["dashboard"]) == 2
    assert "--once" in capsys.readouterr().err
    del home


def test_without_its_library_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "textual"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual", None)
    monkeypatch.delitem(sys.modules, "bot_bottle.dashboard.app")
    monkeypatch.setattr(terminal, "owns_terminal", lambda: True)
    assert main(["dashboard"]) == 3
    assert "install 'textual>=" in capsys.readouterr().err
