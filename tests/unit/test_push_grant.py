"""What a yes to a push opens: one remote's branches and paths, for a while, and nothing besides."""

from __future__ import annotations

import time

import pytest

from bot_bottle.errors import UsageError
from bot_bottle.git_gate.policy import PushPolicy
from bot_bottle.supervise.ledger import Answer
from bot_bottle.supervise.operator import make_push_grant
from bot_bottle.supervise.push_grant import PushGrant, push_warnings, widened
from bot_bottle.supervise.record import Past, answer_record, past_of
from bot_bottle.supervise.request import AgentRequest

ONE = PushGrant(request="a2345678", remote="origin", branches=("fix-12",), paths=(".github/**",), until=100)


def asked(*refs: str, paths: tuple[str, ...] = ()) -> AgentRequest:
    return AgentRequest(
        id="a2345678", kind="git", reason="x", asked=1, remote="origin", refs=refs, paths=paths
    )


def test_a_policy_is_widened_while_the_grant_holds_and_for_its_remote() -> None:
    policy = PushPolicy(branches=("bottle/**",), force=False, tags=False)
    wide = widened(policy, "origin", [ONE], 99.0)
    assert (wide.branches, wide.paths) == (("bottle/**", "fix-12"), (".github/**",))
    assert (wide.force, wide.delete, wide.tags, wide.default_branch) == (False, False, False, False)
    assert widened(policy, "origin", [ONE], 100.0) == policy
    assert widened(policy, "other", [ONE], 99.0) == policy
    assert widened(policy, "origin", [], 0.0) is policy


def test_what_was_granted_is_read_again_from_the_record() -> None:
    answer = Answer(verdict="approved", terms=ONE.terms)
    records = [
        {"event": "asked", **asked("fix-12").to_record()},
        {"event": "answered", **answer_record("a2345678", answer, ONE)},
    ]
    past = past_of(records)
    assert (past.pushes, past.grants, past.open) == ((ONE,), (), ())
    assert Past.from_wire(past.to_wire()) == past


@pytest.mark.parametrize(
    "wire",
    [
        {"request": "a", "push": {"remote": "o", "branches": [], "paths": []}, "until": None},
        {"request": "a", "push": {"remote": "o", "branches": [""], "paths": []}, "until": None},
        {"request": "a", "push": {"remote": "o", "branches": "x", "paths": []}, "until": None},
        {"request": "a", "push": {"remote": "o", "branches": ["x"], "paths": []}, "until": "1"},
        {"request": "a", "push": {"remote": 1, "branches": ["x"], "paths": []}, "until": None},
        {"request": 1, "push": {"remote": "o", "branches": ["x"], "paths": []}, "until": None},
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


@pytest.mark.parametrize(("refs", "lasting"), [(("refs/tags/v1",), "2h"), (("x",), "once"), (("",), "2h")])
def test_what_cannot_be_granted_is_said(refs: tuple[str, ...], lasting: str) -> None:
    with pytest.raises(UsageError):
        make_push_grant(asked(*refs), lasting=lasting)
