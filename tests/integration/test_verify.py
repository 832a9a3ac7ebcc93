"""``verify`` says of a bottle what is true: that it holds where it does, and what gets through elsewhere."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle.verify.battery import LINES

if TYPE_CHECKING:
    from tests.support.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

#: Runs the command with a manifest that opens what must stay closed, as a broken policy would.
_BROKEN = """
import sys
from bot_bottle.verify import stage
old, new = sys.argv.pop(1), sys.argv.pop(1)
assert old in stage._BOTTLE
stage._BOTTLE = stage._BOTTLE.replace(old, new, 1)
from bot_bottle.cli import main
sys.exit(main())
"""


@pytest.fixture
def verifier(lab: Lab) -> Lab:
    """Give a lab with a temporary folder of its own to look through."""
    temporary = lab.user_home / "verify-tmp"
    temporary.mkdir(exist_ok=True)
    lab.own()
    return lab


def test_every_attack_is_held_and_nothing_is_left(verifier: Lab) -> None:
    temporary = verifier.user_home / "verify-tmp"
    done = verifier.cli("verify", "--json", env={"TMPDIR": str(temporary)}, timeout=200)
    told = done.json()
    through = [one for one in told["attacks"] if one["verdict"] != "held"]
    if verifier.engine_host or verifier.machine_image:  # it is no process of ours, or does not listen inside
        assert {one["verdict"] for one in through} == {"not run"}, through
    else:
        assert through == []
    assert told["every_address"] is not bool(verifier.engine_host)
    assert (done.returncode, told["holds"], told["backend"]) == (0, True, verifier.backend)
    made = {line for one in told["attacks"] for line in one["id"].split()}
    assert made - {"control"} <= set(LINES)
    assert {*made, *told["elsewhere"]} >= set(LINES)
    assert told["not_prevented"]
    assert list(temporary.iterdir()) == []
    assert verifier.states("verify") == []


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("A1", "  routes:\n", "  routes:\n    - host: evil.test\n"),
        ("C6", "env:\n", "env:\n  LEAK: BEGIN PRIVATE KEY\n"),
        ("D2", "guard: [DB_PASSWORD]\n", ""),
    ],
    ids=["an open route", "a key in a variable", "a value nobody guards"],
)
def test_what_gets_through_is_said(verifier: Lab, line: str, old: str, new: str) -> None:
    if verifier.engine_host or verifier.machine_image or verifier.account.name == "root":
        pytest.skip("what the judges see is the same everywhere; an ordinary account tries it on bubblewrap")
    done = verifier.world.run(
        [sys.executable, "-c", _BROKEN, old, new, "verify", "--json", "--only", line],
        account=verifier.account,
        env=verifier.env,
        cwd=verifier.project,
        timeout=60,
    )
    assert done.returncode == 1, done.err
    attacks = json.loads(done.stdout)["attacks"]
    through = {one["id"] for one in attacks if one["verdict"] == "not held"}
    assert through == {line}, attacks
    assert "control" in {one["id"] for one in attacks}


def test_a_line_that_is_none_is_said(verifier: Lab) -> None:
    done = verifier.cli("verify", "--only", "Z9")
    assert done.returncode == 2
    assert "no such line" in done.err
