"""Printing for humans and for programs."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def print_json(value: object) -> None:
    """Write one JSON document to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write columns to stdout, as wide as their widest cell; cells are made safe to print.

    On a terminal that is too narrow for them each row is a few lines: its first cell, then each other one
    that is not empty with its title.
    """
    lines = [list(head), *([legible(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    if sys.stdout.isatty() and sum(widths) + 2 * (len(widths) - 1) > shutil.get_terminal_size().columns:
        print("\n".join(_stacked(lines)))
        return
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _stacked(lines: Sequence[Sequence[str]]) -> Iterable[str]:
    head, *rows = lines
    width = max(len(title) for title in head[1:])
    for first, *others in rows:
        yield first
        for title, cell in zip(head[1:], others, strict=True):
            if cell:
                yield f"  {title.lower():<{width}}  {cell}"
