"""One route table in place of another: what is taken, what differs, what may go on."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import ip_network
from typing import Any

import pytest

from bot_bottle.decision import Deny
from bot_bottle.egress import reload
from bot_bottle.egress.policy import CONNECT_POLICIES, POLICIES, decide
from bot_bottle.egress.request import EgressRequest
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.egress.table import RouteTable
from bot_bottle.secret import Secret

TOKEN = RouteAuth(scheme="Bearer", token_ref="TOKEN")
AUTH = {"scheme": "Bearer", "token_ref": "TOKEN", "name": "", "placeholders": []}
SECRETS = {"TOKEN": Secret("value-one"), "EMPTY": Secret("")}
ROUTE = EgressRoute(host="api.test", path_allowlist=("/v1/",), methods=("GET",), auth=TOKEN, origin="r[0]")
REQUEST = EgressRequest(
    via="connect", scheme="https", method="GET", host="api.test", port=443, path="/v1/things"
)


def wire(**changes: Any) -> dict[str, Any]:
    return {**ROUTE.to_wire(), **changes}


def test_a_table_is_read_as_it_was_written() -> None:
    routes = (ROUTE, EgressRoute(host="*.docs.test", ssrf_ip_allowlist=(ip_network("10.0.0.0/8"),)))
    table = reload.read_table([one.to_wire() for one in routes], SECRETS)
    assert table.routes == routes
    injection = table.injection(table.routes[0])
    assert injection is not None
    assert injection.line == b"Authorization: Bearer value-one"


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        (None, "list of routes"),
        ([wire()] * (reload.MAX_ROUTES + 1), "more than"),
        (["api.test"], r"routes\[0\]: a route is an object"),
        ([wire(), {"host": "b.test"}], r"routes\[1\]: .* is missing"),
        ([wire(host="API.test")], r"routes\[0\].host: is not in its one spelling"),
        ([wire(host="api.test.")], "spelling"),
        ([wire(host="a b")], r"host: "),
        ([wire(host="0x7f.1")], "spelling"),
        ([wire(host="*.*.test", auth=None)], r"host: "),
        ([wire(host="*.api.test")], "one host only"),
        ([wire(host=7)], "is no route"),
        ([wire(methods=["GE T"])], "methods"),
        ([wire(methods="GET")], "is no route"),
        ([wire(path_allowlist=["v1/"])], "path_allowlist"),
        ([wire(path_allowlist=["/a b"])], "path_allowlist"),
        ([wire(ports=[0])], "ports"),
        ([wire(ports=[65536])], "ports"),
        ([wire(ports=[True])], "is no route"),
        ([wire(ssrf_ip_allowlist=["10.0.0.0/99"])], "is no route"),
        ([wire(auth={**AUTH, "token_ref": "OTHER"})], "no credential named OTHER"),
        ([wire(auth={**AUTH, "token_ref": "EMPTY"})], "EMPTY of api.test has no value"),
        ([wire(auth={**AUTH, "scheme": "header", "name": "X-Key\r\nX-Evil"})], r"routes\[0\].auth"),
        ([wire(auth={**AUTH, "scheme": "header"})], r"routes\[0\].auth"),
        ([wire(auth={**AUTH, "scheme": "Bear er"})], r"routes\[0\].auth"),
        ([wire(auth={"scheme": "Bearer"})], "token_ref is missing"),
    ],
)
def test_what_makes_no_table_is_refused_whole(objects: object, words: str) -> None:
    with pytest.raises(reload.TableError, match=words):
        reload.read_table(objects, SECRETS)


def test_a_change_names_what_differs_and_not_where_it_was_declared() -> None:
    other = EgressRoute(host="other.test")
    moved = replace(ROUTE, origin="elsewhere")
    narrowed = replace(other, methods=("GET",))
    change = reload.change((ROUTE, other), (moved, narrowed))
    assert change.before == (reload.describe_route(other),)
    assert change.after == (reload.describe_route(narrowed),)
    assert change.before_sha256 != change.after_sha256


@pytest.mark.parametrize("field", [field.name for field in fields(EgressRoute) if field.name != "origin"])
def test_no_part_of_a_route_changes_unsaid(field: str) -> None:
    """Whatever a later version adds to routes must be said too: each field changes the line."""
    values: dict[str, Any] = {
        "host": "new.test",
        "path_allowlist": ("/x",),
        "methods": ("PUT",),
        "ports": (8443,),
        "auth": RouteAuth(scheme="token", token_ref="OTHER"),
        "ssrf_ip_allowlist": (ip_network("10.0.0.0/8"),),
        "detectors": (),
    }
    value = values.get(field, True)
    changed = replace(ROUTE, **{field: value})
    assert reload.describe_route(changed) != reload.describe_route(ROUTE)


@pytest.mark.parametrize("field", [field.name for field in fields(RouteAuth)])
def test_no_part_of_a_credentials_way_changes_unsaid(field: str) -> None:
    value: Any = ("stands-for-it",) if field == "placeholders" else "other"
    changed = replace(ROUTE, auth=replace(TOKEN, **{field: value}))
    assert reload.describe_route(changed) != reload.describe_route(ROUTE)


def successor(new: EgressRoute | None, secrets: dict[str, Secret] = SECRETS) -> EgressRoute | None:
    old, table = RouteTable((ROUTE,), SECRETS), RouteTable((new,) if new else (), secrets)
    return reload.successor(REQUEST, ROUTE, old, table, POLICIES)


def test_a_request_goes_on_where_the_new_table_allows_it_in_the_same_way() -> None:
    for same in (ROUTE, replace(ROUTE, origin="new"), replace(ROUTE, methods=("GET", "PUT"), ports=(443,))):
        assert successor(same) is same
    wider = replace(ROUTE, path_allowlist=(), methods=())
    assert successor(wider) is wider


def test_a_request_ends_where_the_new_table_does_not_allow_it_or_treats_it_otherwise() -> None:
    for new in (
        None,
        replace(ROUTE, methods=("PUT",)),
        replace(ROUTE, path_allowlist=("/v2/",)),
        replace(ROUTE, ports=(8443,)),
        replace(ROUTE, auth=None),
        replace(ROUTE, auth=RouteAuth(scheme="token", token_ref="TOKEN")),
        replace(ROUTE, tls_passthrough=True),
        replace(ROUTE, ssrf_ip_allowlist=(ip_network("10.0.0.0/8"),)),
    ):
        assert successor(new) is None
    assert successor(ROUTE, {"TOKEN": Secret("value-two")}) is None
    halted = RouteTable((ROUTE,), SECRETS, halt=Deny(reason="r", rule="u", message="m", next_step="n"))
    assert reload.successor(REQUEST, ROUTE, RouteTable((ROUTE,), SECRETS), halted, POLICIES) is None


def test_a_host_has_changed_where_anything_about_it_has() -> None:
    old = RouteTable((ROUTE, EgressRoute(host="*.docs.test")), SECRETS)
    new = RouteTable((replace(ROUTE, origin="x"), EgressRoute(host="a.docs.test")), SECRETS)
    assert not reload.host_changed("api.test", old, new)
    assert reload.host_changed("a.docs.test", old, new)
    assert reload.host_changed("b.docs.test", old, new)
    assert not reload.host_changed("nowhere.test", old, new)
    assert reload.host_changed("api.test", old, RouteTable((ROUTE,), {"TOKEN": Secret("value-two")}))


def test_a_halted_table_refuses_everything_in_its_own_words() -> None:
    halt = Deny(reason="panic", rule="operator", message="stopped", next_step="wait")
    table = RouteTable((ROUTE,), SECRETS, halt=halt)
    for policies in (POLICIES, CONNECT_POLICIES):
        assert decide(REQUEST, table, policies).decision == halt
        assert decide(REQUEST._replace(host="other.test"), table, policies).decision == halt
