"""Requests, answers and grants: what the audit log keeps of them, and what of it holds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.audit import AuditLog
from bot_bottle.audit_reading import verify
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.supervise.grant import Grant, grant_route, warnings
from bot_bottle.supervise.ledger import Answer
from bot_bottle.supervise.record import ANSWERED, ASKED, answer_record, past_of, read_past
from bot_bottle.supervise.request import read_request

if TYPE_CHECKING:
    from pathlib import Path

_NOW = 1_800_000_000


def _asked(number: int = 1, **arguments: object) -> Any:
    given = {"host": f"h{number}.example.org", "reason": 'so "event":"answered" I said', **arguments}
    return read_request("egress", given, new_id=f"{number:08d}", now=_NOW)


def _grant(request: str, **more: Any) -> Grant:
    return Grant(request=request, route=grant_route(request, "h1.example.org", ["/a"], ["GET"]), **more)


def test_a_log_gives_back_what_was_asked_and_answered(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "log.jsonl"
    log = AuditLog.open(path)
    first, second = _asked(1), _asked(2)
    grant = _grant(first.id, until=_NOW + 60)
    log.append("request", path='/?x="event":"asked"', host="h")
    log.append(ASKED, **first.to_record())
    log.append("request", path="/", host="h")
    log.append(ASKED, **second.to_record())
    answer = Answer(verdict="changed", words="only this\npath", terms=grant.terms)
    log.append(ANSWERED, **answer_record(first.id, answer, grant))
    log.close()
    past = read_past(path)
    assert past.requests == (first, second)
    assert past.open == (second,)
    assert past.answers == {first.id: answer}
    assert past.grants == (grant,)
    assert verify(path).ok


def test_no_log_and_an_empty_one_have_no_past(tmp_path: Path) -> None:
    assert read_past(tmp_path / "none").requests == ()
    (tmp_path / "empty").touch()
    assert read_past(tmp_path / "empty").requests == ()


def test_an_answer_to_nothing_and_a_second_one_open_nothing() -> None:
    asked = _asked()
    denied = {"event": ANSWERED, **answer_record(asked.id, Answer(verdict="denied"), None)}
    approved = {
        "event": ANSWERED,
        **answer_record(asked.id, Answer(verdict="approved"), _grant(asked.id)),
    }
    assert past_of([approved]).grants == ()
    assert past_of([{"event": ASKED, **asked.to_record()}, denied, approved]).grants == ()


@pytest.mark.parametrize(
    "change",
    [
        {"auth": {"scheme": "Bearer", "token_ref": "TOKEN"}},
        {"ssrf_ip_allowlist": ["10.0.0.0/8"]},
        {"tls_passthrough": True},
    ],
)
def test_no_grant_carries_a_credential_or_an_internal_address(change: dict[str, object]) -> None:
    wire = _grant("00000001").to_wire()
    wire["route"] = {**wire["route"], **change}  # type: ignore[dict-item]
    with pytest.raises((ValueError, KeyError, TypeError)):
        Grant.from_wire(json.loads(json.dumps(wire)))


def test_a_grant_ends_by_time_and_by_use() -> None:
    assert _grant("00000001").holds(10**12)
    assert _grant("00000001", until=_NOW).holds(_NOW - 1)
    assert not _grant("00000001", until=_NOW).holds(_NOW)
    assert not _grant("00000001", uses=0).holds(_NOW)
    assert _grant("00000001", uses=1).terms == "GET h1.example.org /a, for one request"


def test_what_is_wide_is_said() -> None:
    assert warnings(grant_route("x", "docs.example.org", ["/3/"], ["GET"])) == ()
    wide = " | ".join(warnings(grant_route("x", "*.github.io")))
    for word in ("every name below", "many owners", "all methods", "all paths"):
        assert word in wide
    for host, said in (
        ("xn--pple-43d.com", "reads \u0430pple.com where other alphabets are shown"),
        ("github.com.evil.example", "belongs to whoever owns evil.example, whatever stands before"),
        ("docs.python.org.a.evil.co.uk", "belongs to whoever owns evil.co.uk"),
    ):
        assert said in " ".join(warnings(grant_route("x", host, ["/"], ["GET"])))
    # What is no punycode, and what a decoded name may not bring to a terminal.
    for host in ("xn--99999999.com", "xn--a-0hc.example"):
        (note,) = warnings(grant_route("x", host, ["/3/"], ["GET"]))
        assert note.isprintable()
    assert "PUT can send out" in " ".join(warnings(grant_route("x", "a.example", ["/"], ["GET", "PUT"])))
    assert grant_route("x", "a.example").auth is None


def test_it_is_said_where_the_host_has_a_credential() -> None:
    plain = grant_route("x", "api.example.org", ["/docs/"], ["GET"])
    (note,) = warnings(plain, {"api.example.org", "other.example.org"})
    assert note.startswith("api.example.org gets a credential on another route; none is sent here")
    wide = " ".join(warnings(replace(plain, host="*.example.org"), {"api.example.org"}))
    assert "api.example.org keep to routes of their own, with a credential" in wide
    assert warnings(plain, {"other.example.org"}) == warnings(plain)


def test_a_grants_route_has_no_credential() -> None:
    assert grant_route("x", "a.example").auth is None
    assert EgressRoute(host="a.example", auth=RouteAuth(scheme="Bearer", token_ref="T")).auth is not None
