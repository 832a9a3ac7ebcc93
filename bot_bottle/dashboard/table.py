"""Two widgets that show many lines and draw only those that are seen; no text of theirs is ever markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.binding import BindingType

    from bot_bottle.dashboard.rows import Cell, Column, Tone

#: How text of each tone looks.
TONES: dict[Tone, Style] = {
    "": Style(),
    "good": Style(color="green"),
    "warn": Style(color="yellow"),
    "bad": Style(color="red", bold=True),
    "dim": Style(dim=True),
    "strong": Style(bold=True),
}
_CURSOR, _PLACE = Style(bgcolor="#264f78"), Style(bgcolor="#2d2d2d")
_GAP = 2
Row = tuple[str, "tuple[Cell, ...]"]


#: The keys that move a cursor through lines, whatever the lines are.
_MOVES: list[BindingType] = [
    Binding("up,k", "move(-1)", "Up", show=False),
    Binding("down,j", "move(1)", "Down", show=False),
    Binding("home", "move(-1000000)", "First", show=False),
    Binding("end", "move(1000000)", "Last", show=False),
    Binding("pageup", "page(-1)", "Page up", show=False),
    Binding("pagedown", "page(1)", "Page down", show=False),
    Binding("enter", "choose", "Choose", show=False),
]


class LineTable(ScrollView, can_focus=True):
    """Rows with a key each and a cursor that stays with its key when rows come and go."""

    BINDINGS: ClassVar[list[BindingType]] = _MOVES
    DEFAULT_CSS = """
    LineTable { scrollbar-size: 0 1; overflow-x: hidden; }
    """

    class Moved(Message):
        """The cursor is at another row; ``key`` is empty where there is none."""

        def __init__(self, table: LineTable, key: str) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> LineTable:
            """The table it came from."""
            return self.table

    class Chosen(Moved):
        """A row was chosen."""

    def __init__(
        self,
        columns: Sequence[Column],
        *,
        empty: str,
        id: str,  # noqa: A002 - the library's
    ) -> None:
        """``empty`` is shown where there are no rows."""
        super().__init__(id=id)
        self._columns = tuple(columns)
        self._empty = empty
        self._rows: tuple[Row, ...] = ()
        self._at = 0

    @property
    def key(self) -> str:
        """The key of the row at the cursor; empty where there are no rows."""
        return self._rows[self._at][0] if self._rows else ""

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show other rows; nothing is drawn where they are the same."""
        rows = tuple(rows)
        if rows == self._rows:
            return
        key, before = self.key, self._at
        self._rows = rows
        keys = [row[0] for row in rows]
        self._at = keys.index(key) if key in keys else min(before, max(0, len(rows) - 1))
        self.virtual_size = Size(0, len(rows) + 1)
        self.refresh()
        if self.key != key:
            self.post_message(self.Moved(self, self.key))

    def select(self, key: str) -> None:
        """Move the cursor to the row of that key, if there is one."""
        keys = [row[0] for row in self._rows]
        if key in keys:
            self._move_to(keys.index(key))

    def action_move(self, by: int) -> None:
        """Move the cursor by so many rows."""
        self._move_to(self._at + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by so many screens."""
        self._move_to(self._at + by * max(1, self.size.height - 2))

    def action_choose(self) -> None:
        """Choose the row at the cursor."""
        if self._rows:
            self.post_message(self.Chosen(self, self.key))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to where the mouse points; twice chooses."""
        row = event.y - 1 + self.scroll_offset.y
        if event.y < 1 or row >= len(self._rows):
            return
        self._move_to(row)
        if event.chain == 2:
            self.action_choose()

    def _move_to(self, row: int) -> None:
        row = max(0, min(row, len(self._rows) - 1))
        if not self._rows or row == self._at:
            return
        self._at = row
        # The heading takes a line of what is seen, so the row above is to be seen as well.
        self.scroll_to_region(Region(0, row, 1, 2), animate=False, force=True)
        self.refresh()
        self.post_message(self.Moved(self, self.key))

    def render_line(self, y: int) -> Strip:
        """Draw one line of what is seen; the first is the heading."""
        width, base = self.size.width, self.rich_style
        columns = [(place, one) for place, one in enumerate(self._columns) if width >= one.least]
        fixed = sum(column.width for _, column in columns) + _GAP * (len(columns) - 1)
        left = max(4, width - fixed)
        if y == 0:
            head = base + Style(dim=True, bold=True)
            return _strip([(column.title, column, head) for _, column in columns], left, width, base)
        index = y - 1 + self.scroll_offset.y
        if index >= len(self._rows):
            words = self._empty if not self._rows and y == 1 else ""
            return Strip([Segment(set_cell_size(words, width), base + TONES["dim"])], width)
        cells = self._rows[index][1]
        if index == self._at:
            base += _CURSOR if self.has_focus else _PLACE
        parts = [(cells[place][0], column, base + TONES[cells[place][1]]) for place, column in columns]
        return _strip(parts, left, width, base)


class LineLog(ScrollView, can_focus=True):
    """The newest lines at the bottom, which stays in sight until one scrolls up."""

    DEFAULT_CSS = """
    LineLog { scrollbar-size: 0 1; }
    """
    #: How many lines are kept.
    MOST = 1000

    def __init__(self, *, empty: str, id: str) -> None:  # noqa: A002 - the library's
        super().__init__(id=id)
        self._empty = empty
        self._lines: list[Cell] = []

    @property
    def lines(self) -> tuple[str, ...]:
        """What it holds."""
        return tuple(text for text, _tone in self._lines)

    def clear(self) -> None:
        """Forget all lines."""
        self._lines = []
        self._resize()
        self.scroll_home(animate=False)

    def add(self, lines: Sequence[Cell]) -> None:
        """Add lines."""
        if not lines:
            return
        follows = self.scroll_offset.y >= self.max_scroll_y
        self._lines = [*self._lines, *lines][-self.MOST :]
        self._resize()
        if follows:
            self.scroll_end(animate=False)

    def _resize(self) -> None:
        longest = max((cell_len(text) for text, _tone in self._lines), default=0)
        self.virtual_size = Size(longest, len(self._lines))
        self.refresh()

    def base_of(self, index: int) -> Style:  # noqa: ARG002 - for those who tell lines apart
        """Give how a line looks before its own colour."""
        return self.rich_style

    def render_line(self, y: int) -> Strip:
        """Draw one line of what is seen."""
        width, base = self.size.width, self.rich_style
        index = y + self.scroll_offset.y
        if index >= len(self._lines):
            words = self._empty if not self._lines and y == 0 else ""
            return Strip([Segment(set_cell_size(words, width), base + TONES["dim"])], width)
        base = self.base_of(index)
        text, tone = self._lines[index]
        whole = Strip([Segment(text, base + TONES[tone])])
        start = self.scroll_offset.x
        return whole.crop_extend(start, start + width, base)


class RecordLog(LineLog):
    """Lines with a number each and a cursor, which is at the newest line until it is moved up."""

    BINDINGS: ClassVar[list[BindingType]] = _MOVES

    class Chosen(Message):
        """A line was chosen."""

    def __init__(self, *, empty: str, id: str) -> None:  # noqa: A002 - the library's
        super().__init__(empty=empty, id=id)
        self._numbers: list[int] = []
        self._at: int | None = None

    @property
    def number(self) -> int | None:
        """The number of the line at the cursor; None where there is none."""
        return self._numbers[self._cursor] if self._numbers else None

    @property
    def _cursor(self) -> int:
        return len(self._numbers) - 1 if self._at is None else self._at

    def clear(self) -> None:
        """Forget all lines."""
        self._numbers, self._at = [], None
        super().clear()

    def add_numbered(self, lines: Sequence[tuple[Cell, int]]) -> None:
        """Add lines with their numbers."""
        self._numbers = [*self._numbers, *(number for _cell, number in lines)]
        over = len(self._numbers) - self.MOST
        if over > 0:
            del self._numbers[:over]
            self._at = None if self._at is None else max(0, self._at - over)
        self.add([cell for cell, _number in lines])

    def action_move(self, by: int) -> None:
        """Move the cursor by so many lines; past the newest it goes on with what comes."""
        if self._numbers:
            self._move_to(self._cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by so many screens."""
        self.action_move(by * max(1, self.size.height - 1))

    def action_choose(self) -> None:
        """Choose the line at the cursor."""
        if self._numbers:
            self.post_message(self.Chosen())

    def on_click(self, event: events.Click) -> None:
        """Move the cursor to where the mouse points; twice chooses."""
        line = event.y + self.scroll_offset.y
        if line < len(self._numbers):
            self._move_to(line)
            if event.chain == 2:
                self.action_choose()

    def _move_to(self, line: int) -> None:
        line = max(0, line)
        self._at = line if line < len(self._numbers) - 1 else None
        self.scroll_to_region(Region(self.scroll_offset.x, self._cursor, 1, 1), animate=False, force=True)
        self.refresh()

    def on_focus(self) -> None:
        """Show the cursor."""
        self.refresh()

    def on_blur(self) -> None:
        """Show it no more."""
        self.refresh()

    def base_of(self, index: int) -> Style:
        """Give how a line looks before its own colour."""
        at_cursor = self.has_focus and self._numbers and index == self._cursor
        return self.rich_style + _CURSOR if at_cursor else self.rich_style


def _strip(parts: Sequence[tuple[str, Column, Style]], left: int, width: int, base: Style) -> Strip:
    segments: list[Segment] = []
    for number, (text, column, style) in enumerate(parts):
        if number:
            segments.append(Segment(" " * _GAP, base))
        segments.append(Segment(_fit(text, column.width or left, column), style))
    return Strip(segments).crop_extend(0, width, base)


def _fit(text: str, width: int, column: Column) -> str:
    length = cell_len(text)
    if length > width and column.tail:
        return set_cell_size(f"…{text[len(text) - width + 1 :]}", width)
    if length > width:
        return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)
    return " " * (width - length) + text if column.right else text + " " * (width - length)
