"""The pages made of the code say what the code says, and leave no reason out."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

from tests.tools import reference


def test_the_pages_are_what_the_code_says() -> None:
    """Asked in a process of its own: a command keeps the form of help that a test first asked it for."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.reference", "--check"],
        cwd=reference.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_reason_of_the_source_is_listed() -> None:
    listed = set(re.findall(r"^\| `(\w+)`", reference.denials_page(), re.MULTILINE))
    for room in ("egress", "git_gate", "sidecar"):
        for file in (reference.PACKAGE / room).rglob("*.py"):
            named = set(re.findall(r'\breason="([a-z_]+)"', file.read_text()))
            assert named - listed == set(), file


def test_a_refusal_is_read_wherever_its_words_stand() -> None:
    source = """
_REASONS = {"a": "from_table"}

def direct(host):
    return Deny(reason="direct", rule="r", message=f"no {host}", next_step="Ask " "again")

def made(reason, message):
    return Deny(reason=reason, rule="r", message=message, next_step="x")

def use(kind):
    made("passed_on", "first"); made("either" if kind else "other", message=f"{kind} second")
    return Deny(reason=_REASONS[kind], rule="t", message="m", next_step="n")

def read():
    raise BadMessageError("it is odd", reason="odd")
"""
    found = {one.reason: one for one in reference._in_module(ast.parse(source))}
    assert set(found) == {"direct", "passed_on", "either", "other", "from_table", "odd"}
    assert found["direct"].message == "no …"
    assert found["direct"].next_step == "Ask again"
    assert found["either"].message == "… second"
    assert found["odd"].rule == "egress.http"
