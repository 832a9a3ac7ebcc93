"""How a credential enters a request: each form, and what of the client's own stays out."""

from __future__ import annotations

import base64
from urllib.parse import parse_qsl

import pytest

from bot_bottle.egress.headers import may_inject
from bot_bottle.egress.injection import injection
from bot_bottle.egress.routes import EgressRoute, RouteAuth, egress_resolve_token_values
from bot_bottle.errors import UsageError
from bot_bottle.secret import Secret

VALUE = "me:p&s/ +%=word"
SECRETS = {"T": Secret(VALUE)}


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        (RouteAuth(scheme="Bearer", token_ref="T"), f"Authorization: Bearer {VALUE}"),
        (RouteAuth(scheme="token", token_ref="T"), f"Authorization: token {VALUE}"),
        (RouteAuth(scheme="header", token_ref="T", name="X-Api-Key"), f"X-Api-Key: {VALUE}"),
        (RouteAuth(scheme="header", token_ref="T", name="Authorization"), f"Authorization: {VALUE}"),
        (
            RouteAuth(scheme="Basic", token_ref="T"),
            f"Authorization: Basic {base64.b64encode(VALUE.encode()).decode()}",
        ),
        (
            RouteAuth(scheme="Basic", token_ref="T", name="x-access-token"),
            f"Authorization: Basic {base64.b64encode(f'x-access-token:{VALUE}'.encode()).decode()}",
        ),
    ],
)
def test_a_header_of_each_form(auth: RouteAuth, line: str) -> None:
    made = injection(auth, SECRETS)
    assert made is not None
    assert made.line == line.encode()
    assert made.aimed(b"/a?b=c") == b"/a?b=c"
    assert "word" not in repr(made)


QUERY = RouteAuth(scheme="query", token_ref="T", name="api_key")


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        (b"/", []),
        (b"/?", []),
        (b"/?api_key=mine", []),
        (b"/?a=1&api_key=mine&b=2", [("a", "1"), ("b", "2")]),
        (b"/?API_KEY=mine&a=1", [("a", "1")]),
        (b"/?%61pi_key=mine&api%5fkey=mine&%2561pi_key=mine&a=1", [("a", "1")]),
        (b"/?api_key&api_key[]=mine&api_key%5B0%5D=mine&a=1", [("a", "1")]),
        (b"/?api.key=mine&api+key=mine&+api_key=mine&a=1", [("a", "1")]),
        (b"/?a=1;api_key=mine", [("a", "1")]),
        (b"/?my_api_key=1", [("my_api_key", "1")]),
    ],
)
def test_a_parameter_is_the_routes_own_alone(target: bytes, kept: list[tuple[str, str]]) -> None:
    made = injection(QUERY, SECRETS)
    assert made is not None
    assert not made.header
    assert not made.line
    path, _, query = made.aimed(target).decode().partition("?")
    assert path == "/"
    assert parse_qsl(query) == [*kept, ("api_key", VALUE)]
    assert "word" not in repr(made)


def test_what_stands_around_the_parameter_stays_as_it_was() -> None:
    made = injection(QUERY, SECRETS)
    assert made is not None
    assert made.aimed(b"/a%2Fb?q=%c3%a9+x&empty=&flag").startswith(b"/a%2Fb?q=%c3%a9+x&empty=&flag&api_key=")
    assert made.aimed(b"*") == b"*"


@pytest.mark.parametrize("secrets", [{}, {"T": Secret("")}, {"T": Secret("  ")}])
def test_without_its_value_there_is_nothing_to_inject(secrets: dict[str, Secret]) -> None:
    assert injection(QUERY, secrets) is None
    assert injection(None, SECRETS) is None


_EGRESS_OWN = ["Host", "content-length", "Proxy-Authorization", "X-Forwarded-For", "sec-websocket-key",
               "x_key", "Range", "Accept-Encoding", "X-HTTP-Method-Override", "a b", "a:b"]  # fmt: skip


@pytest.mark.parametrize("name", _EGRESS_OWN)
def test_headers_that_egress_depends_on_carry_no_credential(name: str) -> None:
    assert not may_inject(name)


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "x-goog-api-key", "Cookie", "apikey"])
def test_headers_that_may_carry_one(name: str) -> None:
    assert may_inject(name)


def test_a_basic_value_without_a_user_is_a_mistake_that_names_no_value() -> None:
    route = EgressRoute(host="a.test", auth=RouteAuth(scheme="Basic", token_ref="T"))
    with pytest.raises(UsageError, match=r"the value of T .*is not user:password") as raised:
        egress_resolve_token_values([route], {"T": "only-a-password"})
    assert "only-a-password" not in str(raised.value)
    named = EgressRoute(host="a.test", auth=RouteAuth(scheme="Basic", token_ref="T", name="me"))
    assert egress_resolve_token_values([named], {"T": "only-a-password"})


def test_all_of_a_routes_auth_crosses_the_pipe() -> None:
    auth = RouteAuth(scheme="header", token_ref="T", name="X-Key", placeholders=("stands-for-it",))
    route = EgressRoute(host="a.test", auth=auth, strip_cookies=True)
    assert EgressRoute.from_wire(route.to_wire()) == route
