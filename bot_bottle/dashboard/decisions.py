"""The pane of one bottle's decisions as they fall, with what is to be left out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input

from bot_bottle.dashboard.feed import Feed, lines_of, number_of
from bot_bottle.dashboard.table import RecordLog
from bot_bottle.legible import legible

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from bot_bottle.audit_chain import Record

_KEEP = 2000


class Decisions(Vertical):
    """Follows one bottle at a time."""

    DEFAULT_CSS = """
    Decisions #filter { display: none; height: 1; }
    Decisions #filter.on { display: block; }
    """

    def __init__(self, *, id: str, classes: str) -> None:  # noqa: A002 - the library's
        super().__init__(id=id, classes=classes)
        self._feed: Feed | None = None
        self._records: list[Record] = []
        self._only_denied = False
        self._wanted = ""

    def compose(self) -> ComposeResult:
        """Lay it out."""
        yield Input(id="filter", placeholder="show lines with ...", compact=True)
        yield RecordLog(empty="nothing was decided yet", id="log")

    @property
    def identity(self) -> str:
        """The bottle it follows; empty for none."""
        return self._feed.identity if self._feed is not None else ""

    @property
    def record(self) -> Record | None:
        """The record at the cursor; None where there is none, or it is too long ago."""
        number = self._log.number
        return next((one for one in self._records if number_of(one) == number), None)

    @property
    def _log(self) -> RecordLog:
        return self.query_one("#log", RecordLog)

    def follow(self, identity: str) -> None:
        """Show the decisions of another bottle."""
        if self._feed is not None and self._feed.identity == identity:
            return
        self._feed = Feed(identity) if identity else None
        self._records = []
        self._fill()
        self.read_on()

    def read_on(self) -> None:
        """Show what has been decided since."""
        if self._feed is None:
            return
        records, missed = self._feed.more()
        self._records = [*self._records, *records][-_KEEP:]
        if missed:
            words = f"... {missed // 1024} KiB of decisions in between are not shown"
            self._log.add_numbered([((words, "dim"), -1)])
        self._log.add_numbered(lines_of(records, denied=self._only_denied, text=self._wanted))

    def turn_refusals(self) -> None:
        """Show refusals only, or all again."""
        self._only_denied = not self._only_denied
        self._fill()

    def open_filter(self) -> None:
        """Ask what lines to show."""
        line = self.query_one("#filter", Input)
        line.add_class("on")
        line.focus()

    def close_filter(self) -> None:
        """Show all lines again."""
        line = self.query_one("#filter", Input)
        line.value = ""
        line.remove_class("on")
        self._log.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as one types."""
        event.stop()
        self._wanted = event.value
        self._fill()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go on with the lines that are shown."""
        event.stop()
        self._log.focus()

    def _fill(self) -> None:
        self._log.clear()
        self._log.add_numbered(lines_of(self._records, denied=self._only_denied, text=self._wanted))
        parts = [f"decisions of {self.identity}" if self.identity else "decisions"]
        parts += ["refusals only"] * self._only_denied
        parts += [f"with {legible(self._wanted)}"] * bool(self._wanted)
        self.border_title = Content(", ".join(parts))
