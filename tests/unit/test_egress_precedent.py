"""What one allowed request says about the next: all but its target, and nothing more."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.audit import AuditLog, RecordForm
from bot_bottle.audit_reading import read_records, verify
from bot_bottle.decision import Allow
from bot_bottle.egress.policy import (
    POLICIES,
    TARGET_POLICIES,
    Policy,
    Step,
    decide,
    first_objection,
    may_object,
)
from bot_bottle.egress.precedent import Precedents
from bot_bottle.egress.request import EgressRequest
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.egress.table import RouteTable
from bot_bottle.egress.target import Arrival
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

ROUTES = (
    EgressRoute(host="open.test", origin="r0"),
    EgressRoute(host="narrow.test", path_allowlist=("/a", "/b/"), methods=("GET", "POST"), origin="r1"),
    EgressRoute(
        host="auth.test",
        auth=RouteAuth(scheme="Bearer", token_ref="TOKEN", placeholders=("stands-for-it",)),
        origin="r2",
    ),
    EgressRoute(host="nokey.test", auth=RouteAuth(scheme="Bearer", token_ref="ABSENT"), origin="r3"),
    EgressRoute(host="10.1.2.3", origin="r4"),
    EgressRoute(host="metadata.goog", origin="r5"),
    EgressRoute(host="fetch.test", methods=("GET", "POST"), git_read=True, origin="r6"),
)
TABLE = RouteTable(ROUTES, {"TOKEN": Secret("value")})
HOSTS = (*(route.host for route in ROUTES), "unknown.test")


class Blind(EgressRequest):
    """A request whose target nobody may look at."""

    @property
    def path(self) -> str:
        raise AssertionError("looked at the path")

    @property
    def query(self) -> str:
        raise AssertionError("looked at the query")


def ask(kind: type[EgressRequest] = EgressRequest, **fields: Any) -> EgressRequest:
    values = {"via": "connect", "scheme": "https", "method": "GET", "host": "open.test", "port": 443}
    return kind(**{**values, **fields})


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy not in TARGET_POLICIES])
def test_policies_that_are_not_asked_again_do_not_look_at_the_target(policy: Policy) -> None:
    for host, method, port, scheme in product(
        HOSTS, ("GET", "PUT", "TRACE"), (443, 80, 8080), ("http", "https")
    ):
        for more in ({}, {"sni_missing": True}, {"override": ("PUT",)}, {"claims": (("SNI", "other.test"),)}):
            request = ask(Blind, host=host, method=method, port=port, scheme=scheme, **more)
            for route in TABLE.candidates(host) or (None,):
                policy(Step(request, route, TABLE))


@pytest.mark.parametrize("policy", sorted(TARGET_POLICIES, key=str))
def test_the_others_do(policy: Policy) -> None:
    route = replace(ROUTES[1], git_read=True)
    with pytest.raises(AssertionError, match="looked at the"):
        policy(Step(ask(Blind, host=route.host), route, TABLE))


_PATHS = st.one_of(
    st.sampled_from(
        [
            "/",
            "/a",
            "/ab",
            "/a/../c",
            "/a/%2e%2e/c",
            "/b/",
            "/b",
            "/x/git-receive-pack",
            "/x/info/refs",
            "/%25%32",
        ]
    ),
    st.text("/ab.%25;e", max_size=12).map(lambda text: f"/{text}"),
)
_QUERIES = st.sampled_from(
    [
        "",
        "a=b",
        "_method=PUT",
        "x&_METHOD=PUT",
        "%5fmethod=PUT",
        "service=git-receive-pack",
        "service=git-upload-pack",
    ]
)


@given(st.sampled_from(HOSTS), st.sampled_from(["GET", "POST"]), _PATHS, _QUERIES)
def test_asking_the_target_policies_again_decides_as_asking_all(
    host: str, method: str, path: str, query: str
) -> None:
    first = ask(host=host, method=method, path="/a", query="")
    verdict = decide(first, TABLE)
    if verdict.route is None:
        return
    request = first.aimed_at(path, query)
    assert request == ask(host=host, method=method, path=path, query=query)
    allowed = isinstance(decide(request, TABLE).decision, Allow)
    for policies in (TARGET_POLICIES, [p for p in TARGET_POLICIES if may_object(p, verdict.route)]):
        objection = first_objection(Step(request, verdict.route, TABLE), tuple(policies))
        assert (objection is None) == allowed


def test_a_policy_that_is_not_known_may_object_anywhere() -> None:
    assert all(may_object(lambda _step: None, route) for route in ROUTES)


def test_another_method_in_the_query_is_refused_where_methods_are_ruled() -> None:
    for query in (
        "_method=DELETE",
        "a=b&_METHOD=x",
        "%5Fmethod=PUT",
        "%255fmethod=PUT",
        "a;_method=PUT",
        "_method[]=x",
    ):
        verdict = decide(ask(host="narrow.test", path="/a", query=query), TABLE)
        assert getattr(verdict.decision, "reason", "") == "method_override", query
        assert isinstance(decide(ask(path="/a", query=query), TABLE).decision, Allow)
    for query in ("method=a", "my_method=a", "x=_method", "_methods=a"):
        assert isinstance(decide(ask(host="narrow.test", path="/a", query=query), TABLE).decision, Allow), (
            query
        )


def test_arrivals_have_numbers_of_their_own() -> None:
    held = Precedents()
    arrivals = [Arrival(via="connect", scheme="https", port=port) for port in range(1, 1500)]
    numbers = [held.arrival_number(arrival) for arrival in arrivals]
    assert len(set(numbers)) == len(numbers)
    assert held.arrival_number(arrivals[-1]) == numbers[-1]
    assert held.arrival_number(arrivals[0]) not in numbers, "no number is used again"


def test_a_filled_form_is_the_record_that_append_writes(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"decision": "allow", "reason": None, "rule": 'a "quoted" \\ rule', "port": 443}
    form = RecordForm("request", open_field="path", fields={**fields, "via": "connect"})
    texts = ["/", '/ü\n"\\', "", '"prev":"x"', "/the-secret", "/%74he-secret"]
    log = AuditLog.open(tmp_path / "log", redact=[Secret("the-secret")])
    for text in texts:
        log.append("request", path=text, via="connect", **fields)
        log.fill(form, text)
    log.close()
    assert verify(tmp_path / "log").ok
    records = list(read_records(tmp_path / "log"))[:-1]
    for record in records:
        for name in ("seq", "prev", "time", "hash"):
            record.pop(name)
    assert records[::2] == records[1::2]
    assert b"the-secret" not in (tmp_path / "log").read_bytes()


def test_a_form_is_filled_only_where_records_are_taken(tmp_path: Path) -> None:
    form = RecordForm("request", open_field="path", fields={"decision": "allow"})
    log = AuditLog.open(tmp_path / "log", limit=600)
    log.fill(form, "/")
    with pytest.raises(OSError, match="largest size"):
        log.fill(form, "/" * 300)
    log.close()
    with pytest.raises(OSError, match="no longer"):
        log.fill(form, "/")
    assert verify(tmp_path / "log").ended


@pytest.mark.parametrize("field", ["prev", "seq", "time", "zone", "decision"])
def test_a_form_leaves_a_field_of_its_own_open(field: str) -> None:
    with pytest.raises(ValueError, match="open field"):
        RecordForm("request", open_field=field, fields={"decision": "allow"})
