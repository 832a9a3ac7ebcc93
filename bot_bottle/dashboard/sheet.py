"""A text that must be read to its end: broken to the width, with a bar, and with what of it was in sight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import chop_cells
from rich.segment import Segment
from textual.dom import NoScreen
from textual.errors import NoWidget
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from bot_bottle.dashboard.table import TONES

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from bot_bottle.dashboard.rows import Tone

#: A line: what stands before each piece of it, its text, how it looks.
Line = tuple[str, str, "Tone"]


class Sheet(ScrollView, can_focus=False):
    """Lines, of which it knows how many have not been in sight yet."""

    DEFAULT_CSS = """
    Sheet { scrollbar-size: 0 1; overflow-x: hidden; overflow-y: scroll; }
    """

    class Looked(Message):
        """More of it was in sight, or other lines are to be seen."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - the library's
        super().__init__(id=id)
        self._lines: tuple[Line, ...] = ()
        self._pieces: list[tuple[str, Tone]] = []
        self._width = 0
        self._key: Hashable = None
        self._seen = 0
        self._whole = False

    @property
    def text(self) -> str:
        """All of its lines as they were given."""
        return "\n".join(f"{mark}{text}" for mark, text, _tone in self._lines)

    @property
    def left(self) -> int:
        """How many lines have not been in sight; 0 once all have been."""
        return 0 if self._whole else max(1, len(self._pieces) - self._seen)

    def show(self, lines: Sequence[Line], key: Hashable) -> None:
        """Show other lines; with another ``key`` they are to be read anew, from the first."""
        self._lines = tuple(lines)
        if key != self._key:
            self._key, self._seen, self._whole = key, 0, False
            self.scroll_to(y=0, animate=False, immediate=True)
        self._break()

    def scroll_by(self, lines: int, pages: int = 0) -> None:
        """Go on by lines and pages; a page leaves one line of the last in sight."""
        to = self.scroll_offset.y + lines + pages * max(1, self.size.height - 1)
        self.scroll_to(y=to, animate=False)

    def on_resize(self) -> None:
        """Break the lines anew."""
        if not self._whole:
            self._seen = 0
        self._break()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Take in what came into sight."""
        super().watch_scroll_y(old_value, new_value)
        self.call_after_refresh(self._look)

    @property
    def _room(self) -> int:
        """The width there is for text: the widget's own counts its bar."""
        return self.scrollable_content_region.width

    def _break(self) -> None:
        self._width = width = self._room
        self._pieces = []
        for mark, text, tone in self._lines:
            for piece in chop_cells(text, max(2, width - len(mark))) or [""]:
                self._pieces.append((f"{mark}{piece}", tone))
        self.virtual_size = Size(width, len(self._pieces))
        self.refresh()
        self.call_after_refresh(self._look)

    def _look(self) -> None:
        """Note how far down the lines that are drawn now go; what another widget or the edge cuts is not."""
        try:
            place = self.screen.find_widget(self)
        except (NoScreen, NoWidget):  # the form was answered meanwhile
            return
        seen = place.visible_region
        if self._width != self._room:
            self._break()
        elif seen.height > 0 and seen.width >= self._width > 0:
            down = self.scroll_offset.y + seen.y - place.region.y + seen.height
            self._seen = max(self._seen, down)
            self._whole = self._whole or self._seen >= len(self._pieces)
        self.post_message(self.Looked())

    def render_line(self, y: int) -> Strip:
        """Draw one line of what is seen."""
        width, base = self._room, self.rich_style
        index = y + self.scroll_offset.y
        text, tone = self._pieces[index] if index < len(self._pieces) else ("", "")
        return Strip([Segment(text, base + TONES[tone])]).crop_extend(0, width, base)
