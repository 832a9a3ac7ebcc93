"""What a yes to a push opens: one remote's branches and paths, for a while, and nothing besides."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from bot_bottle.errors import UsageError
from bot_bottle.supervise.decide import Choice, prospect
from bot_bottle.supervise.ledger import Answer
from bot_bottle.supervise.operator import Asked, make_push_grant
from bot_bottle.supervise.push_grant import PushGrant, push_warnings
from bot_bottle.supervise.record import Past, answer_record, past_of
from bot_bottle.supervise.request import AgentRequest

ONE = PushGrant(request="a2345678", remote="origin", branches=("fix-12",), paths=(".github/**",), until=100)


def asked(*refs: str, paths: tuple[str, ...] = ()) -> AgentRequest:
    return AgentRequest(
        id="a2345678", kind="git", reason="x", asked=1, remote="origin", refs=refs, paths=paths
    )


def test_what_was_granted_is_read_again_from_the_record() -> None:
    answer = Answer(verdict="approved", terms=ONE.terms)
    records = [
        {"event": "asked", **asked("fix-12").to_record()},
        {"event": "answered", **answer_record("a2345678", answer, ONE)},
    ]
    past = past_of(records)
    assert (past.pushes, past.grants, past.open) == ((ONE,), (), ())
    assert Past.from_wire(past.to_wire()) == past
    used = {"event": "used", "request": "a2345678"}
    assert past_of([*records, used]).pushes == (ONE,), "nobody counts"
    once = [records[0], {"event": "answered", **answer_record("a2345678", answer, replace(ONE, uses=1))}]
    assert [one.holds(99.0) for one in past_of(once).pushes] == [True]
    assert [one.holds(99.0) for one in past_of([*once, used]).pushes] == [False]


def test_a_grant_of_an_earlier_version_counts_nothing() -> None:
    wire = ONE.to_wire()
    del wire["uses"]
    assert PushGrant.from_wire(wire) == ONE


@pytest.mark.parametrize(
    "wire",
    [
        {"request": "a", "push": {"remote": "o", "branches": [], "paths": []}, "until": None},
        {"request": "a", "push": {"remote": "o", "branches": [""], "paths": []}, "until": None},
        {"request": "a", "push": {"remote": "o", "branches": "x", "paths": []}, "until": None},
        {"request": "a", "push": {"remote": "o", "branches": ["x"], "paths": []}, "until": "1"},
        {"request": "a", "push": {"remote": 1, "branches": ["x"], "paths": []}, "until": None},
        {"request": 1, "push": {"remote": "o", "branches": ["x"], "paths": []}, "until": None},
        {"request": "a", "push": {"remote": "o", "branches": ["x"], "paths": []}, "until": None, "uses": "1"},
        {"request": "a", "push": [], "until": None},
        {"request": "a", "push": {}, "until": None},
    ],
)
def test_what_is_no_grant_is_refused(wire: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        PushGrant.from_wire(wire)


def test_a_request_becomes_a_grant_as_it_was_asked() -> None:
    grant = make_push_grant(asked("refs/heads/fix-12", "topic/*", paths=("**/action.yml",)), lasting="2h")
    assert (grant.branches, grant.paths) == (("fix-12", "topic/*"), ("**/action.yml",))
    assert grant.until is not None
    assert 7000 < grant.until - time.time() <= 7200
    notes = " ".join(push_warnings(grant))
    for word in ("topic/* opens every branch", "protected paths", "default branch stay closed"):
        assert word in notes
    assert make_push_grant(asked("x"), lasting="bottle").until is None
    once = make_push_grant(asked("x"), lasting="once")
    assert (once.until, once.uses, once.terms) == (None, 1, "pushes to origin: branches x, for one push")


@pytest.mark.parametrize(
    ("choice", "branches", "paths", "changed"),
    [
        (Choice(), ("fix-12", "fix-13"), (".github/**",), False),
        (Choice(branches=("fix-12",)), ("fix-12",), (), True),
        (
            Choice(branches=("refs/heads/fix-12",), paths=("a/action.yml",)),
            ("fix-12",),
            ("a/action.yml",),
            True,
        ),
        (Choice(paths=(".github/**",)), (), (".github/**",), True),
        (
            Choice(branches=("fix-12", "fix-13"), paths=(".github/**",)),
            ("fix-12", "fix-13"),
            (".github/**",),
            False,
        ),
    ],
)
def test_less_than_was_asked_is_granted(
    choice: Choice, branches: tuple[str, ...], paths: tuple[str, ...], changed: bool
) -> None:
    request = asked("refs/heads/fix-12", "fix-13", paths=(".github/**",))
    seen = prospect(Asked(identity="worker-abcde", running=True, request=request), choice)
    assert isinstance(seen.grant, PushGrant)
    assert (seen.grant.branches, seen.grant.paths, seen.changed) == (branches, paths, changed)


@pytest.mark.parametrize("choice", [Choice(host="a.example"), Choice(methods=("GET",))])
def test_what_a_push_does_not_have_cannot_be_changed(choice: Choice) -> None:
    with pytest.raises(UsageError):
        prospect(Asked(identity="worker-abcde", running=True, request=asked("x")), choice)


@pytest.mark.parametrize(("refs", "lasting"), [(("refs/tags/v1",), "2h"), (("x",), "ever"), (("",), "2h")])
def test_what_cannot_be_granted_is_said(refs: tuple[str, ...], lasting: str) -> None:
    with pytest.raises(UsageError):
        make_push_grant(asked(*refs), lasting=lasting)
