"""Egress routes: provider routes merge without knowing any provider, credentials resolve by name."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.routes import (
    EgressRoute,
    RouteAuth,
    _merge_provider_route,
    egress_resolve_token_values,
    egress_token_refs,
    pipelock_effective_tls_passthrough,
)
from bot_bottle.errors import UsageError

BEARER = RouteAuth(scheme="Bearer", token_ref="MODEL_TOKEN")


def test_a_provider_route_joins_the_manifest_routes() -> None:
    manifest = (EgressRoute(host="docs.example"),)
    merged = _merge_provider_route(
        manifest, EgressRoute(host="model.example", auth=BEARER, tls_passthrough=True)
    )
    assert [route.host for route in merged] == ["docs.example", "model.example"]
    assert pipelock_effective_tls_passthrough(merged) == ("model.example",)


def test_on_the_same_host_the_provider_gives_the_credential_and_the_operator_the_limits() -> None:
    manifest = (EgressRoute(host="model.example", path_allowlist=("/v1/messages",), methods=("POST",)),)
    (merged,) = _merge_provider_route(
        manifest, EgressRoute(host="model.example", auth=BEARER, origin="provider")
    )
    assert merged.auth == BEARER
    assert merged.path_allowlist == ("/v1/messages",)
    assert merged.methods == ("POST",)
    assert merged.origin == "manifest + provider"


def test_a_route_with_a_credential_opens_443_only() -> None:
    assert EgressRoute(host="a.example", auth=BEARER).effective_ports == (443,)
    assert set(EgressRoute(host="a.example").effective_ports) == {80, 443}
    assert EgressRoute(host="a.example", ports=(8443,)).effective_ports == (8443,)


def test_missing_credentials_are_all_named_and_never_shown() -> None:
    routes = (
        EgressRoute(host="a.example", auth=RouteAuth(scheme="Bearer", token_ref="ONE")),
        EgressRoute(host="b.example", auth=RouteAuth(scheme="token", token_ref="TWO")),
        EgressRoute(host="c.example", auth=RouteAuth(scheme="token", token_ref="THREE")),
    )
    with pytest.raises(UsageError) as caught:
        egress_resolve_token_values(routes, {"TWO": "very-secret-value", "THREE": "  "})
    assert "ONE" in str(caught.value)
    assert "THREE" in str(caught.value)
    assert "very-secret-value" not in str(caught.value)


@pytest.mark.parametrize("value", ["a\nb", "a\rX-Injected: 1", "caf\u00e9", "a\0b"])
def test_a_credential_no_header_can_carry_is_refused_without_showing_it(value: str) -> None:
    routes = (EgressRoute(host="a.example", auth=BEARER),)
    with pytest.raises(UsageError) as caught:
        egress_resolve_token_values(routes, {"MODEL_TOKEN": value})
    assert value not in str(caught.value)


def test_values_are_redacted_and_trailing_newlines_go() -> None:
    values = egress_resolve_token_values(
        (EgressRoute(host="a.example", auth=BEARER),), {"MODEL_TOKEN": "abc123\n"}
    )
    assert "abc123" not in repr(values)
    assert values["MODEL_TOKEN"].reveal() == "abc123"


def test_token_refs_are_listed_once() -> None:
    assert egress_token_refs([EgressRoute(host=f"{name}.example", auth=BEARER) for name in "ab"]) == (
        "MODEL_TOKEN",
    )


@given(
    host=st.text(min_size=1, max_size=20),
    paths=st.lists(st.text(max_size=10), max_size=3),
    ports=st.lists(st.integers(1, 65535), max_size=3),
    passthrough=st.booleans(),
    auth=st.none() | st.just(BEARER),
)
def test_the_wire_form_loses_nothing(
    host: str, paths: list[str], ports: list[int], passthrough: bool, auth: RouteAuth | None
) -> None:
    route = EgressRoute(
        host=host,
        path_allowlist=tuple(paths),
        ports=tuple(ports),
        tls_passthrough=passthrough,
        auth=auth,
        ssrf_ip_allowlist=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
    )
    assert EgressRoute.from_wire(route.to_wire()) == route


@pytest.mark.parametrize(
    "damage", [{"host": 1}, {"ports": ["443"]}, {"ports": [True]}, {"auth": "x"}, {"methods": "GET"}]
)
def test_a_damaged_wire_form_is_refused(damage: dict[str, object]) -> None:
    wire = EgressRoute(host="a.example").to_wire() | damage
    with pytest.raises((TypeError, ValueError, KeyError)):
        EgressRoute.from_wire(wire)
