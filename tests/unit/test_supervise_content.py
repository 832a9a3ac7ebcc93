"""What a human lets pass of what was found: which findings, to which host, how often."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot_bottle.errors import UsageError
from bot_bottle.pipelock.finding import Finding, Where, value_id
from bot_bottle.pipelock.selection import Approvals, Selection
from bot_bottle.supervise.decide import MANIFEST, Choice, prospect
from bot_bottle.supervise.grant import Grant, grant_route
from bot_bottle.supervise.ledger import Answer, Ledger
from bot_bottle.supervise.operator import Asked, let_pass
from bot_bottle.supervise.request import AgentRequest
from bot_bottle.supervise.terms import Terms

ASKED = AgentRequest(
    id="aaaaaaaa",
    kind="content",
    reason="",
    asked=100,
    host="api.test",
    text="jwt in body",
    values=("1", "2"),
)
GRANT = Grant(request="aaaaaaaa", route=grant_route("aaaaaaaa", "api.test"), values=("1", "2"))


def finding(value: bytes, **more: object) -> Finding:
    made = Finding(kind="credential", rule="key", where=Where(place="body"), value_id=value_id(value))
    return replace(made, **more)  # type: ignore[arg-type]


def test_an_id_is_of_its_value_and_says_nothing_of_it() -> None:
    assert value_id(b"one") == value_id(b"one") != value_id(b"two")
    assert finding(b"one") == finding(b"two"), "it is no part of what a finding says"
    assert value_id(b"one") not in str(finding(b"one"))


def test_what_may_pass_is_claimed_once_a_request() -> None:
    claimed: list[str] = []
    ids = (value_id(b"one"), value_id(b"two"))

    def claim(one: str) -> tuple[str, ...]:
        claimed.append(one)
        return ids if one in ids else ()

    selection = Selection(approvals=Approvals(claim))
    assert not selection.counts(finding(b"one"))
    assert not selection.counts(finding(b"two"))
    assert not selection.counts(finding(b"one"))
    assert claimed == [ids[0]]
    assert selection.counts(finding(b"three"))
    for kind in ("own_secret", "opaque", "error"):
        assert selection.counts(finding(b"one", kind=kind))
    assert selection.counts(finding(b"one", value_id=""))


def test_a_grant_of_values_opens_no_route() -> None:
    terms = Terms([GRANT, replace(GRANT, request="bbbbbbbb", uses=1, values=("3",))])
    assert terms.routes(0) == ()
    assert terms.counted() == {}
    assert terms.passing("api.test", "2", 0) == GRANT
    assert terms.passing("other.test", "2", 0) is None
    assert terms.passing("api.test", "4", 0) is None
    terms.use("bbbbbbbb")
    assert terms.passing("api.test", "3", 0) is None
    ended = Terms([replace(GRANT, until=50)])
    assert (ended.passing("api.test", "1", 49), ended.passing("api.test", "1", 50)) == (
        replace(GRANT, until=50),
        None,
    )


def test_forms_on_the_wire_and_in_the_record() -> None:
    assert Grant.from_wire(GRANT.to_wire()) == GRANT
    assert AgentRequest.from_record(ASKED.to_record()) == ASKED
    old = {name: value for name, value in ASKED.to_record().items() if name != "values"}
    assert AgentRequest.from_record(old).values == ()
    assert GRANT.terms == "what was found may go to api.test, for as long as this bottle lives"
    with pytest.raises(TypeError):
        Grant.from_wire({**GRANT.to_wire(), "values": [1]})


def test_a_no_ends_the_asking() -> None:
    ledger = Ledger()
    assert ledger.add(ASKED, 100) == (ASKED, True)
    assert ledger.add(replace(ASKED, id="bbbbbbbb"), 101) == (ASKED, False)
    assert not ledger.refused(ASKED)
    ledger.answer("aaaaaaaa", Answer(verdict="denied"))
    assert ledger.refused(replace(ASKED, id="cccccccc"))
    assert not ledger.refused(replace(ASKED, values=("1",)))


def test_the_operators_yes() -> None:
    running = Asked(identity="one-00001", running=True, request=ASKED)
    seen = prospect(running, Choice(lasting="bottle"))
    assert (seen.grant, seen.opens, seen.changed) == (GRANT, GRANT.terms, False)
    for choice in (Choice(lasting=MANIFEST), Choice(host="other.test")):
        with pytest.raises(UsageError):
            prospect(running, choice)
    assert let_pass(running, lasting="bottle") == GRANT
    assert let_pass(running, lasting="once").uses == 1
    assert let_pass(running, lasting="2h").until is not None
    with pytest.raises(UsageError, match="write once, bottle"):
        let_pass(running, lasting="soon")
    with pytest.raises(UsageError, match="only while its bottle runs"):
        let_pass(replace(running, running=False), lasting="once")
