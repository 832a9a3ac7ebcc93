"""Decisions are numbered once each, and those that are named exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "decisions"


def test_each_number_is_given_once_without_a_gap_and_stands_in_the_title() -> None:
    files = sorted(FOLDER.glob("*.md"))
    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        assert re.match(rf"# {int(file.name[:4])}\. \S", file.read_text()), file.name


def test_a_decision_that_is_named_exists() -> None:
    known = {file.name[:4] for file in FOLDER.glob("*.md")}
    folders = ("bot_bottle", "tests", "benchmarks", "docs")
    texts = [path for name in folders for kind in ("*.py", "*.md") for path in (ROOT / name).rglob(kind)]
    named = {
        number
        for path in [*texts, *ROOT.glob("*.md")]
        for number in re.findall(r"decisions/(\d{4})", path.read_text())
    }
    assert len(named) > 10
    assert named <= known
