"""Printing for humans and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bot_bottle.legible import legible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def print_json(value: object) -> None:
    """Write one JSON document to stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=True))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write columns to stdout, as wide as their widest cell; cells are made safe to print."""
    lines = [list(head), *([legible(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
