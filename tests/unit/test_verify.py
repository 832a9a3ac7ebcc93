"""How ``verify`` judges: by what arrived and is on record, never by a script that failed by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from bot_bottle.backend.base import ExecResult
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.verify import battery, becoming_root, inside
from bot_bottle.verify.case import Case, broken, held, not_run, requests, through


@dataclass
class _Outside:
    whole: bool = True
    places: list[str] = field(default_factory=list)
    door: tuple[str, int] = ("192.0.2.1", 1)

    def arrived(self, mark: str) -> list[str]:
        assert mark
        return self.places


class _Bottle:
    def __init__(self, told: object, error: str = "") -> None:
        self.told, self.error = told, error

    def exec(self, script: str, **_options: Any) -> ExecResult:
        if self.error == "gone":
            raise LaunchError("the bottle is gone")
        out = b"" if self.error else json.dumps({"told": self.told}).encode()
        return ExecResult(returncode=1 if self.error else 0, stdout=out, stderr=self.error.encode())


class _Stage:
    """Stands for a run: what scripts tell, what arrived, how many refusals each look at the record finds."""

    def __init__(self, bottle: _Bottle, outside: _Outside, refusals: list[int]) -> None:
        self.bottle, self.outside, self._refusals = bottle, outside, refusals

    def refusals(self) -> int:
        return self._refusals.pop(0)


def judge(
    told: object,
    *,
    error: str = "",
    places: list[str] | None = None,
    refusals: tuple[int, int] = (0, 1),
    whole: bool = True,
    **options: Any,
) -> tuple[str, str]:
    case = Case(id="A1", title="t", expected="e", run=requests("pass", **options))
    stage: Any = _Stage(_Bottle(told, error), _Outside(whole=whole, places=places or []), list(refusals))
    finding = battery._try(case, stage).finding
    return finding.verdict, finding.seen


def test_what_arrived_got_through_whatever_the_script_says() -> None:
    verdict, seen = judge({"a": "host_not_allowed"}, places=["GET /x"], reasons=("host_not_allowed",))
    assert (verdict, seen) == ("NOT HELD", "arrived: GET /x")


@pytest.mark.parametrize(
    ("told", "refusals", "words"),
    [
        ({"a": "host_not_allowed", "b": "HTTP/1.1 200 OK"}, (0, 1), "b: HTTP/1.1 200 OK"),
        ({"a": "host_not_allowed"}, (3, 3), "no refusal is on record"),
        ({}, (0, 1), "tried nothing"),
    ],
    ids=["another end", "not on record", "nothing tried"],
)
def test_what_did_not_end_as_it_must_is_not_held(
    told: dict[str, str], refusals: tuple[int, int], words: str
) -> None:
    verdict, seen = judge(told, refusals=refusals, reasons=("host_not_allowed",))
    assert verdict == "NOT HELD"
    assert words in seen


def test_a_script_or_a_bottle_that_fails_by_itself_proves_nothing() -> None:
    verdict, seen = judge({}, error="SyntaxError: invalid syntax")
    assert verdict == "NOT HELD"
    assert "SyntaxError" in seen
    assert "proves nothing" in seen
    assert judge({}, error="gone")[0] == "NOT HELD"


def test_what_cannot_be_seen_here_is_not_run() -> None:
    assert judge({"a": "x"}, whole=False) == ("held", "1 try, nothing arrived: x")
    assert judge({"a": "x"}, whole=False, needs_whole=True)[0] == "not run"


def test_a_refused_or_silent_try_is_held() -> None:
    verdict, seen = judge({"a": "host_not_allowed", "b": "host_not_allowed"}, reasons=("host_not_allowed",))
    assert (verdict, seen) == ("held", "2 tries, nothing arrived: host_not_allowed")
    assert judge({"a": "OPEN"}, wrong=through)[0] == "NOT HELD"
    assert judge({"a": "EPERM"}, wrong=through)[0] == "held"


def _report(*verdicts: str) -> battery.Report:
    case = Case(id="A1", title="t", expected="e", run=lambda _stage: held(""))
    found = {"held": held(""), "not run": not_run("")}
    tried = tuple(battery.Tried(case=case, finding=found.get(one, broken("")), seconds=0) for one in verdicts)
    return battery.Report(
        backend="b", boundary="", accounts="", whole=True, tried=tried, not_prevented=(), seconds=0
    )


def test_a_run_holds_if_nothing_got_through_and_tells_what_it_did_not_try() -> None:
    assert _report("held", "not run").holds
    assert not _report("held", "NOT HELD").holds
    assert "A1" not in _report("held").elsewhere
    assert "A1" in _report("not run").elsewhere


@pytest.mark.parametrize("name", ["Z1", "A99", "", "A1\x1b[31m"])
def test_a_line_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        battery._wanted([name])
    assert "no such line" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_lines_and_families_are_chosen() -> None:
    assert battery._wanted(["b10"]) == {"B10"}
    assert battery._wanted(["H"]) == {"H1", "H2", "H3", "H4"}
    assert battery._wanted([]) == frozenset()


def test_values_reach_a_script_as_they_are() -> None:
    class Bottle(_Bottle):
        def exec(self, script: str, **options: Any) -> ExecResult:
            done = subprocess.run(
                [sys.executable, "-I", "-"], input=options["stdin"], capture_output=True, check=True
            )
            return ExecResult(returncode=0, stdout=done.stdout, stderr=b"")

    bottle: Any = Bottle({})
    value = {"nul": b"\0\xff", "quote": "'\"\\\n", "list": [1, 2]}
    quote = "chr(39) + chr(34) + chr(92) + chr(10)"
    same = f"{{'nul': bytes([0, 255]), 'quote': {quote}, 'list': [1, 2]}}"
    code = f"print('noise'); tell(same=value == {same})"
    assert inside.run(bottle, code, value=value) == {"same": True}


@pytest.mark.parametrize(
    ("way", "namespace", "words"),
    [
        ("refused", {"unshare": "EPERM"}, ""),
        ("ROOT", {"unshare": "EPERM"}, "root, or more rights than before, by: unshare -r"),
        ("NAMESPACE", {"unshare": "ROOT", "UDP": "ENETUNREACH", "the host's name": "EPERM"}, ""),
        ("NAMESPACE", {"unshare": "ROOT", "the host's name": "DONE"}, "got: the host's name"),
        ("NAMESPACE", {"unshare": "EACCES"}, "whose rights could not be tried: EACCES"),
    ],
)
def test_root_of_a_user_namespace_is_judged_by_what_it_can_do(
    way: str, namespace: dict[str, str], words: str
) -> None:
    seen = {
        "account": {"uid": 1000, "CapEff": 0, "CapPrm": 0},
        "told": {"unshare -r": way, "su": "refused"},
        "namespace": namespace,
    }
    wrong = becoming_root._wrong(seen, [], whole=True)
    assert (words in wrong) if words else not wrong, wrong
