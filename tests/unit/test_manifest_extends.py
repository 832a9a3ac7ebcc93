"""``extends``: what a child inherits, what it replaces, and what grouping and order change."""

from __future__ import annotations

import string
from functools import reduce
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.errors import ManifestError
from bot_bottle.manifest.layers import Layer, Named, Said, fold
from bot_bottle.manifest.model import (
    Manifest,
    ManifestAgentProvider,
    ManifestGitRemote,
    ManifestRoute,
    ManifestSource,
)
from tests.support.manifest_tree import Tree

# -- by example ------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.agent()
    tree.bottle(
        "env: {EDITOR: vi, LANG: en}\n"
        "agent_provider: {auth_token: OAUTH}\n"
        "egress: {routes: [{host: a.example}, {host: b.example}]}\n"
        "git: {user: {name: Base, email: base@example.com}}\n"
        "limits: {memory: 1GiB, pids: 100}\n"
        "supervise: true\n"
        "workspace: copy\n",
        name="base",
    )
    return tree


def test_what_a_child_does_not_write_it_inherits_with_its_place(tree: Tree) -> None:
    tree.bottle("extends: base\n")
    manifest = tree.resolve()
    child, base = manifest.bottle_for("a"), manifest.bottles["base"]
    assert child.extends == ("base",)
    for key in ("env", "agent_provider", "egress", "git", "limits", "supervise", "workspace", "sources"):
        assert getattr(child, key) == getattr(base, key), key
    assert str(child.sources["env.EDITOR"]) == "bottles/base.md:2"
    assert str(child.sources["egress.routes[1]"]) == "bottles/base.md:4"


def test_a_block_stands_where_it_is_named(tree: Tree) -> None:
    tree.bottle("limits:\n  pids: 64\nagent_provider:\n\n  auth_token: T\n")
    sources = tree.resolve().bottle_for("a").sources
    assert str(sources["limits.pids"]) == "bottles/b.md:3"
    assert str(sources["agent_provider"]) == "bottles/b.md:4"


def test_env_by_name_user_and_limits_by_field_the_rest_as_a_whole(tree: Tree) -> None:
    tree.bottle(
        "extends: base\nenv: {EDITOR: ed}\ngit: {user: {email: child@example.com}}\nlimits: {cpus: 1}\n"
        "agent_provider: {template: command, argv: [x]}\nsupervise: false\n"
    )
    bottle = tree.resolve().bottle_for("a")
    assert bottle.env == {"EDITOR": "ed", "LANG": "en"}
    assert (bottle.git.user.name, bottle.git.user.email) == ("Base", "child@example.com")
    assert (bottle.limits.memory, bottle.limits.pids, bottle.limits.cpus) == (1 << 30, 100, 1)
    assert (bottle.agent_provider.template, bottle.agent_provider.auth_token) == ("command", "")
    assert not bottle.supervise
    places = {key: str(source) for key, source in bottle.sources.items()}
    assert places["env.EDITOR"] == "bottles/b.md:3"
    assert places["env.LANG"] == "bottles/base.md:2"
    assert places["git.user.name"] == "bottles/base.md:5"
    assert places["git.user.email"] == "bottles/b.md:4"
    assert (places["limits.pids"], places["limits.cpus"]) == ("bottles/base.md:6", "bottles/b.md:5")


@pytest.mark.parametrize(
    ("egress", "hosts"),
    [
        ("{routes: [{host: c.example}]}", ["c.example"]),
        ("{routes: []}", []),
        ("{}", []),
        ("{add_routes: [{host: c.example}]}", ["a.example", "b.example", "c.example"]),
        ("{add_routes: [{host: A.example, methods: [GET]}]}", ["a.example", "b.example"]),
    ],
)
def test_routes_replace_and_add_routes_adds(tree: Tree, egress: str, hosts: list[str]) -> None:
    tree.bottle(f"extends: base\negress: {egress}\n")
    routes = tree.resolve().bottle_for("a").egress.routes
    assert [route.host for route in routes] == hosts
    if "methods" in egress:
        assert routes[0].methods == ("GET",)


def test_several_parents_are_folded_left_to_right(tree: Tree) -> None:
    tree.bottle("env: {EDITOR: nano}\negress: {add_routes: [{host: docs.example}]}\n", name="docs")
    tree.bottle("extends: [base, docs]\n")
    bottle = tree.resolve().bottle_for("a")
    assert bottle.env["EDITOR"] == "nano"
    assert [route.host for route in bottle.egress.routes] == ["a.example", "b.example", "docs.example"]
    tree.bottle("extends: [docs, base]\n")
    bottle = tree.resolve().bottle_for("a")
    assert bottle.env["EDITOR"] == "vi"
    assert [route.host for route in bottle.egress.routes] == ["a.example", "b.example"]


def test_add_routes_without_a_parent_is_all_there_is(tree: Tree) -> None:
    tree.bottle("egress: {add_routes: [{host: docs.example}]}\n")
    assert [route.host for route in tree.resolve().bottle_for("a").egress.routes] == ["docs.example"]


def test_remotes_merge_by_host_and_an_empty_mapping_drops_them(tree: Tree) -> None:
    def remote(name: str, host: str) -> str:
        return f"{host}: {{Name: {name}, Upstream: 'https://{host}/p.git'}}"

    tree.bottle(f"git: {{remotes: {{{remote('one', 'a.example')}, {remote('two', 'b.example')}}}}}\n", "base")
    tree.bottle(f"extends: base\ngit: {{remotes: {{{remote('uno', 'a.example')}}}}}\n")
    remotes = tree.resolve().bottle_for("a").git.remotes
    assert [(remote.host, remote.name) for remote in remotes] == [("a.example", "uno"), ("b.example", "two")]
    tree.bottle("extends: base\ngit: {remotes: {}}\n")
    assert tree.resolve().bottle_for("a").git.remotes == ()
    tree.bottle(f"extends: base\ngit: {{remotes: {{{remote('one', 'c.example')}}}}}\n")
    assert 'git.remotes["c.example"].Name: repeats one of git.remotes.a.example' in tree.refusal()


def test_what_egress_adds_cannot_be_put_into_a_bottle_by_way_of_a_parent(tree: Tree) -> None:
    path = tree.bottle("extends: base\nenv: {TOKEN: '${OAUTH}'}\n")
    assert f"{path}:3:14: env.TOKEN: would put OAUTH into the bottle" in tree.refusal()


def test_a_missing_parent_is_named_with_what_there_is(tree: Tree) -> None:
    path = tree.bottle("extends: [base, basse]\n")
    assert tree.refusal() == f"{path}:2:17: extends: there is no bottle 'basse'; did you mean base?"


def test_a_broken_parent_is_shown_with_its_own_mistakes(tree: Tree) -> None:
    tree.bottle("nonsense: 1\n", name="base")
    tree.bottle("extends: base\n")
    said = tree.refusal()
    assert "b.md:2:10: extends: the bottle base needs mending first" in said
    assert "base.md:2:1: nonsense: unknown key" in said


def test_a_parent_that_others_can_write_is_not_used(tree: Tree) -> None:
    tree.bottle("", name="base").chmod(0o666)
    tree.bottle("extends: base\n")
    assert "the bottle base cannot be used" in tree.refusal()
    assert "run: chmod go-w" in tree.refusal()


def test_a_bottle_does_not_extend_itself_nor_one_twice(tree: Tree) -> None:
    tree.bottle("extends: [base, b]\n")
    assert "a bottle cannot extend itself: b -> b" in tree.refusal()
    tree.bottle("extends: [base, base]\n")
    assert "names base twice" in tree.refusal()


def test_a_circle_is_printed_as_its_chain(tree: Tree) -> None:
    tree.bottle("extends: one\n")
    tree.bottle("extends: two\n", name="one")
    tree.bottle("extends: [base, three]\n", name="two")
    tree.bottle("extends: one\n", name="three")
    manifest = tree.resolve()
    assert set(manifest.bottles) == {"base"}
    assert "goes round in a circle: b -> one -> two -> three -> one" in str(manifest.broken_bottles["b"])
    assert "circle: two -> three -> one -> two" in str(manifest.broken_bottles["two"])


def test_a_chain_may_be_as_long_as_the_folder_holds(tree: Tree) -> None:
    for number in range(900):
        tree.bottle(f"extends: c{number + 1}\nenv: {{V{number}: x}}\n", name=f"c{number}")
    tree.bottle("env: {LAST: x}\n", name="c900")
    tree.bottle("extends: c0\n")
    assert len(tree.resolve().bottle_for("a").env) == 901


# -- by property -----------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d"])
SOURCES = st.builds(
    ManifestSource,
    path=st.sampled_from([Path("/h/bottles/x.md"), Path("/h/bottles/y.md")]),
    line=st.integers(1, 9),
    column=st.just(1),
)


def said(values: st.SearchStrategy[object]) -> st.SearchStrategy[Said[object]]:
    return st.builds(Said, values, SOURCES)


def named(make: object) -> st.SearchStrategy[Named[object]]:
    entries = st.dictionaries(NAMES, st.integers(0, 3), max_size=4)
    return st.builds(
        lambda chosen, sources, alone: Named(
            {name: Said(make(name, value), sources) for name, value in chosen.items()},  # type: ignore[operator]
            alone=alone,
        ),
        entries,
        SOURCES,
        st.booleans(),
    )


def remote(host: str, number: int) -> ManifestGitRemote:
    return ManifestGitRemote(
        host=host,
        name=f"n{number}",
        upstream=f"https://{host}/p",
        scheme="https",
        user="",
        upstream_host=host,
        port=None,
        path="/p",
    )


TEXT = st.text(string.ascii_letters, min_size=1, max_size=3)
LAYERS = st.builds(
    Layer,
    env=named(lambda _name, value: str(value)).map(lambda env: Named(env.entries)),
    routes=named(lambda name, value: ManifestRoute(host=name, path_allowlist=(f"/{value}",))),
    remotes=named(remote),
    user_name=st.none() | said(TEXT),
    user_email=st.none() | said(TEXT),
    provider=st.none() | said(st.builds(ManifestAgentProvider, template=TEXT)),
    limits=named(lambda _name, value: 16 + value).map(lambda limits: Named(limits.entries)),
    supervise=st.none() | said(st.booleans()),
    workspace=st.none() | said(st.sampled_from(["copy", "empty"])),
)


def ordered(layer: Layer) -> tuple[object, ...]:
    """Give a layer with the order of its mappings, which equality alone does not see."""
    groups = (layer.env, layer.routes, layer.remotes, layer.limits)
    return (layer, *(tuple((name, said.over) for name, said in group.entries.items()) for group in groups))


@given(LAYERS, LAYERS, LAYERS)
def test_grouping_does_not_matter(first: Layer, second: Layer, third: Layer) -> None:
    assert ordered(fold(fold(first, second), third)) == ordered(fold(first, fold(second, third)))


@given(LAYERS)
def test_nothing_laid_over_or_under_changes_nothing(layer: Layer) -> None:
    assert ordered(fold(Layer(), layer)) == ordered(layer) == ordered(fold(layer, Layer()))


@given(LAYERS)
def test_saying_the_same_twice_says_it_once(layer: Layer) -> None:
    assert ordered(fold(layer, layer)) == ordered(layer)


@given(st.lists(LAYERS, max_size=5), LAYERS)
def test_no_word_of_the_child_is_lost_and_nothing_comes_from_nowhere(
    bases: list[Layer], child: Layer
) -> None:
    result = reduce(fold, (*bases, child), Layer())
    for group in ("env", "routes", "remotes", "limits"):
        entries = getattr(result, group).entries
        own = getattr(child, group)
        assert own.entries.items() <= entries.items()
        inherited = [] if own.alone else [getattr(base, group).entries for base in bases]
        assert all(
            any(mine == theirs.get(name) for theirs in (own.entries, *inherited))
            for name, mine in entries.items()
        )
    for single in ("user_name", "user_email", "provider", "supervise", "workspace"):
        words = [word for layer in (child, *reversed(bases)) if (word := getattr(layer, single)) is not None]
        assert getattr(result, single) == (words[0] if words else None)


@given(st.lists(LAYERS, min_size=1, max_size=4))
def test_an_added_route_closes_nothing_that_a_child_did_not_close(layers: list[Layer]) -> None:
    result = reduce(fold, layers, Layer())
    last = max((index for index, layer in enumerate(layers) if layer.routes.alone), default=0)
    expected = {host for layer in layers[last:] for host in layer.routes.entries}
    assert set(result.routes.entries) == expected


def test_a_manifest_error_is_what_a_bad_child_raises(tree: Tree) -> None:
    tree.bottle("extends: nowhere\n")
    manifest: Manifest = tree.resolve()
    with pytest.raises(ManifestError):
        manifest.bottle_for("a")
    assert manifest.bottles["base"].supervise
