"""A clash between a bottle and what it extends is the mistake of the bottle that brings the two together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.paths import path_allowed
from bot_bottle.manifest.check import check_draft
from bot_bottle.manifest.clashes import _opened, _ports
from bot_bottle.manifest.model import ManifestAuth, ManifestPipelock, ManifestRoute
from tests.support.manifest_tree import Tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tree.home))
    tree.agent()
    return tree


def only_problem(tree: Tree, name: str) -> str:
    """Give the one thing that is wrong in the whole tree, in the bottle ``name``."""
    manifest = tree.resolve()
    assert list(manifest.broken_bottles) == [name]
    (line,) = str(manifest.broken_bottles[name]).splitlines()
    return line


# -- a credential that egress adds -----------------------------------------------------------------------

AUTH = "auth: {scheme: Bearer, token_ref: T}"


def test_a_route_of_the_child_that_adds_what_the_parent_puts_into_the_bottle(tree: Tree) -> None:
    tree.bottle("env: {GH: '${T}'}\n", name="base")
    child = tree.bottle(f"extends: base\negress:\n  add_routes:\n    - host: a.example\n      {AUTH}\n")
    said = only_problem(tree, "b")
    assert said.startswith(
        f"{child}:5:7: egress.add_routes[0].auth.token_ref: has egress add T, which env.GH"
    )
    assert "(bottles/base.md:2)" in said
    assert "write env.GH here with another value" in said
    tree.bottle(child.read_text()[4:].partition("---")[0] + "env: {GH: ''}\n")
    assert tree.resolve().bottle_for("a").env == {"GH": ""}


def test_a_provider_of_the_child_likewise(tree: Tree) -> None:
    tree.bottle("env: {GH: '${T}'}\n", name="base")
    child = tree.bottle("extends: base\nagent_provider: {auth_token: T}\n")
    assert only_problem(tree, "b").startswith(f"{child}:3:1: agent_provider.auth_token: has egress add T")


def test_a_variable_of_the_child_that_holds_what_the_parents_route_adds(tree: Tree) -> None:
    tree.bottle(f"egress: {{routes: [{{host: a.example, {AUTH}}}]}}\n", name="base")
    child = tree.bottle("extends: base\nenv: {GH: '${T}'}\n")
    said = only_problem(tree, "b")
    assert said.startswith(f"{child}:3:11: env.GH: would put T into the bottle")
    assert "(bottles/base.md:2); remove this line" in said


def test_two_parents_that_clash_are_told_at_extends(tree: Tree) -> None:
    tree.bottle("env: {GH: '${T}'}\n", name="base")
    tree.bottle(f"egress: {{add_routes: [{{host: a.example, {AUTH}}}]}}\n", name="net")
    tree.bottle("", name="other")
    child = tree.bottle("extends: [base, net, other]\n")
    said = only_problem(tree, "b")
    assert said.startswith(f"{child}:2:17: extends[1]: brings env.GH (bottles/base.md:2)")
    assert "(bottles/net.md:2)" in said


def test_a_clash_of_the_child_does_not_keep_its_parent_from_being_edited(tree: Tree) -> None:
    base = tree.bottle("env: {GH: '${T}'}\n", name="base")
    tree.bottle(f"extends: base\negress: {{routes: [{{host: a.example, {AUTH}}}]}}\n")
    text = base.read_text()
    assert check_draft(base, text, tree.cwd) == ()
    assert check_draft(base, text.replace("env:", "# a line more\nenv:"), tree.cwd) == ()
    problems = check_draft(base, text.replace("env:", "nonsense:"), tree.cwd)
    assert "nonsense: unknown key" in str(problems[-1])


def test_an_edit_that_brings_a_child_into_a_clash_is_told_at_the_child(tree: Tree) -> None:
    base = tree.bottle("", name="base")
    child = tree.bottle(f"extends: base\negress: {{routes: [{{host: a.example, {AUTH}}}]}}\n")
    (problem,) = check_draft(base, "---\nenv: {GH: '${T}'}\n---\n", tree.cwd)
    assert (problem.file, problem.line) == (str(child), 3)


# -- labels of remotes -----------------------------------------------------------------------------------


def remote(name: str, host: str) -> str:
    return f"git:\n  remotes:\n    {host}: {{Name: {name}, Upstream: 'https://{host}/p.git'}}\n"


@pytest.mark.parametrize("hosts", [("a.example", "b.example"), ("b.example", "a.example")])
def test_a_label_of_the_child_that_a_parent_has(tree: Tree, hosts: tuple[str, str]) -> None:
    tree.bottle(remote("one", hosts[0]), name="base")
    child = tree.bottle(f"extends: base\n{remote('one', hosts[1])}")
    said = only_problem(tree, "b")
    assert said.startswith(
        f'{child}:5:5: git.remotes["{hosts[1]}"].Name: repeats one of git.remotes.{hosts[0]}'
    )
    assert "(bottles/base.md:4); give each remote its own Name" in said


def test_two_parents_with_one_label(tree: Tree) -> None:
    tree.bottle(remote("one", "a.example"), name="base")
    tree.bottle(remote("one", "b.example"), name="more")
    child = tree.bottle("extends: [base, more]\n")
    said = only_problem(tree, "b")
    assert said.startswith(f"{child}:2:17: extends[1]: brings two remotes named one together")
    assert "(bottles/base.md:4, bottles/more.md:4)" in said


# -- a route that is added to a host that is there already -----------------------------------------------

NARROW = "path_allowlist: [/v1/], methods: [GET], ports: [443]"


def routes(word: str, *written: str) -> str:
    return f"egress: {{{word}: [{', '.join('{' + route + '}' for route in written)}]}}\n"


@pytest.mark.parametrize(
    ("added", "keys"),
    [
        ("host: a.example", "path_allowlist, methods, ports"),
        ("host: a.example, path_allowlist: [/v1/x, /], methods: [GET], ports: [443]", "path_allowlist"),
        (f"host: a.example, {NARROW.replace('GET', 'GET, POST')}", "methods"),
        (f"host: a.example, {NARROW.replace('443', '443, 8443')}", "ports"),
        (f"host: a.example, {NARROW}, {AUTH}", "auth"),
        (f"host: A.example., {NARROW}, pipelock: {{tls_passthrough: true}}", "pipelock.tls_passthrough"),
        (
            f"host: a.example, {NARROW}, pipelock: {{ssrf_ip_allowlist: [10.0.0.0/8]}}",
            "pipelock.ssrf_ip_allowlist",
        ),
    ],
)
def test_an_added_route_never_opens_more_of_a_host(tree: Tree, added: str, keys: str) -> None:
    tree.bottle(routes("routes", f"host: a.example, {NARROW}"), name="base")
    child = tree.bottle(f"extends: base\n{routes('add_routes', 'host: b.example', added)}")
    said = only_problem(tree, "b")
    assert f"{child}:3:" in said
    assert "egress.add_routes[1]: opens more of a.example than bottles/base.md:2, whose route it " in said
    assert f"replaces ({keys}); " in said
    assert "or list every route under routes" in said
    tree.bottle(f"extends: base\n{routes('routes', added)}")
    assert len(tree.resolve().bottle_for("a").egress.routes) == 1


def test_an_added_route_may_open_less(tree: Tree) -> None:
    tree.bottle(routes("routes", f"host: a.example, {NARROW}"), name="base")
    narrower = NARROW.replace("/v1/", "/v1/x")
    tree.bottle(f"extends: base\n{routes('add_routes', f'host: a.example, {narrower}')}")
    (route,) = tree.resolve().bottle_for("a").egress.routes
    assert route.path_allowlist == ("/v1/x",)


def test_parents_with_a_wider_and_a_narrower_route_need_a_word_of_the_child(tree: Tree) -> None:
    tree.bottle(routes("routes", f"host: a.example, {NARROW}"), name="base")
    tree.bottle(routes("add_routes", "host: a.example"), name="wide")
    child = tree.bottle("extends: [base, wide]\n")
    said = only_problem(tree, "b")
    assert said.startswith(
        f"{child}:2:17: extends[1]: brings a route together with a narrower one: bottles/wide.md:2"
    )
    assert "bottles/base.md:2" in said
    tree.bottle(f"extends: [base, wide]\n{routes('add_routes', f'host: a.example, {NARROW}')}")
    assert tree.resolve().bottle_for("a").egress.routes[0].methods == ("GET",)
    tree.bottle("extends: [wide, base]\n")  # routes of base replaces what wide said
    assert tree.resolve().bottle_for("a").egress.routes[0].methods == ("GET",)


def test_going_round_by_a_narrow_route_opens_nothing_again(tree: Tree) -> None:
    tree.bottle(routes("routes", "host: a.example, methods: [GET, POST]"), name="one")
    tree.bottle(f"extends: one\n{routes('add_routes', 'host: a.example, methods: [GET]')}", name="two")
    tree.bottle(f"extends: two\n{routes('add_routes', 'host: a.example, methods: [GET, POST]')}")
    assert "than bottles/two.md:3" in only_problem(tree, "b")


def test_a_diamond_of_many_floors_is_folded_at_once(tree: Tree) -> None:
    tree.bottle(routes("add_routes", "host: a.example"), name="x0")
    for floor in range(1, 60):
        tree.bottle(f"extends: x{floor - 1}\n{routes('add_routes', 'host: a.example')}", name=f"x{floor}")
        tree.bottle(f"extends: [x{floor - 1}, x{floor}]\n", name=f"y{floor}")
    tree.bottle("extends: [y58, y59]\n")
    assert len(tree.resolve().bottle_for("a").egress.routes) == 1


PATHS = st.lists(st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/b/"]), max_size=2, unique=True)
ROUTES = st.builds(
    ManifestRoute,
    host=st.just("a.example"),
    path_allowlist=PATHS.map(tuple),
    methods=st.lists(st.sampled_from(["GET", "POST"]), max_size=2, unique=True).map(tuple),
    ports=st.lists(st.sampled_from([80, 443, 8443]), max_size=2, unique=True).map(tuple),
    auth=st.none() | st.builds(ManifestAuth, scheme=st.just("Bearer"), token_ref=st.sampled_from(["A", "B"])),
    pipelock=st.builds(
        ManifestPipelock,
        tls_passthrough=st.booleans(),
        ssrf_ip_allowlist=st.lists(
            st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"]), max_size=2, unique=True
        ).map(tuple),
    ),
)


def permitted(route: ManifestRoute) -> set[tuple[str, str, int]]:
    return {
        (path, method, port)
        for path in ("/", "/a", "/a/", "/a/b", "/a/c", "/ab", "/b", "/b/c")
        for method in ("GET", "POST", "PUT")
        for port in (80, 443, 8443)
        if path_allowed(path, route.path_allowlist)
        and (not route.methods or method in route.methods)
        and port in _ports(route)
    }


@given(ROUTES, ROUTES)
def test_what_is_let_through_as_no_wider_permits_no_more(new: ManifestRoute, old: ManifestRoute) -> None:
    if not _opened(new, old):
        assert permitted(new) <= permitted(old)
        assert new.auth in (None, old.auth)
        assert old.pipelock.tls_passthrough or not new.pipelock.tls_passthrough
    assert _opened(new, new) == ()


@given(ROUTES, ROUTES, ROUTES)
def test_no_wider_than_what_is_no_wider_is_no_wider(
    first: ManifestRoute, second: ManifestRoute, third: ManifestRoute
) -> None:
    if not _opened(first, second) and not _opened(second, third):
        assert _opened(first, third) == ()
