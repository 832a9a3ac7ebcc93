"""``auth`` of a route: every form, what it needs, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot_bottle.manifest.build import bottle_from_text
from bot_bottle.manifest.loader import load_routes_file
from bot_bottle.manifest.problem import ManifestFileError
from bot_bottle.preflight import route_text


@pytest.mark.parametrize(
    ("auth", "key", "words"),
    [
        ("{scheme: Bearer, token_ref: T, name: x}", "auth.name", "goes with Basic, header and query only"),
        ("{scheme: header, token_ref: T}", "auth.name", "is missing; write the header"),
        ("{scheme: header, token_ref: T, name: Host}", "auth.name", "a header that egress writes or removes"),
        ("{scheme: query, token_ref: T}", "auth.name", "is missing; write the parameter"),
        ("{scheme: query, token_ref: T, name: a&b}", "auth.name", "no parameter's name"),
        ("{scheme: query, token_ref: T, name: ghp_abc}", "auth.name", "is no name of a header"),
        ("{scheme: Digest, token_ref: T}", "auth.scheme", "write Bearer, token, Basic, header or query"),
        ("{scheme: Bearer, token_ref: T, placeholder: short}", "auth.placeholder", "is no placeholder"),
    ],
)
def test_how_a_credential_enters_a_request_is_checked_with_what_it_needs(
    auth: str, key: str, words: str
) -> None:
    text = f"---\negress:\n  routes:\n    - host: a.example\n      auth: {auth}\n---\n"
    with pytest.raises(ManifestFileError) as raised:
        bottle_from_text("a", Path("/bottles/a.md"), text)
    (problem,) = raised.value.problems
    assert (problem.line, problem.key) == (5, f"egress.routes[0].{key}")
    assert words in problem.message


@pytest.mark.parametrize(
    ("auth", "shown"),
    [
        ("{scheme: Basic, token_ref: T}", "[auth:Basic T]"),
        ("{scheme: Basic, token_ref: T, name: me}", "[auth:Basic me T]"),
        ("{scheme: header, token_ref: T, name: X-Api-Key}", "[auth:header X-Api-Key T]"),
        ("{scheme: query, token_ref: T, name: key}", "[auth:query key T]"),
    ],
)
def test_every_form_of_a_credential_is_read_and_shown(tmp_path: Path, auth: str, shown: str) -> None:
    text = f"routes:\n  - host: a.example\n    strip_cookies: true\n    auth: {auth}\n"
    path = tmp_path / "routes.yaml"
    path.write_text(text)
    (route,) = load_routes_file(path)
    assert route_text(route) == f"a.example {shown} [cookies removed]"
