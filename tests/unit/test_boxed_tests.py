"""What does not end well in one emulated machine is tried once more in another; a fault shows in both."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.evidence import FILE
from tests.tools import boxed_tests
from tests.tools.kvmbox import NO_VERDICT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PYTEST = ("python", "-m", "pytest")


def record(test: str, outcome: str, when: str = "call") -> str:
    return json.dumps({"test": test, "outcome": outcome, "when": when})


class Boxes:
    """Stands in for emulated machines: each in turn writes its records, and ends with its code."""

    def __init__(self, *boxes: tuple[int, Mapping[str, str]], torn: str = "") -> None:
        self._boxes, self._torn = list(boxes), torn
        self.ran: list[list[str]] = []
        self.seconds: list[float] = []

    def run(self, argv: list[str], *, out: Path, seconds: float, **_: Any) -> int:
        code, outcomes = self._boxes.pop(0)
        place = argv[1].removeprefix(f"{FILE}=/mnt/kvmbox/")
        self.ran.append(argv[argv.index("-v") + 1 :])
        self.seconds.append(seconds)
        lines = [record(test, outcome) for test, outcome in outcomes.items()]
        (out / place).write_text("".join(f"{line}\n" for line in lines) + self._torn)
        return code


@pytest.fixture
def in_boxes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Give a function that runs three tests in these boxes: the boxes, the exit code, what was noted."""

    def run(*boxes: tuple[int, Mapping[str, str]], torn: str = "", seconds: float = 900.0) -> Any:
        told = tmp_path / "evidence"
        monkeypatch.setenv(FILE, str(told))
        made = Boxes(*boxes, torn=torn)
        monkeypatch.setattr(boxed_tests, "run", made.run)
        code = boxed_tests.run_twice(PYTEST, ("t::a", "t::b", "t::c"), seconds=seconds)
        records = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
        return made, code, [(one["test"][-1], one["outcome"]) for one in records]

    return run


GOOD = {"t::a": "passed", "t::b": "skipped", "t::c": "passed"}
TOLD = [("a", "passed"), ("b", "skipped"), ("c", "passed")]


def test_one_box_is_enough_where_all_goes_well(in_boxes: Any) -> None:
    made, code, told = in_boxes((0, GOOD))
    assert (made.ran, code, told) == ([["t::a", "t::b", "t::c"]], 0, TOLD)


def test_only_what_failed_is_tried_again_and_both_tries_are_told(in_boxes: Any) -> None:
    made, code, told = in_boxes((1, {**GOOD, "t::c": "failed"}), (0, {"t::c": "passed"}))
    assert (made.ran[1:], code) == ([["t::c"]], 0)
    assert told == [*TOLD[:2], ("c", "failed"), ("c", "passed")]
    assert made.seconds[0] == 900
    assert made.seconds[1] <= 900


def test_what_a_box_never_came_to_is_tried_again(in_boxes: Any) -> None:
    rest = {"t::b": "passed", "t::c": "passed"}
    made, code, told = in_boxes((NO_VERDICT, {"t::a": "passed"}), (0, rest), torn='{"test": "t::b", "out')
    assert (made.ran[1:], code) == ([["t::b", "t::c"]], 0)
    assert told == [("a", "passed"), ("b", "passed"), ("c", "passed")]


def test_a_fault_is_there_both_times(in_boxes: Any) -> None:
    failed = {"t::b": "failed"}
    _, code, told = in_boxes((1, {**GOOD, **failed}), (1, failed))
    assert (code, told.count(("b", "failed"))) == (1, 2)


def test_a_second_box_that_comes_to_nothing_is_no_good_end(in_boxes: Any) -> None:
    _, code, _ = in_boxes((1, {**GOOD, "t::b": "failed"}), (NO_VERDICT, {}))
    assert code == NO_VERDICT


def test_without_time_there_is_no_second_box(in_boxes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made, code, _ = in_boxes((1, {**GOOD, "t::b": "failed"}), seconds=60.0)
    assert (len(made.ran), code) == (1, 1)
    assert "no time for a second try" in capsys.readouterr().err


def test_a_code_without_a_failed_test_stays(in_boxes: Any) -> None:
    made, code, _ = in_boxes((3, GOOD))
    assert (len(made.ran), code) == (1, 3)


def test_a_test_that_passed_and_could_not_be_taken_down_failed() -> None:
    lines = (record("t::a", "passed"), record("t::a", "failed", "teardown"))
    assert not boxed_tests.Outcome(code=1, records={"t::a": lines}).is_good("t::a")


@pytest.mark.parametrize(
    ("test", "when", "got_out"),
    [
        ("tests/attacks/x.py::a", "call", True),
        ("tests/attacks/x.py::a", "setup", False),  # never made: its bottle did not come up
        ("tests/integration/x.py::a", "call", False),
    ],
)
def test_an_attack_that_failed_is_not_tried_again(test: str, when: str, *, got_out: bool) -> None:
    outcome = boxed_tests.Outcome(code=1, records={test: (record(test, "failed", when),)})
    assert not outcome.is_good(test)
    assert outcome.got_out(test) is got_out


def test_with_such_an_attack_there_is_no_second_box(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attack, other = "tests/attacks/x.py::a", "tests/integration/x.py::b"
    made = Boxes((1, {attack: "failed", other: "failed"}))
    monkeypatch.setattr(boxed_tests, "run", made.run)
    monkeypatch.delenv(FILE, raising=False)  # these tests were never run
    assert boxed_tests.run_twice(PYTEST, (attack, other), seconds=900.0) == 1
    assert "is not tried again" in capsys.readouterr().err
