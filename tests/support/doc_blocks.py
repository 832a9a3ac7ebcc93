"""What a reader would copy out of the documents: their blocks of commands, line by line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support.outside import REPO

if TYPE_CHECKING:
    from pathlib import Path

PAGES = sorted(
    [REPO / "README.md", REPO / "SECURITY.md", *REPO.glob("docs/*.md"), *REPO.glob("examples/**/*.md")]
)
#: How a line begins that is typed into a shell; blocks of other things (files, pictures) do not begin so.
_TYPED = re.compile(
    r"(?:[A-Za-z_]+=\S*\(?|export |cd |make |python3? |pip |uv |git |sudo |docker |bot-bottle )"
)
_SHELLS = {"sh", "bash", "shell", "console"}
_COMMENT = re.compile(r"\s+# .*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One command of a page, without the remark behind it."""

    page: str
    number: int
    text: str


def commands(page: Path) -> tuple[Line, ...]:
    """Give the commands of a page in their order."""
    found: list[Line] = []
    fence: str | None = None
    typed, before = False, ""
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if line.startswith("```"):
            fence = None if fence is not None else line[3:].strip()
            typed = fence in _SHELLS
        elif fence is None and not line.startswith("    "):
            typed = False
        elif fence is None and not before.strip():  # a block begins
            typed = _TYPED.match(line.strip()) is not None
        if typed and line.strip() and not line.startswith("```"):
            name = str(page.relative_to(REPO))
            found.append(Line(page=name, number=number, text=_COMMENT.sub("", line.strip())))
        before = line
    return tuple(found)


def shown(page: Path, kind: str) -> tuple[str, ...]:
    """Give the contents of a page's fenced blocks of a kind (``json``, ``yaml``)."""
    return tuple(re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))
