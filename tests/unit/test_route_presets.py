"""Routes that say what they are for: git's fetches and nothing else, an API that is read and not written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bot_bottle.decision import Deny
from bot_bottle.egress.git_push import is_git_fetch
from bot_bottle.egress.policy import decide
from bot_bottle.egress.request import EgressRequest
from bot_bottle.egress.routes import EgressRoute, egress_manifest_routes
from bot_bottle.egress.table import RouteTable
from bot_bottle.errors import ManifestError
from bot_bottle.manifest.model import Manifest
from bot_bottle.preflight import route_text

if TYPE_CHECKING:
    from pathlib import Path

    from bot_bottle.manifest.model import ManifestBottle

ADVERTISEMENT = "service=git-upload-pack"


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/me/repo.git/info/refs", ADVERTISEMENT),
        ("GET", "/group/sub/project/info/refs", ADVERTISEMENT),
        ("POST", "/me/repo.git/git-upload-pack", ""),
        ("POST", "/~me/.dotfiles/git-upload-pack", ""),
    ],
)
def test_gits_own_fetches_are_fetches(method: str, path: str, query: str) -> None:
    assert is_git_fetch(method, path, query)


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/me/repo.git/info/refs", ""),
        ("GET", "/me/repo.git/info/refs", "service=git-receive-pack"),
        ("GET", "/me/repo.git/info/refs", f"{ADVERTISEMENT}&service=git-receive-pack"),
        ("GET", "/me/repo.git/info/refs", f"{ADVERTISEMENT}&x=c2VjcmV0"),
        ("GET", "/info/refs", ADVERTISEMENT),
        ("GET", "/me/../admin/info/refs", ADVERTISEMENT),
        ("GET", "/me//repo/info/refs", ADVERTISEMENT),
        ("GET", "/me/%2e%2e/info/refs", ADVERTISEMENT),
        ("GET", "/me/repo;x=y/info/refs", ADVERTISEMENT),
        ("GET", "/me/repo/info/refs/", ADVERTISEMENT),
        ("HEAD", "/me/repo.git/info/refs", ADVERTISEMENT),
        ("POST", "/me/repo.git/git-upload-pack", "x=y"),
        ("POST", "/me/repo.git/git-receive-pack", ""),
        ("POST", "/api/graphql", ""),
        ("GET", "/api/v4/projects", ""),
        ("GET", "/me/repo.git/git-upload-pack", ""),
        ("POST", "/me/repo.git/info/refs", ADVERTISEMENT),
        ("PUT", "/me/repo.git/git-upload-pack", ""),
    ],
)
def test_nothing_else_is_one(method: str, path: str, query: str) -> None:
    assert not is_git_fetch(method, path, query)


def bottle(tmp_path: Path, *routes: str, **files: str) -> ManifestBottle:
    """Write bottles by name, the last of them the agent's, whose routes these are; give that one."""
    for folder in ("bottles", "agents"):
        (tmp_path / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    tmp_path.chmod(0o700)
    own = "".join(f"    - {{host: code.test, {route}}}\n" for route in routes)
    files = {**files, "one": files.get("one", f"egress:\n  routes:\n{own}")}
    for name, text in files.items():
        path = tmp_path / "bottles" / f"{name}.md"
        path.write_text(f"---\nagent_provider: {{template: command, argv: [sh]}}\n{text}---\n")
        path.chmod(0o600)
    agent = tmp_path / "agents" / "one.md"
    agent.write_text("---\nbottle: one\n---\n")
    agent.chmod(0o600)
    return Manifest.resolve(tmp_path, home=tmp_path).bottle_for("one")


def judge(route: EgressRoute, method: str, target: str) -> str:
    """Give ``allow``, or the reason of the refusal."""
    path, _, query = target.partition("?")
    request = EgressRequest(
        scheme="https", host="code.test", port=443, method=method, path=path, query=query, via="connect"
    )
    decision = decide(request, RouteTable((route,), {})).decision
    return decision.reason if isinstance(decision, Deny) else "allow"


def test_a_route_for_fetching_takes_nothing_else(tmp_path: Path) -> None:
    (route,) = egress_manifest_routes(bottle(tmp_path, "preset: git-read, path_allowlist: [/me/]"))
    assert EgressRoute.from_wire(route.to_wire()) == route
    assert "[git fetches only]" in route_text(route)
    fetch, push = f"/me/r.git/info/refs?{ADVERTISEMENT}", "/me/r.git/info/refs?service=git-receive-pack"
    assert judge(route, "GET", fetch) == judge(route, "POST", "/me/r.git/git-upload-pack") == "allow"
    assert (
        judge(route, "GET", push) == judge(route, "POST", "/me/r.git/git-receive-pack") == "git_push_denied"
    )
    assert judge(route, "GET", f"/other/r.git/info/refs?{ADVERTISEMENT}") == "path_not_allowed"
    for method, target in (("GET", "/me/"), ("POST", "/me/graphql"), ("GET", f"{fetch}&x=1")):
        assert judge(route, method, target) == "git_read_only"
    assert judge(route, "DELETE", "/me/r.git") == "method_not_allowed"


def test_a_route_for_reading_an_api_takes_no_writing_method(tmp_path: Path) -> None:
    (route,) = egress_manifest_routes(bottle(tmp_path, "preset: forge-api-read"))
    assert (route.methods, route.git_read) == (("GET", "HEAD"), False)
    assert judge(route, "GET", "/repos/me/r/issues") == "allow"
    for method, target in (("POST", "/graphql"), ("PUT", "/repos/me/r/contents/x"), ("PATCH", "/x")):
        assert judge(route, method, target) == "method_not_allowed"


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ("preset: git-write", "is no preset; write git-read or forge-api-read"),
        ("preset: git-read, methods: [GET]", "remove one of them"),
    ],
)
def test_what_is_no_preset_or_says_things_twice_is_refused(tmp_path: Path, route: str, words: str) -> None:
    with pytest.raises(ManifestError, match=words):
        bottle(tmp_path, route)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("preset: git-read", "methods: [GET]", "preset"),
        ("preset: git-read", "path_allowlist: [/x/]", "methods, preset"),
        ("methods: [GET]", "preset: forge-api-read", "methods"),
    ],
)
def test_what_extends_does_not_open_more_unsaid(tmp_path: Path, old: str, new: str, key: str) -> None:
    parent = f"egress: {{routes: [{{host: code.test, {old}}}]}}\n"
    child = f"extends: base\negress: {{add_routes: [{{host: code.test, {new}}}]}}\n"
    with pytest.raises(ManifestError, match=rf"opens more of code.test .*\({key}\)"):
        bottle(tmp_path, base=parent, one=child)


def test_what_extends_may_open_less(tmp_path: Path) -> None:
    parent = "egress: {routes: [{host: code.test, methods: [GET, HEAD, POST]}]}\n"
    child = "extends: base\negress: {add_routes: [{host: code.test, preset: git-read}]}\n"
    (route,) = egress_manifest_routes(bottle(tmp_path, base=parent, one=child))
    assert route.git_read
