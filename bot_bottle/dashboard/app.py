"""The dashboard: bottles, requests and decisions on one screen, drawn anew when something has changed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import App, SuspendNotSupported
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Footer, Static

from bot_bottle import process
from bot_bottle.dashboard import actions, rows, screens
from bot_bottle.dashboard.board import LOOK_SECONDS, Board
from bot_bottle.dashboard.decisions import Decisions
from bot_bottle.dashboard.table import LineTable
from bot_bottle.errors import BotBottleError
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from bot_bottle.backend.base import Bottle as BottleHandle
    from bot_bottle.dashboard.board import Bottle
    from bot_bottle.supervise.operator import Asked

#: How long changes gather before the screen follows, in seconds.
GATHER_SECONDS = 0.25
_TICK_SECONDS = 1.0
#: From how many columns on there is room for a bottle's details beside the lists.
_WIDE = 118


class Dashboard(App[None]):
    """The whole screen. ``bottle_for`` gives the handle of a running bottle, ``run`` runs our commands."""

    TITLE = "bot-bottle"
    ENABLE_COMMAND_PALETTE = False
    CSS = screens.CSS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "start", "Start"),
        Binding("r", "resume", "Resume"),
        Binding("x", "stop", "Stop"),
        Binding("t", "attach", "Attach"),
        Binding("a", "answer(False)", "Answer"),
        Binding("d", "answer(True)", "Deny"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("f", "denied", "Refusals", show=False),
        Binding("i", "details", "Details", show=False),
        Binding("X", "remove", "Remove", show=False),
        Binding("v", "view", "All fields", show=False),
        Binding("m", "apply", "Apply the manifest", show=False),
        Binding("P", "panic", "Panic", show=False),
        Binding("L", "lift", "Lift the panic", show=False),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("escape", "unfilter", "Close the filter", show=False),
        Binding("ctrl+l", "redraw", "Draw anew", show=False),
    ]

    def __init__(
        self,
        board: Board,
        *,
        bottle_for: Callable[[str], BottleHandle],
        run: Callable[[Sequence[str]], int] = process.run_attached,
        cwd: Path | None = None,
    ) -> None:
        super().__init__()
        self._board = board
        self._bottle_for = bottle_for
        self._run = run
        self._cwd = cwd or Path.cwd()
        self._gathering = False
        self._bottles: tuple[Bottle, ...] = ()
        self._requests: dict[str, Asked] = {}

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield screens.text(id="title")
        with Horizontal(id="body"):
            with Vertical(id="lists"):
                with Vertical(id="bottles-pane", classes="pane"):
                    yield LineTable(rows.BOTTLES, empty="no bottle: n starts an agent", id="bottles")
                with Vertical(id="requests-pane", classes="pane"):
                    yield LineTable(rows.REQUESTS, empty="no agent asks for anything", id="requests")
                yield Decisions(id="log-pane", classes="pane")
            with Vertical(id="detail-pane", classes="pane"):
                yield screens.text(id="detail")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin to hear of changes."""
        self.query_one("#bottles-pane").border_title = "bottles"
        self.query_one("#requests-pane").border_title = "requests"
        self.query_one("#detail-pane").border_title = "details"
        self.query_one("#bottles").focus()
        self._draw()
        if self._board.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._board.fileno(), self._changed)
        else:
            self.set_interval(LOOK_SECONDS, self._follow)
        self.set_interval(_TICK_SECONDS, self._tick)
        if self._board.trouble:
            self._say(self._board.trouble, trouble=True)

    def on_unmount(self) -> None:
        """Hear no more."""
        self._deafen()

    def on_resize(self) -> None:
        """Show as much as there is room for."""
        self.query_one("#detail-pane").set_class(self.size.width >= _WIDE, "wide")

    # Following what changes.

    def _deafen(self) -> None:
        if self._board.fileno() >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._board.fileno())

    def _changed(self) -> None:
        """Let changes gather: a busy bottle writes thousands of lines a second."""
        self._deafen()
        self._gather()

    def _gather(self) -> None:
        if not self._gathering:
            self._gathering = True
            self.set_timer(GATHER_SECONDS, self._follow)

    def _follow(self) -> None:
        self._gathering = False
        changed = self._board.update()
        if changed:
            self._draw()
            if self._decisions.identity in changed:
                self._decisions.read_on()
        if self._board.fileno() >= 0:
            asyncio.get_running_loop().add_reader(self._board.fileno(), self._changed)
        if self._board.is_settling:
            self._gather()

    def _tick(self) -> None:
        """Let times go on; nothing is looked at for it."""
        if len(self.screen_stack) == 1 and (self._requests or any(one.is_live for one in self._bottles)):
            self._draw()

    # Drawing.

    def _draw(self) -> None:
        bottles, asked = self._board.bottles(), self._board.requests()
        self._bottles = bottles
        self._requests = {one.request.id: one for one in asked}
        now = time.time()
        main = self.screen_stack[0]
        if not main.query("#bottles"):  # a tick while the program ends, when what it drew on is gone
            return
        main.query_one("#bottles", LineTable).set_rows(
            [(one.identity, rows.bottle_cells(one)) for one in bottles]
        )
        main.query_one("#requests", LineTable).set_rows(
            [(one.request.id, rows.request_cells(one, now)) for one in asked]
        )
        self._show("#title", f"bot-bottle  {rows.summary(bottles, asked)}")
        self._draw_detail()

    def _show(self, place: str, words: str) -> None:
        widget = self.screen_stack[0].query_one(place, Static)
        if getattr(widget, "shown", None) != words:
            widget.shown = words  # type: ignore[attr-defined]
            widget.update(words)

    def _draw_detail(self) -> None:
        if self.size.width >= _WIDE and (one := self._board.bottle(self._selected)) is not None:
            asked = [request for request in self._requests.values() if request.identity == one.identity]
            self._show("#detail", "\n".join(actions.details(one, asked)))
        elif self.size.width >= _WIDE:
            self._show("#detail", "")

    @property
    def _decisions(self) -> Decisions:
        return self.screen_stack[0].query_one("#log-pane", Decisions)

    @property
    def _selected(self) -> str:
        return self.screen_stack[0].query_one("#bottles", LineTable).key

    def on_line_table_moved(self, event: LineTable.Moved) -> None:
        """Follow the cursor: another bottle's decisions are shown."""
        if event.table.id == "bottles":
            self._decisions.follow(event.key)
            self._draw_detail()
        elif event.table.id == "requests" and event.key in self._requests and event.table.has_focus:
            self.query_one("#bottles", LineTable).select(self._requests[event.key].identity)

    def on_line_table_chosen(self, event: LineTable.Chosen) -> None:
        """Open what was chosen."""
        if event.table.id == "bottles":
            self.action_details()
        elif event.table.id == "requests":
            self.action_answer(deny=False)

    def on_record_log_chosen(self) -> None:
        """Show the decision that was chosen in full."""
        record = self._decisions.record
        if record is not None:
            self._show_fields(f"{record.get('event')} {record.get('seq')}", record)

    def _show_fields(self, title: str, fields: Mapping[str, object]) -> None:
        width = min(100, self.size.width * 9 // 10) - 6
        self.push_screen(screens.Page(legible(title), rows.record_lines(fields, width)))

    # What keys do.

    def action_filter(self) -> None:
        """Ask what lines to show."""
        self._decisions.open_filter()

    def action_unfilter(self) -> None:
        """Show all lines again."""
        self._decisions.close_filter()

    def action_denied(self) -> None:
        """Show refusals only, or all again."""
        self._decisions.turn_refusals()

    def action_redraw(self) -> None:
        """Draw everything anew."""
        self.refresh(repaint=True, layout=True)

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(screens.Page("Keys (escape closes this)", actions.HELP))

    @work(exclusive=True, group="ask")
    async def action_details(self) -> None:
        """Show all about the bottle at the cursor."""
        one = self._board.bottle(self._selected)
        if one is None:
            return
        asked = [request for request in self._requests.values() if request.identity == one.identity]
        lines = await asyncio.to_thread(actions.full_details, one, asked)
        await self.push_screen_wait(screens.Page(one.identity, lines))

    @work(exclusive=True, group="ask")
    async def action_answer(self, deny: bool) -> None:  # noqa: FBT001 - a key's argument
        """Answer the request at the cursor."""
        asked = self._requests.get(self.query_one("#requests", LineTable).key)
        if asked is None:
            self._say("no agent asks for anything")
            return
        reply = await self.push_screen_wait(screens.Answering(asked, deny=deny))
        if reply is not None:
            await self._do(lambda: actions.answer(asked, reply))

    def action_view(self) -> None:
        """Show all fields of the request at the cursor, or of the decision."""
        table = self.query_one("#requests", LineTable)
        asked = self._requests.get(table.key)
        if table.has_focus and asked is not None:
            self._show_fields(f"request {asked.request.id}", actions.request_fields(asked))
        else:
            self.on_record_log_chosen()

    @work(exclusive=True, group="ask")
    async def action_remove(self) -> None:
        """Remove the kept bottle at the cursor for good."""
        one = self._board.bottle(self._selected)
        if one is None or one.is_live:
            self._say("only a kept bottle can be removed; x stops one that runs")
        elif await self.push_screen_wait(
            screens.Question(f"Remove {one.identity} with all work in it, for good?", yes="Remove")
        ):
            await self._do(lambda: actions.remove(one.identity))

    @work(exclusive=True, group="ask")
    async def action_stop(self) -> None:
        """End the session of the bottle at the cursor."""
        one = self._board.bottle(self._selected)
        if one is None or not one.is_live:
            self._say("only a bottle that runs can be stopped")
        elif await self.push_screen_wait(screens.Question(f"Stop {one.identity}? Its work is kept.")):
            handle = self._bottle_for
            await self._do(lambda: actions.stop(handle(one.identity), one.identity))

    @work(exclusive=True, group="ask")
    async def action_apply(self) -> None:
        """Let the bottle at the cursor go by its manifest as it is now."""
        one = self._board.bottle(self._selected)
        if one is None or not one.is_live:
            self._say(
                "a manifest is applied to a bottle that runs; for a kept one it holds when it is resumed"
            )
            return
        try:
            proposal = await asyncio.to_thread(actions.propose, one.identity, self._cwd)
        except (BotBottleError, OSError) as error:
            self._say(str(error), trouble=True)
            return
        lines = actions.proposed(proposal)
        if not proposal.is_live:
            self.push_screen(screens.Page(f"{one.identity}: nothing to apply now", lines))
        elif await self.push_screen_wait(
            screens.Question(f"{one.identity}: apply this?", lines, yes="Apply")
        ):
            await self._do(lambda: actions.apply(proposal))

    @work(exclusive=True, group="ask")
    async def action_panic(self) -> None:
        """Cut everything off."""
        if await self.push_screen_wait(screens.Question("Cut every running bottle off now?", yes="Cut off")):
            await self._do(actions.panic)

    @work(exclusive=True, group="ask")
    async def action_lift(self) -> None:
        """Let the routes hold again."""
        if await self.push_screen_wait(screens.Question("Let the routes of all bottles hold again?")):
            await self._do(actions.lift)

    @work(exclusive=True, group="ask")
    async def action_start(self) -> None:
        """Start an agent."""
        try:
            choices = await asyncio.to_thread(actions.agents, self._cwd)
        except (BotBottleError, OSError) as error:
            self._say(str(error), trouble=True)
            return
        name = await self.push_screen_wait(
            screens.Pick(
                "Start which agent?", actions.AGENTS, choices, empty="none is declared: bot-bottle init"
            )
        )
        if name:
            self._hand_over("start", name, "--detach")

    def action_resume(self) -> None:
        """Go on with the kept bottle at the cursor."""
        one = self._board.bottle(self._selected)
        if one is None or one.is_live:
            self._say("only a kept bottle can be resumed")
        else:
            self._hand_over("resume", one.identity, "--detach")

    def action_attach(self) -> None:
        """Give the terminal to the agent of the bottle at the cursor."""
        one = self._board.bottle(self._selected)
        if one is None or not one.is_live:
            self._say("only a bottle that runs can be attached to")
        else:
            self._hand_over("attach", one.identity)

    def _hand_over(self, *words: str) -> None:
        """Give the terminal to one of our own commands until it ends."""
        try:
            with self.suspend():
                code = self._run([*process.OWN_COMMAND, *words])
                if code:
                    print(f"\nbot-bottle {' '.join(words)} ended with exit code {code}; Enter goes back")
                    sys.stdin.readline()
        except SuspendNotSupported:
            self._say(f"run this in another terminal: bot-bottle {' '.join(words)}", trouble=True)
            return
        except (BotBottleError, OSError) as error:
            self._say(str(error), trouble=True)
        self.refresh(repaint=True, layout=True)

    async def _do(self, deed: Callable[[], str]) -> None:
        """Do something that may take its time, and say what came of it."""
        try:
            said = await asyncio.to_thread(deed)
        except (BotBottleError, OSError) as error:
            self._say(str(error), trouble=True)
        else:
            self._say(said)

    def _say(self, words: str, *, trouble: bool = False) -> None:
        safe = "\n".join(legible(line) for line in words.splitlines())
        self.notify(safe, severity="error" if trouble else "information", markup=False, timeout=8)

    def _fatal_error(self) -> None:
        """End without showing the values of variables, as the library would: they may quote a credential."""
        self.bell()
        self._close_messages_no_wait()

    @property
    def failure(self) -> Exception | None:
        """What ended it unexpectedly."""
        return self._exception
