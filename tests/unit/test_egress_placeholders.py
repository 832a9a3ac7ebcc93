"""A placeholder on its way to a host that is not its credential's, in every place that is cheap to see."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from bot_bottle.decision import Allow, Deny
from bot_bottle.egress.policy import decide
from bot_bottle.egress.request import EgressRequest
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.egress.table import RouteTable
from bot_bottle.secret import Secret

PLACED = EgressRoute(
    host="own.test",
    auth=RouteAuth(scheme="Bearer", token_ref="TOKEN", placeholders=("stands-for/it",)),
    origin="own",
)
SECOND = EgressRoute(host="second.test", auth=RouteAuth(scheme="query", token_ref="TOKEN", name="key"))
PLACES = RouteTable(
    (PLACED, SECOND, EgressRoute(host="other.test"), EgressRoute(host="*.test")), {"TOKEN": Secret("real")}
)


def ask(host: str, **fields: Any) -> EgressRequest:
    values = {"via": "connect", "scheme": "https", "method": "GET", "host": host, "port": 443, "path": "/"}
    return EgressRequest(**{**values, **fields})


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Bearer stands-for/it",
        b"Authorization: Basic " + base64.b64encode(b"stands-for/it:"),
        b"Authorization: Basic " + base64.b64encode(b"a:stands-for/it"),
        b"Authorization: Basic " + base64.b64encode(b"me:stands-for/it"),
        b"Cookie: a=1; b=stands-for%2fit",
        b"Referer: https://own.test/?a=stands-for%252Fit",
        b"X-Any: " + b"stands-for/it".hex().encode(),
    ],
)
def test_a_placeholder_in_any_header_goes_to_its_credentials_hosts_alone(line: bytes) -> None:
    block = b"Accept: */*\r\n" + line
    for host, decision in (
        ("own.test", Allow),
        ("second.test", Allow),
        ("other.test", Deny),
        ("x.test", Deny),
    ):
        request = PLACES.placeholders.noted(ask(host), block)
        assert isinstance(decide(request, PLACES).decision, decision), host
    denied = decide(PLACES.placeholders.noted(ask("other.test"), block), PLACES).decision
    assert isinstance(denied, Deny)
    assert denied.reason == "placeholder_misplaced"
    assert "own.test, second.test" in denied.next_step


@pytest.mark.parametrize(
    "fields", [{"path": "/stands-for/it"}, {"query": "a=stands-for%2Fit"}, {"path": "/x/stands-for%252fit"}]
)
def test_a_placeholder_in_a_target_too(fields: dict[str, str]) -> None:
    assert isinstance(decide(ask("other.test", **fields), PLACES).decision, Deny)
    assert isinstance(decide(ask("own.test", **fields), PLACES).decision, Allow)


def test_a_request_without_a_placeholder_is_the_same_request() -> None:
    request = ask("other.test", path="/stands-for", query="it")
    assert PLACES.placeholders.noted(request, b"Authorization: Bearer mine") is request
    assert isinstance(decide(request, PLACES).decision, Allow)
