"""Tests in emulated machines: run in a box, and once more in a fresh one what did not end well there.

A box is a whole computer in software beside other work: now and then one does not come up, or a machine in it
does not. That is told apart from a fault by a second try, of which it is said that it was needed; a fault is
there both times. An attack that failed is never tried again, only one that was never made (decision 30).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.evidence import FILE
from tests.tools.kvmbox import MARK, NO_VERDICT, OUT, Disk, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_RECORDS = "records"
_ATTACKS = "tests/attacks/"
#: With less than this left a second box is not begun: to come up and start one bottle takes most of it.
_LEAST_SECONDS = 150.0
#: A box that prints nothing for so long is ended: a test that hangs is told by its own bound before.
_SILENCE_SECONDS = 420.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a box's tests: pytest's exit code or ``NO_VERDICT``, and the records of each test."""

    code: int
    records: Mapping[str, tuple[str, ...]]
    """Test -> the lines that :mod:`tests.support.evidence` wrote of it."""

    def is_good(self, test: str) -> bool:
        """Tell whether a test was run, or skipped with its reason, and nothing of it failed."""
        outcomes = [json.loads(line)["outcome"] for line in self.records.get(test, ())]
        return bool(outcomes) and "failed" not in outcomes

    def got_out(self, test: str) -> bool:
        """Tell whether it is an attack that was made and failed: what got out once got out."""
        records = [json.loads(line) for line in self.records.get(test, ())]
        failed = any((record["outcome"], record["when"]) == ("failed", "call") for record in records)
        return failed and test.startswith(_ATTACKS)


def run_twice(
    pytest_argv: Sequence[str],
    tests: Sequence[str],
    *,
    seconds: float,
    disks: Sequence[Disk] = (),
    env: Sequence[str] = (),
) -> int:
    """Run ``tests`` (their ids) in a box, and those that did not end well once more; gives the exit code.

    ``pytest_argv`` runs pytest without naming tests. All of it takes at most ``seconds``. Where the variable
    ``BOT_BOTTLE_TEST_EVIDENCE`` names a file, what became of each test at each try is added to it.

    Raises ``NoBoxError``.
    """
    end = time.monotonic() + seconds
    first = _run_once(pytest_argv, tests, seconds, disks, env)
    again = [test for test in tests if not first.is_good(test)]
    if first.code == 0 or not again:
        return first.code
    what = "came to no end" if first.code == NO_VERDICT else f"ended with code {first.code}"
    _say(f"the box {what}; {len(again)} of {len(tests)} tests did not end well in it:")
    _say("\n".join(f"  {test}" for test in again))
    left = end - time.monotonic()
    if any(first.got_out(test) for test in again):
        _say("an attack is among them, which is not tried again")
    elif left < _LEAST_SECONDS:
        _say(f"there is no time for a second try: {seconds:.0f} s are all there is for both")
    else:
        _say(f"they are tried once more in a fresh box, which has {left:.0f} s")
        second = _run_once(pytest_argv, again, left, disks, env)
        if second.code == 0:
            _say(f"{len(again)} of {len(tests)} tests ended well at their second try")
        return second.code
    return first.code


def listed(pytest_argv: Sequence[str], chosen: Sequence[str]) -> tuple[str, ...]:
    """List the ids of the tests that a box would run of ``chosen``; as a side effect, have them compiled.

    Raises ``RuntimeError`` where pytest cannot list them.
    """
    done = subprocess.run(
        [*pytest_argv, *chosen, "--collect-only", "-q"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, MARK: "1"},
    )
    found = tuple(line for line in done.stdout.splitlines() if "::" in line and not line.startswith(" "))
    if done.returncode != 0 or not found:
        raise RuntimeError(f"the tests could not be listed:\n{done.stdout}\n{done.stderr}")
    return found


def _run_once(
    pytest_argv: Sequence[str],
    tests: Sequence[str],
    seconds: float,
    disks: Sequence[Disk],
    env: Sequence[str],
) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="machines-") as place:
        out = Path(place)
        argv = ["env", f"{FILE}={OUT}/{_RECORDS}", *pytest_argv, "-v", *tests]
        code = run(argv, out=out, seconds=seconds, silence=_SILENCE_SECONDS, disks=disks, env=env)
        found = out / _RECORDS
        # A last line that was cut off with its box is none.
        text = found.read_text().rpartition("\n")[0] if found.exists() else ""
        _note(text and f"{text}\n")
        return Outcome(code=code, records=_by_test(text))


def _by_test(text: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        test = json.loads(line)["test"]
        found[test] = (*found.get(test, ()), line)
    return found


def _note(text: str) -> None:
    place = os.environ.get(FILE)
    if place and text:
        with open(place, "a") as file:  # noqa: PTH123 - one write, which other runs can stand beside
            file.write(text)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
