"""The order of the policies, what each refuses, and that a broken one refuses too."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from bot_bottle.decision import Allow, Deny
from bot_bottle.egress.policy import CONNECT_POLICIES, POLICIES, Step, decide
from bot_bottle.egress.request import EgressRequest
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.egress.table import RouteTable, Verdict
from bot_bottle.secret import Secret

AUTH = RouteAuth(scheme="Bearer", token_ref="TOKEN")
ROUTES = (
    EgressRoute(host="open.test", origin="r0"),
    EgressRoute(host="auth.test", auth=AUTH, origin="r1"),
    EgressRoute(host="narrow.test", path_allowlist=("/a",), methods=("GET",), ports=(8443,), origin="r2"),
    EgressRoute(host="*.wild.test", origin="r3"),
    EgressRoute(host="*.deep.wild.test", methods=("GET",), origin="r4"),
    EgressRoute(host="one.wild.test", methods=("HEAD",), origin="r5"),
    EgressRoute(host="two.test", path_allowlist=("/x",), auth=AUTH, origin="r6"),
    EgressRoute(host="two.test", path_allowlist=("/y",), origin="r7"),
    EgressRoute(host="metadata.google.internal", origin="r8"),
    EgressRoute(host="10.1.2.3", origin="r9"),
    EgressRoute(host="nokey.test", auth=replace(AUTH, token_ref="ABSENT"), origin="r10"),
    EgressRoute(host="blank.test", auth=replace(AUTH, token_ref="BLANK"), origin="r11"),
)
TABLE = RouteTable(ROUTES, {"TOKEN": Secret("value"), "BLANK": Secret(" ")})


def ask(host: str, **fields: Any) -> EgressRequest:
    values = {"via": "connect", "scheme": "https", "method": "GET", "host": host, "port": 443, "path": "/"}
    return EgressRequest(**{**values, **fields})


def reason(request: EgressRequest) -> str:
    decision = decide(request, TABLE).decision
    return decision.reason if isinstance(decision, Deny) else "allow"


@pytest.mark.parametrize(
    ("request_", "verdict"),
    [
        (ask("open.test"), "allow"),
        (ask("open.test", scheme="http", port=80), "allow"),
        (ask("open.test", port=8080), "port_not_allowed"),
        (ask("open.test", claims=(("SNI", "open.test"), ("CONNECT authority", "open.test"))), "allow"),
        (ask("open.test", claims=(("SNI", "auth.test"),)), "names_disagree"),
        (ask("open.test", claims=(("CONNECT authority", "other.test"),)), "names_disagree"),
        (ask("open.test", sni_missing=True), "sni_missing"),
        (ask("10.1.2.3", sni_missing=True), "allow"),
        (ask("open.test", path="/r.git/git-receive-pack", method="POST"), "git_push_denied"),
        (ask("unknown.test", path="/r/info/refs", query="service=git-receive-pack"), "git_push_denied"),
        (ask("open.test", path="/%" + "25" * 20), "path_ambiguous"),
        (ask("open.test", method="TRACE"), "method_denied"),
        (ask("unknown.test"), "host_not_allowed"),
        (ask("sub.open.test"), "host_not_allowed"),
        (ask("auth.test"), "allow"),
        (ask("auth.test", scheme="http", port=80), "plaintext_credential"),
        (ask("auth.test", scheme="http", port=443), "plaintext_credential"),
        (ask("auth.test", port=80), "port_not_allowed"),
        (ask("nokey.test"), "credential_missing"),
        (ask("blank.test"), "credential_missing"),
        (ask("narrow.test", port=8443, path="/a/b"), "allow"),
        (ask("narrow.test", port=8443, path="/b"), "path_not_allowed"),
        (ask("narrow.test", port=8443, path="/a/%c0%ae"), "path_ambiguous"),
        (ask("narrow.test", port=8443, path="/a", method="POST"), "method_not_allowed"),
        (ask("narrow.test", port=8443, path="/a", override=("DELETE",)), "method_override"),
        (ask("narrow.test", port=443, path="/a"), "port_not_allowed"),
        *(
            (ask("narrow.test", port=8443, path="/a/b", elsewhere=("/a/c", named)), "path_not_allowed")
            for named in (
                "/b",
                "b/c",
                "",
                "https://narrow.test/b",
                "https://narrow.test",
                "https://evil.test/a/c",
                "//evil.test/a",
                "\\\\evil.test/a",
                "https://narrow.test/a/../b?/a",
                "/a/..%2fb",
                "ftp://narrow.test/a",
                "/a/c#/../../b",
                "/a/?/../../b",
                "https://narrow.test/a/c?x#%2f..%2f..%2f..%2fb",
            )
        ),
        *(
            (ask("narrow.test", port=8443, path="/a/b", elsewhere=(named,)), "allow")
            for named in ("/a/c", "a/c", "https://narrow.test:8443/a/c?version=2", "/a/c#part", "/a/c?x=/y/z")
        ),
        (ask("narrow.test", port=8443, path="/a/b", elsewhere=("/a/%c0%ae",)), "path_ambiguous"),
        (ask("open.test", elsewhere=("/anywhere",)), "allow"),
        *(
            (ask("narrow.test", port=8443, path="/a", query=query), "method_override")
            for query in (
                "_method=DELETE",
                "a=b&_METHOD=put",
                "a;%5fmethod=x",
                ".method=DELETE",
                "+_method=DELETE",
                "a=b&%20.method[]=x",
                "_method%00=DELETE",
                "_HttpMethod=PATCH",
                "a%26_method=DELETE",
                "_method",
            )
        ),
        (ask("narrow.test", port=8443, path="/a", query="payment_method=x&method=y&a_method"), "allow"),
        (ask("open.test", override=("DELETE",)), "allow"),
        (ask("a.wild.test", method="POST"), "allow"),
        (ask("wild.test"), "host_not_allowed"),
        (ask("x.deep.wild.test", method="POST"), "method_not_allowed"),
        (ask("one.wild.test", method="GET"), "method_not_allowed"),
        (ask("two.test", path="/x"), "allow"),
        (ask("two.test", path="/y"), "allow"),
        (ask("two.test", path="/z"), "path_not_allowed"),
        (ask("metadata.google.internal", port=80, scheme="http"), "metadata_denied"),
        (ask("169.254.169.254", port=80, scheme="http"), "host_not_allowed"),
    ],
)
def test_truth_table(request_: EgressRequest, verdict: str) -> None:
    assert reason(request_) == verdict


def test_the_route_that_allows_is_the_one_used() -> None:
    assert decide(ask("two.test", path="/y"), TABLE) == Verdict(Allow(rule="r7"), ROUTES[7])
    assert decide(ask("two.test", path="/x"), TABLE) == Verdict(Allow(rule="r6"), ROUTES[6])


def test_a_denial_names_its_manifest_place_and_the_next_step() -> None:
    decision = decide(ask("narrow.test", port=8443, path="/b"), TABLE).decision
    assert isinstance(decision, Deny)
    assert decision.rule == "r2.path_allowlist"
    assert "/a" in decision.next_step


@pytest.mark.parametrize("host", ["open.test", "unknown.test", "auth.test"])
@pytest.mark.parametrize("broken", range(len(POLICIES)))
def test_a_policy_that_raises_denies(broken: int, host: str) -> None:
    def raises(_step: Step) -> None:
        raise RuntimeError("secret in a message")

    policies = (*POLICIES[:broken], raises, *POLICIES[broken + 1 :])
    verdict = decide(ask(host), TABLE, policies)
    assert isinstance(verdict.decision, Deny)
    assert "secret" not in str(verdict)
    assert verdict.route is None


@pytest.mark.parametrize("policies", [(), POLICIES[:2]])
def test_no_objection_to_no_route_is_no_permission(policies: Any) -> None:
    assert isinstance(decide(ask("unknown.test"), TABLE, policies).decision, Deny)


def test_an_empty_table_allows_nothing() -> None:
    for policies in (POLICIES, CONNECT_POLICIES):
        assert isinstance(decide(ask("open.test"), RouteTable((), {}), policies).decision, Deny)


def test_a_denial_never_holds_a_credential() -> None:
    for request in (ask("auth.test", port=1), ask("auth.test", scheme="http"), ask("nokey.test")):
        assert "value" not in str(decide(request, TABLE).decision).replace("never", "")


def test_earlier_values_are_masked_as_they_were_written_then() -> None:
    route = EgressRoute(
        host="basic.test", auth=RouteAuth(scheme="Basic", token_ref="KEY", name="me"), origin="r"
    )
    now, then = Secret("present-value-1"), Secret("earlier-value-2")
    needles = RouteTable((route,), {"KEY": now}, former={"KEY": (then,)}).needles()
    for value in (now, then):
        pair = b64encode(b"me:" + value.reveal().encode())
        assert needles.masked(b"x %b y" % pair) != b"x %b y" % pair
        assert value.reveal().encode() not in needles.masked(b"is " + value.reveal().encode())
