"""Questions and pages that lie over the dashboard. What a bottle wrote is text in them, never markup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, Static

from bot_bottle.dashboard.sheet import Sheet
from bot_bottle.dashboard.table import LineLog, LineTable
from bot_bottle.errors import BotBottleError
from bot_bottle.legible import legible
from bot_bottle.supervise.decide import Choice, prospect
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.app import ComposeResult
    from textual.binding import BindingType

    from bot_bottle.dashboard.rows import Cell, Column, Tone
    from bot_bottle.dashboard.sheet import Line
    from bot_bottle.dashboard.table import Row
    from bot_bottle.supervise.decide import Prospect
    from bot_bottle.supervise.operator import Asked

CSS = """
ModalScreen { align: center middle; background: $background 60%; }
.box { width: 90%; max-width: 100; height: auto; max-height: 95%; }
.box { border: round $accent; padding: 0 1; background: $surface; }
.box > .buttons { height: 1; margin-top: 1; align-horizontal: right; }
.box Button { margin-left: 2; }
.answer { height: 95%; max-height: 40; }
.answer Sheet { height: 1fr; min-height: 3; }
.answer #more { height: 1; color: $text-warning; }
.box .field { height: 1; }
.box .field Label { width: 10; color: $text-muted; }
.box .field Input { width: 1fr; }
.box LineLog { height: auto; max-height: 14; }
.box LineTable { height: auto; max-height: 14; }
#title { height: 1; background: $primary; color: $text; padding: 0 1; }
#body { height: 1fr; }
#lists { width: 1fr; }
.pane { border: round $surface-lighten-3; border-title-color: $text-muted; }
.pane:focus-within { border: round $accent; border-title-color: $accent; }
#bottles-pane { height: 40%; min-height: 5; }
#requests-pane { height: 22%; min-height: 4; }
#log-pane { height: 1fr; min-height: 4; }
#detail-pane { width: 42; padding: 0 1; display: none; }
#detail-pane.wide { display: block; }
"""


#: Said once everything was in sight: from then on a yes is taken.
_ALL = "that is all of it"


def text(content: str = "", *, id: str | None = None, classes: str = "") -> Static:  # noqa: A002
    """Make a widget that shows text as it is."""
    return Static(content, id=id, classes=classes, markup=False)


class Question(ModalScreen[bool]):
    """Shows lines and asks for a yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]

    def __init__(self, title: str, lines: Sequence[Cell] = (), *, yes: str = "Yes") -> None:
        super().__init__()
        self._heading, self._lines, self._yes = title, lines, yes

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical(classes="box"):
            yield text(self._heading)
            if self._lines:
                yield LineLog(empty="", id="lines")
            with Horizontal(classes="buttons"):
                yield Button(f"{self._yes} (y)", id="yes", variant="warning", compact=True)
                yield Button("No (n)", id="no", compact=True)

    def on_mount(self) -> None:
        """Fill it."""
        if self._lines:
            log = self.query_one(LineLog)
            log.styles.height = min(len(self._lines) + 1, 14)
            log.add(self._lines)
            log.call_after_refresh(log.scroll_home, animate=False)
        self.query_one("#no", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer by a button."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:  # noqa: FBT001 - a key's argument
        """Answer by a key."""
        self.dismiss(yes)


class Page(ModalScreen[None]):
    """Shows lines to read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,enter,question_mark", "leave", "Close")]

    def __init__(self, title: str, lines: Sequence[Cell]) -> None:
        super().__init__()
        self._heading, self._lines = title, lines

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical(classes="box"):
            yield text(self._heading)
            yield LineLog(empty="", id="lines")

    def on_mount(self) -> None:
        """Fill it."""
        log = self.query_one(LineLog)
        log.styles.max_height = 40
        log.styles.height = min(len(self._lines) + 1, max(4, self.app.size.height - 6))
        log.add(self._lines)
        log.call_after_refresh(log.scroll_home, animate=False)
        log.focus()

    def action_leave(self) -> None:
        """Close it."""
        self.dismiss(None)


class Pick(ModalScreen[str]):
    """Lets one row be chosen; gives its key, empty where none was."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "Cancel")]

    def __init__(self, title: str, columns: Sequence[Column], rows: Sequence[Row], *, empty: str) -> None:
        super().__init__()
        self._heading, self._columns, self._rows, self._empty = title, columns, rows, empty

    def compose(self) -> ComposeResult:
        """Lay it out."""
        with Vertical(classes="box"):
            yield text(self._heading)
            yield LineTable(self._columns, empty=self._empty, id="choices")

    def on_mount(self) -> None:
        """Fill it."""
        table = self.query_one(LineTable)
        table.styles.height = min(len(self._rows), 12) + 2
        table.set_rows(self._rows)
        table.focus()

    def on_line_table_chosen(self, event: LineTable.Chosen) -> None:
        """Give what was chosen."""
        self.dismiss(event.key)

    def action_leave(self) -> None:
        """Choose nothing."""
        self.dismiss("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the operator says to a request."""

    verdict: Literal["yes", "no"]
    choice: Choice
    seen: Prospect | None = None


class Answering(ModalScreen[Reply | None]):
    """One request in full, with what a yes would open, to change, to allow or to refuse.

    All of that has to come into sight before a yes is taken: what is opened is as long as the agent made it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+o", "reply('yes')", "Allow", priority=True),
        Binding("ctrl+d", "reply('no')", "Deny", priority=True),
        Binding("escape", "leave", "Cancel", priority=True),
        Binding("up", "scroll(-1)", "Up", show=False),
        Binding("down", "scroll(1)", "Down", show=False),
        Binding("pageup", "scroll(0, -1)", "Page up", show=False),
        Binding("pagedown", "scroll(0, 1)", "Page down", show=False),
    ]

    def __init__(self, asked: Asked, *, deny: bool = False) -> None:
        super().__init__()
        self._asked, self._deny = asked, deny
        self._seen: Prospect | None = None
        self._insist = False

    def compose(self) -> ComposeResult:
        """Lay it out."""
        asked, request = self._asked, self._asked.request
        with Vertical(classes="box answer"):
            yield text(f"{asked.identity} asks for {request.kind} ({request.id})")
            yield Sheet(id="sheet")
            yield text(id="more")
            if request.kind == "egress":
                yield from _field("host", "Host", request.host)
                yield from _field("paths", "Paths", " ".join(request.paths), "as asked; prefixes")
                yield from _field("methods", "Methods", " ".join(request.methods), "as asked; GET HEAD ...")
                yield from _field("lasting", "For", Choice().lasting, "once, bottle, 30m, 2h, 7d, manifest")
            elif request.kind == "git":
                yield from _field("branches", "Branches", " ".join(request.refs), "none; as asked if no path")
                yield from _field("paths", "Paths", " ".join(request.paths), "none; as asked if no branch")
                yield from _field("lasting", "For", Choice().lasting, "once, bottle, 30m, 2h, 7d, manifest")
            elif request.kind == "content":
                yield from _field("lasting", "For", Choice().lasting, "once, bottle, 30m, 2h, 7d")
            yield from _field("words", "Tell it", "", "what the agent is told (may stay empty)")
            with Horizontal(classes="buttons"):
                yield Button("Allow (^o)", id="yes", variant="success", compact=True)
                yield Button("Deny (^d)", id="no", variant="error", compact=True)
                yield Button("Cancel (esc)", id="cancel", compact=True)

    def on_mount(self) -> None:
        """Begin where the operator most likely goes on."""
        first = "words" if self._deny or self._asked.request.kind != "egress" else "lasting"
        self.query_one(f"#{first}", Input).focus()
        self._foresee()

    def on_input_changed(self) -> None:
        """Say what it comes to now."""
        self._foresee()

    def on_input_submitted(self) -> None:
        """Answer as it was asked for."""
        self.action_reply("no" if self._deny else "yes")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer by a button."""
        if event.button.id in {"yes", "no"}:
            self.action_reply(event.button.id)
        else:
            self.dismiss(None)

    def action_reply(self, verdict: str) -> None:
        """Give the answer, unless it cannot be given so."""
        if verdict == "no":
            self.dismiss(Reply(verdict="no", choice=self._choice()))
        elif not self._foresee():
            self.app.bell()
        elif self.query_one(Sheet).left:
            self._insist = True
            self._say_more()
            self.app.bell()
        else:
            self.dismiss(Reply(verdict="yes", choice=self._choice(), seen=self._seen))

    def action_scroll(self, lines: int, pages: int = 0) -> None:
        """Read on."""
        self.query_one(Sheet).scroll_by(lines, pages)

    def on_sheet_looked(self) -> None:
        """Say how much is still to be read, where the form is still there."""
        if self.query("#more"):
            self._say_more()

    def _say_more(self) -> None:
        left = self.query_one(Sheet).left
        how = ": read to the end before you allow it" if self._insist else ""
        more = self.query_one("#more", Static)
        more.update(f"{counted(left, 'more line')} below (PgDn, Down){how}" if left else _ALL)

    def action_leave(self) -> None:
        """Answer nothing yet."""
        self.dismiss(None)

    def _choice(self) -> Choice:
        values = {one.id: one.value.strip() for one in self.query(Input)}
        return Choice(
            lasting=values.get("lasting") or Choice().lasting,
            host=values.get("host", ""),
            paths=tuple(values.get("paths", "").split()),
            methods=tuple(values.get("methods", "").upper().split()),
            branches=tuple(values.get("branches", "").split()),
            words=values.get("words", ""),
        )

    def _foresee(self) -> bool:
        """Show what a yes would do; gives whether it can be given."""
        sheet = self.query_one(Sheet)
        try:
            found = prospect(self._asked, self._choice())
        except BotBottleError as error:
            sheet.show([*_ours((str(error),), "bad"), *self._claim(changed=True)], str(error))
            return False
        self._seen = found
        diff = found.edit.diff if found.edit else ()
        head, *items = found.lines
        # How long it holds is the operator's own word, and moves with the clock: that is not read anew.
        key = (found.notes, found.grant.items if found.grant else head, diff)
        sheet.show(
            [
                *_ours((f"! {note}" for note in found.notes), "warn"),
                *_ours((f"A yes opens: {head}" if found.grant else f"A yes: {head}",), "strong"),
                *_ours(items),
                *_ours(diff),
                *self._claim(changed=found.changed),
            ],
            key,
        )
        return True

    def _claim(self, *, changed: bool) -> Iterable[Line]:
        """Give the agent's own words, each line marked as such; what it asks is above unless ``changed``."""
        request = self._asked.request
        yield ("", "It says:", "dim")
        more = {"egress": "", "git": request.summary * changed}.get(request.kind, request.text)
        for line in f"{request.reason}\n{more}".rstrip("\n").split("\n"):
            yield ("│ ", legible(line), "dim")


def _ours(lines: Iterable[str], tone: Tone = "") -> Iterable[Line]:
    return (("", legible(line), tone) for line in lines)


def _field(name: str, label: str, value: str, hint: str = "") -> ComposeResult:
    with Horizontal(classes="field"):
        yield Label(label)
        yield Input(value, placeholder=hint, id=name, compact=True)
