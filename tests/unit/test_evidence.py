"""No way out is forgotten: each is tried by a test that exists, or is said to stay open."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.verify.battery import LINES as BATTERY_LINES
from tests.support import evidence

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]


def _all_tests() -> Iterator[str]:
    for file in sorted(TESTS.rglob("test_*.py")):
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(), re.MULTILINE):
            yield f"tests/{file.relative_to(TESTS)}::{name}"


ALL = tuple(_all_tests())


def test_the_lines_are_those_of_the_battery() -> None:
    assert tuple(evidence.LINES) == BATTERY_LINES


@pytest.mark.parametrize("line", evidence.LINES)
def test_a_line_has_a_test_or_is_said_to_stay_open(line: str) -> None:
    about = evidence.LINES[line]
    assert about.open or any(line in evidence.lines_of(test) for test in ALL)


@pytest.mark.parametrize("line", evidence.LINES)
def test_every_test_that_is_named_exists(line: str) -> None:
    for pattern in evidence.LINES[line].tests:
        alone = evidence.Line("", (pattern,))
        found = [test for test in ALL if _stands_for(test, alone)]
        assert found, pattern


def _stands_for(test: str, about: evidence.Line) -> bool:
    before = evidence.LINES
    try:
        evidence.LINES = {"X": about}
        return "X" in evidence.lines_of(test)
    finally:
        evidence.LINES = before


def test_a_name_tells_its_lines() -> None:
    assert evidence.lines_of("tests/attacks/test_x.py::test_a3_a4_no_protocol[docker-root]") == {"A3", "A4"}
    assert evidence.lines_of("tests/unit/test_x.py::test_a_name") == frozenset()


def test_what_became_of_a_test_is_noted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "noted"
    item: Any = SimpleNamespace(
        nodeid="tests/x.py::test_a1_x[docker-root]",
        callspec=SimpleNamespace(params={"backend": "docker", "account": SimpleNamespace(name="root")}),
    )
    monkeypatch.delenv(evidence.FILE, raising=False)
    for when, outcome in (
        ("setup", "passed"),
        ("call", "passed"),
        ("teardown", "passed"),
        ("setup", "skipped"),
    ):
        report: Any = SimpleNamespace(when=when, outcome=outcome)
        evidence.note(item, report)
        assert not place.exists()
    monkeypatch.setenv(evidence.FILE, str(place))
    for when, outcome in (("setup", "passed"), ("call", "passed"), ("teardown", "failed")):
        evidence.note(item, SimpleNamespace(when=when, outcome=outcome))  # type: ignore[arg-type]
    noted = place.read_text().splitlines()
    assert ["passed" in line for line in noted] == [True, False]
    assert '"backend": "docker", "account": "root"' in noted[0]
