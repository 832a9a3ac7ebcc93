"""Rows of numbers, printed as they come and written as Markdown and JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

DOCS = Path(__file__).resolve().parents[1] / "docs"


@dataclass(slots=True, kw_only=True)
class Table:
    """One comparison. Cells are text; ``notes`` say what was measured and how it ended."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)

    def markdown(self) -> str:
        """Give the table as Markdown."""
        lines = [f"## {self.title}", "", f"| {' | '.join(self.columns)} |"]
        lines.append(f"| --- | {' | '.join('---:' for _ in self.columns[1:])} |")
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        lines += ["", *self.notes]
        return "\n".join(lines).rstrip() + "\n"


def median(values: Sequence[float]) -> float:
    """Give the median."""
    return statistics.median(values)


def write(tables: Sequence[Table]) -> None:
    """Write ``docs/benchmarks.md`` and ``docs/benchmarks.json``; tables of the same titles are replaced."""
    new = {table.title: table for table in tables}
    tables = [new.pop(table.title, table) for table in _written()] + list(new.values())
    head = [
        "# Benchmarks",
        "",
        "Written by `make bench`: every comparison in one run, peers in alternation, medians of the rounds.",
        "Absolute numbers belong to the machine; the ratios are what to look at.",
        "",
        f"Machine: {os.cpu_count()} CPUs, {_system()}, Python {platform.python_version()}.",
        "",
        "![Egress beside its peers](egress.svg)",
        "",
    ]
    (DOCS / "benchmarks.md").write_text(
        "\n".join(head) + "\n" + "\n".join(table.markdown() for table in tables)
    )
    data = {
        "machine": _system(),
        "cpus": os.cpu_count(),
        "tables": [asdict(table) for table in tables],
    }
    (DOCS / "benchmarks.json").write_text(json.dumps(data, indent=1) + "\n")


def _written() -> list[Table]:
    """Read the tables that are there already."""
    path = DOCS / "benchmarks.json"
    if not path.exists():
        return []
    return [
        Table(
            title=item["title"],
            columns=tuple(item["columns"]),
            rows=[tuple(row) for row in item["rows"]],
            notes=item["notes"],
        )
        for item in json.loads(path.read_text())["tables"]
    ]


def _system() -> str:
    """Name the system without the suffix that tells whose kernel it is."""
    major, minor = platform.release().split(".")[:2]
    return f"{platform.system()} {major}.{minor} {platform.machine()}"
