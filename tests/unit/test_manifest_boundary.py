"""The trust boundary: an agent never widens its bottle, and no file is anything but read or refused."""

from __future__ import annotations

import contextlib
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.agent_provider.registry import agent_provision_plan
from bot_bottle.cli import main
from bot_bottle.egress.routes import egress_routes_for_bottle
from bot_bottle.errors import BotBottleError, ManifestError
from bot_bottle.manifest.build import agent_from_text, bottle_from_text
from bot_bottle.manifest.check import check_declared
from bot_bottle.manifest.model import Manifest, ManifestBottle
from bot_bottle.preflight import declared_rows, layout
from tests.support.manifest_tree import Tree, put

BASE = """\
env: {EDITOR: vi, GH: '${HOST_GH}', KEY: '?key'}
agent_provider: {auth_token: OAUTH}
egress:
  routes:
    - host: api.example.com
      path_allowlist: [/v1/]
      auth: {scheme: Bearer, token_ref: TOKEN}
git:
  user: {name: Base, email: base@example.com}
  remotes:
    git.example.com: {Name: p, Upstream: 'https://git.example.com/p.git'}
limits: {memory: 1GiB, pids: 100}
supervise: true
"""
CHILD = """\
extends: base
env: {EDITOR: ed}
egress:
  add_routes:
    - {host: '*.docs.example.com', methods: [GET], ports: [443]}
workspace: copy
"""
AGENT = """\
bottle: b
skills: [tdd]
git: {user: {name: Agent Bot}}
name: x
description: "what it does"
model: any
"""


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.bottle(BASE, name="base")
    tree.bottle(CHILD)
    tree.agent()
    return tree


# -- an agent never widens -------------------------------------------------------------------------------

SCALARS = st.sampled_from(["b", "true", "'*'", "5", "evil.example", "/etc/key", "TOKEN", "~", "''"])
KEYS = [
    *("bottle", "skills", "git", "user", "remotes", "name", "email", "env", "egress", "routes", "add_routes"),
    *("host", "auth", "token_ref", "agent_provider", "auth_token", "template", "argv", "extends", "limits"),
    *("supervise", "workspace", "description", "model", "color", "memory", "Upstream", "IdentityFile"),
]
FLOWS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=8,
)


def unchanged_but_for_its_user(bottle: ManifestBottle, own: ManifestBottle) -> bool:
    user = {"git.user.name", "git.user.email"}
    sources = {key: source for key, source in bottle.sources.items() if key not in user}
    return replace(bottle, git=replace(bottle.git, user=own.git.user), sources=sources) == replace(
        own, sources={key: source for key, source in own.sources.items() if key not in user}
    )


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(extra=st.dictionaries(st.sampled_from(KEYS), FLOWS, max_size=4))
def test_no_agent_changes_its_bottle_but_for_git_user(tree: Tree, extra: dict[str, str]) -> None:
    lines = {"bottle": "b", **extra}
    tree.repo_agent("".join(f"{key}: {value}\n" for key, value in lines.items()), name="theirs")
    manifest = tree.resolve()
    try:
        bottle = manifest.bottle_for("theirs")
    except ManifestError:
        return
    own = manifest.bottles[bottle.name]
    assert unchanged_but_for_its_user(bottle, own)
    plan = agent_provision_plan(bottle, manifest.require_agent("theirs"), env={})
    assert egress_routes_for_bottle(bottle, plan.egress_routes) == egress_routes_for_bottle(
        own, agent_provision_plan(own, manifest.require_agent("a"), env={}).egress_routes
    )


def test_the_choke_point_leaves_every_field_of_the_bottle_alone(tree: Tree) -> None:
    tree.repo_agent("bottle: b\ngit: {user: {name: Theirs}}\n", name="theirs")
    manifest = tree.resolve()
    bottle, own = manifest.bottle_for("theirs"), manifest.bottles["b"]
    changed = {part.name for part in fields(bottle) if getattr(bottle, part.name) != getattr(own, part.name)}
    assert changed == {"git", "sources"}
    assert (bottle.git.user.name, bottle.git.user.email) == ("Theirs", "base@example.com")
    assert bottle.git.remotes == own.git.remotes
    assert manifest.git_identity_summary("theirs") == "Theirs (agent), base@example.com (bottle)"


def test_a_repository_cannot_give_an_operators_bottle_a_parent(tree: Tree) -> None:
    folder = tree.cwd / ".bot-bottle" / "bottles"
    folder.mkdir(parents=True)
    put(folder / "base.md", "---\negress: {routes: [{host: evil.example}]}\n---\n")
    put(folder / "extra.md", "---\nextends: base\n---\n")
    manifest = tree.resolve()
    assert "extra" not in manifest.bottles
    hosts = [route.host for route in manifest.bottle_for("a").egress.routes]
    assert hosts == ["api.example.com", "*.docs.example.com"]


# -- files others could have written ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bottles", "agents"])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_what_others_can_write_is_refused_file_by_file(tree: Tree, kind: str, mode: int) -> None:
    path = tree.home / kind / ("base.md" if kind == "bottles" else "a.md")
    path.chmod(mode)
    assert "can be written by" in tree.refusal()
    path.chmod(0o644)
    assert tree.resolve().bottle_for("a").name == "b"


@pytest.mark.parametrize("target", ["bottles/../../elsewhere.md", "/etc/hostname", "agents/a.md"])
def test_a_parent_that_is_a_link_out_is_not_followed(tree: Tree, target: str) -> None:
    put(tree.home.parent / "elsewhere.md", "---\nenv: {A: x}\n---\n")
    (tree.home / "bottles" / "base.md").unlink()
    (tree.home / "bottles" / "base.md").symlink_to(tree.home / target)
    said = tree.refusal()
    assert "the bottle base cannot be used" in said
    assert "is a link out of" in said


def test_a_home_that_is_itself_a_link_is_followed_once(tree: Tree) -> None:
    linked = tree.home.with_name("linked")
    linked.symlink_to(tree.home)
    assert Manifest.resolve(tree.cwd, linked).bottle_for("a").name == "b"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another account")
def test_a_folder_of_another_account_is_refused(tree: Tree) -> None:
    os.chown(tree.home / "bottles", 12345, 12345)
    assert "belongs to another user" in tree.refusal()


# -- any bytes at all ------------------------------------------------------------------------------------

GOOD = {
    "base": f"---\n{BASE}---\nhuman words\n".encode(),
    "b": f"---\n{CHILD}---\n".encode(),
    "a": f"---\n{AGENT}---\nDo it.\n".encode(),
}
PIECES = [
    *(bytes([number]) for number in (0, 9, 10, 13, 27, 127, 128, 255)),
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/object ",
        b"? ",
        b"| ",
        b"---\n",
        b"...\n",
        b"{",
        b"}",
        b"[",
        b"]",
        b": ",
    ),
    *(
        b"'",
        b'"',
        b"#",
        b"%",
        b"@",
        b"`",
        b"0x",
        b".inf",
        b"1e999",
        b"\xe2\x80\xae",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
    ),
    *(b"extends: b\n", b"extends: [base, b]\n", b"routes", b"9" * 70, b"a" * 300, "𝐞".encode()),
]


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    data = good
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.sampled_from([0, 0, 1, 3, 20]))
        data = data[:at] + draw(st.sampled_from(PIECES) | st.binary(max_size=4)) + data[at + cut :]
    return data


def fit_for_a_terminal(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_mutated_files_give_manifest_errors_or_manifests_and_nothing_else(
    tree: Tree, data: st.DataObject
) -> None:
    for name, folder in (("base", "bottles"), ("b", "bottles"), ("a", "agents")):
        put(tree.home / folder / f"{name}.md", data.draw(mutated(GOOD[name]), label=name))
    put(tree.repo_agent(name="theirs"), data.draw(mutated(GOOD["a"]), label="theirs"))
    manifest = tree.resolve()
    broken = (*manifest.broken_agents.values(), *manifest.broken_bottles.values())
    assert all(isinstance(error, ManifestError) for error in broken)
    said = [str(error) for error in broken]
    for name in ("a", "theirs"):
        try:
            bottle = manifest.bottle_for(name)
            plan = agent_provision_plan(bottle, manifest.require_agent(name), env={})
            routes = egress_routes_for_bottle(bottle, plan.egress_routes)
        except BotBottleError as error:
            said.append(str(error))
            continue
        lines = layout(declared_rows(manifest, name, bottle, plan, routes))
        said += lines
    assert all(fit_for_a_terminal(text) for text in said)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_check_tells_of_any_mutated_file_without_a_traceback(tree: Tree, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOT_BOTTLE_HOME", str(tree.home))
        patch.setenv("HOME", str(tree.home.parent))
        put(tree.home / "bottles" / "b.md", data.draw(mutated(GOOD["b"])))
        put(tree.home / "agents" / "a.md", data.draw(mutated(GOOD["a"])))
        report = check_declared(tree.cwd)
    for problem in report.problems:
        assert fit_for_a_terminal(str(problem))
        assert problem.message
        assert Path(problem.file).is_relative_to(tree.home)


@settings(max_examples=200)
@given(text=st.text(max_size=300))
def test_any_text_between_the_lines_is_read_or_refused(text: str) -> None:
    for read in (
        lambda: bottle_from_text("b", Path("b.md"), f"---\n{text}\n---\n"),
        lambda: agent_from_text("a", Path("a.md"), f"---\n{text}\n---\n", "repository"),
        lambda: bottle_from_text("b", Path("b.md"), text),
    ):
        with contextlib.suppress(ManifestError):
            read()


def test_a_repository_full_of_rubbish_stands_in_nobodys_way(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tree.cwd / ".bot-bottle" / "agents"
    folder.mkdir(parents=True)
    for number, piece in enumerate(PIECES):
        put(folder / f"r{number}.md", b"---\n" + piece * 50)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tree.home))
    monkeypatch.chdir(tree.cwd)
    assert main(["info", "a"]) == 0
    assert main(["list", "agents"]) == 0
    assert main(["check"]) == 2
    out = capsys.readouterr().out
    assert all(line.replace("\t", "").isprintable() for line in out.split("\n"))
