"""Whole manifests from folders: what is read, what is refused, and who wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot_bottle.errors import ManifestError, UsageError
from bot_bottle.manifest.loader import load_routes_file
from bot_bottle.manifest.model import Manifest, ManifestAuth
from tests.support.manifest_tree import Tree, put

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = "agent_provider: {template: command, argv: [my-agent]}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_a_bottle_and_its_agent_are_read_as_they_are_written(tree: Tree) -> None:
    tree.bottle(
        "env: {EDITOR: vi, NAME: '${HOST_NAME}', FLAG: no, KEY: '?the key'}\n"
        "agent_provider: {auth_token: OAUTH}\n"
        "egress:\n"
        "  routes:\n"
        "    - host: Gitea.Example.COM.\n"
        "      path_allowlist: [/api/, /me/project]\n"
        "      methods: [GET, POST]\n"
        "      ports: [443, 8443]\n"
        "      auth: {scheme: token, token_ref: GITEA_TOKEN}\n"
        "      pipelock: {tls_passthrough: true, ssrf_ip_allowlist: [10.1.2.0/24]}\n"
        "    - host: '*.docs.example'\n"
        "limits: {memory: 4GiB, cpus: 2, pids: 512, open_files: 4096}\n"
    )
    tree.agent("bottle: b\nname: x\ndescription: y\nmodel: z\ncolor: red\nmemory: {any: thing}\n")
    manifest = tree.resolve()
    assert manifest.warnings == ()
    agent = manifest.require_agent("a")
    assert (agent.prompt, agent.bottle, agent.origin) == ("Do it.", "b", "operator")
    bottle = manifest.bottle_for("a")
    assert bottle.env == {"EDITOR": "vi", "NAME": "${HOST_NAME}", "FLAG": "no", "KEY": "?the key"}
    assert (bottle.agent_provider.template, bottle.agent_provider.auth_token) == ("claude", "OAUTH")
    gitea, docs = bottle.egress.routes
    assert gitea.host == "gitea.example.com"
    assert gitea.path_allowlist == ("/api/", "/me/project")
    assert (gitea.methods, gitea.ports) == (("GET", "POST"), (443, 8443))
    assert gitea.auth == ManifestAuth(scheme="token", token_ref="GITEA_TOKEN")
    assert gitea.pipelock.tls_passthrough
    assert gitea.pipelock.ssrf_ip_allowlist == ("10.1.2.0/24",)
    assert (docs.host, docs.auth, docs.pipelock.tls_passthrough) == ("*.docs.example", None, False)
    limits = bottle.limits
    assert (limits.memory, limits.cpus, limits.pids, limits.open_files) == (4 << 30, 2.0, 512, 4096)


def test_the_empty_bottle_has_no_way_out(tree: Tree) -> None:
    tree.bottle("")
    tree.agent()
    bottle = tree.resolve().bottle_for("a")
    assert bottle.egress.routes == ()
    assert bottle.env == {}


BAD_BOTTLES = [
    ("egres: {}\n", 2, 1, "egres: unknown key; did you mean egress?"),
    ("extends: base\n", 2, 10, "extends: there is no bottle 'base'; those that exist: none"),
    ("extends:\n", 2, 9, "extends: is empty; write for example extends: base"),
    ("extends: []\n", 2, 10, "extends: is an empty list; write for example extends: base"),
    ("extends: 5\n", 2, 10, "extends: must be a list, and this is a number"),
    ("extends: Base\n", 2, 10, "extends: is no name"),
    ("supervise: yes\n", 2, 12, "supervise: must be true or false, and this is text"),
    ("workspace: full\n", 2, 12, "'full' is no workspace; write copy or empty"),
    ("git: {user: {}}\n", 2, 7, "git.user: is empty; write for example user: {name"),
    ("git: {user: {name: ''}}\n", 2, 20, "git.user.name: is empty"),
    ('git: {user: {name: "a\\nb"}}\n', 2, 20, "git.user.name: holds a line break"),
    ("git: {user: {nam: x}}\n", 2, 14, "did you mean name?"),
    ("git: {remote: {}}\n", 2, 7, "did you mean remotes?"),
    ("egress: {routes: [], add_routes: [{host: a.example}]}\n", 2, 22, "stands beside routes; write routes"),
    ("egress: {add_routes: []}\n", 2, 22, "is an empty list"),
    ("egress: {add_routes: [{host: a.example}, {host: a.example}]}\n", 2, 49, "repeats a.example"),
    ("git_user: x\n", 2, 1, "git_user: has moved to git.user"),
    ("cred_proxy: x\n", 2, 1, "write a route under egress.routes"),
    ("bottle: x\n", 2, 1, "belongs to an agent"),
    ("egress: {allowlist: [x]}\n", 2, 10, "list the hosts under egress.routes"),
    ("egress:\n", 2, 8, "egress: is empty; write for example egress: {routes: [{host: api.example.com}]}"),
    ("egress: {routes: {host: a.example}}\n", 2, 18, "must be a list, and this is a mapping"),
    ("egress: {routes: [a.example]}\n", 2, 19, "must be a mapping of keys to values, and this is text"),
    ("egress: {routes: [{path_allowlist: [/]}]}\n", 2, 19, "egress.routes[0].host: is missing"),
    ("egress: {routes: [{host: 10}]}\n", 2, 26, "egress.routes[0].host: must be text, and this is a number"),
    ("egress: {routes: [{host: a.example, role: r}]}\n", 2, 37, "role: unknown role"),
    ("egress: {routes: [{host: a.example, rol: r}]}\n", 2, 37, "rol: unknown key; the keys here are host,"),
    ("egress: {routes: [{host: a.example, auth: {}}]}\n", 2, 43, "auth.scheme: is missing"),
    ("egress: {routes: [{host: a.example, ports: [true]}]}\n", 2, 45, "must be a whole number"),
    ("limits: {pids: 99.5}\n", 2, 16, "must be a whole number, and this has a fraction"),
    ("egress: {routes: [{host: a.example}, {host: A.example.}]}\n", 2, 45, "repeats a.example of routes[0]"),
    (
        "egress: {routes: [{host: a.example, ports: [80], auth: {scheme: Bearer, token_ref: T}}]}\n",
        2,
        44,
        "no credential is ever sent",
    ),
    (
        "egress: {routes: [{host: '*.a.example', auth: {scheme: Bearer, token_ref: T}}]}\n",
        2,
        26,
        "a credential goes to one host only",
    ),
    ("egress: {routes: [{host: _egress.local}]}\n", 2, 26, "answered by the sidecar itself"),
    ("env: {A: 1}\n", 2, 10, "env.A: must be text, and this is a number; put it in quotes"),
    ("env: {A: true}\n", 2, 10, "put it in quotes"),
    ("env: {A: }\n", 2, 10, 'write "" for empty text'),
    ("env: {A-B: x}\n", 2, 7, "env.A-B: is no variable name"),
    ("env: [A]\n", 2, 6, "must be a mapping of names to values"),
    (
        "agent_provider: {template: codex, auth_token: T}\n",
        2,
        35,
        "auth_token: is for template claude only, and this is codex",
    ),
    ("agent_provider: {template: clade}\n", 2, 28, "did you mean claude?"),
    ("agent_provider: {template: command}\n", 2, 17, "needs argv; write for example argv: [my-agent, --run]"),
    ("agent_provider: {template: command, argv: []}\n", 2, 43, "is an empty list"),
    ("agent_provider: {template: command, argv: run it}\n", 2, 43, "must be a list"),
    ("agent_provider: {template: command, argv: [sleep, 5]}\n", 2, 51, "put it in quotes"),
    ("agent_provider: {argv: [x]}\n", 2, 18, "argv: is for template command only"),
    (
        "agent_provider: {template: command, argv: [x], auth_token: T}\n",
        2,
        48,
        "auth_token: is for template claude only",
    ),
    ("agent_provider: {forward_host_credentials: true}\n", 2, 18, "is for template codex only"),
    ("agent_provider: {dockerfile: x}\n", 2, 30, "must be an absolute path or start with ~/"),
    ("limits: {memory: 4}\n", 2, 18, "write for example memory: 4GiB"),
    ("limits: {memory: 4GB}\n", 2, 18, "KiB, MiB or GiB"),
    ("limits: {cpus: 0}\n", 2, 16, "is too small (at least 0.05)"),
    ("limits: {cpus: .nan}\n", 2, 16, "is not a value this key takes"),
    ("limits: {pids: 1}\n", 2, 16, "is too small (at least 16)"),
    ("- a\n", 2, 1, "must be a mapping of keys to values"),
]


@pytest.mark.parametrize(("text", "line", "column", "said"), BAD_BOTTLES)
def test_each_mistake_is_told_with_its_place(
    tree: Tree, text: str, line: int, column: int, said: str
) -> None:
    path = tree.bottle(text)
    tree.agent()
    message = tree.refusal()
    assert f"{path}:{line}:{column}: " in message
    assert said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "bottle: is missing; write for example bottle: my-bottle"),
        ("bottel: b\n", "unknown key; did you mean bottle?"),
        ("bottle: ../b\n", "is no name"),
        ("bottle: b\nskills: [Up]\n", "skills[0]: is no skill name; write it in kebab-case"),
        ("bottle: b\nskills: [../x]\n", "skills[0]: is no skill name"),
        ("bottle: b\nskills: [x, x]\n", "skills[1]: is written twice"),
        (
            "bottle: b\ngit: {remotes: {}}\n",
            "git.remotes: belongs to the bottle: a remote carries a credential",
        ),
        ("bottle: b\ngit: {user: {}}\n", "git.user: is empty"),
        (
            "bottle: b\nauth_token: T\n",
            "auth_token: belongs to the bottle: an agent may come with a repository",
        ),
        ("bottle: b\ntoken_ref: T\n", "no repository chooses which of the operator's credentials are used"),
        ("bottle: b\nenv: {A: x}\n", "env: belongs to the bottle"),
        ("bottle: b\negress: {routes: []}\n", "egress: belongs to the bottle"),
        ("bottle: b\nagent_provider: {}\n", "agent_provider: belongs to the bottle"),
    ],
)
def test_an_agent_cannot_say_what_a_bottle_may_do(tree: Tree, text: str, said: str) -> None:
    tree.bottle("")
    tree.agent(text)
    assert said in tree.refusal()


def test_several_mistakes_are_told_at_once_in_the_order_of_the_file(tree: Tree) -> None:
    tree.bottle("env: {A: 1}\negres: {}\nlimits: {memory: x, pids: 0}\n")
    tree.agent()
    lines = tree.refusal().splitlines()
    assert [line.split(": ")[1] for line in lines] == ["env.A", "egres", "limits.memory", "limits.pids"]


@pytest.mark.parametrize(
    ("bottle", "secret"),
    [
        ("agent_provider: {auth_token: sk-ant-oat01-hidden}\n", "hidden"),
        (
            "egress: {routes: [{host: a.example, auth: {scheme: Bearer, token_ref: gho_hidden-x}}]}\n",
            "hidden",
        ),
        ("env: {PIN: 31337}\n", "31337"),
    ],
)
def test_no_message_repeats_what_may_be_a_credential(tree: Tree, bottle: str, secret: str) -> None:
    tree.bottle(bottle)
    tree.agent()
    assert secret not in tree.refusal().partition("/b.md:")[2]


@pytest.mark.parametrize(
    "bottle",
    [
        "env: {GH: '${T}'}\negress: {routes: [{host: a.example, auth: {scheme: Bearer, token_ref: T}}]}\n",
        "env: {GH: '${T}'}\nagent_provider: {auth_token: T}\n",
    ],
)
def test_the_credential_that_egress_adds_cannot_be_put_into_the_bottle(tree: Tree, bottle: str) -> None:
    tree.bottle(bottle)
    tree.agent()
    assert "env.GH: would put T into the bottle" in tree.refusal()


def test_a_broken_file_does_not_stand_in_an_unrelated_agents_way(tree: Tree) -> None:
    tree.bottle("")
    tree.bottle("nonsense: true\n", name="broken")
    tree.agent()
    tree.agent("bottle: [\n", name="worse")
    tree.agent("bottle: broken\n", name="other")
    assert tree.resolve().bottle_for("a").name == "b"
    assert "nonsense: unknown key" in tree.refusal("other")
    assert "not valid YAML" in tree.refusal("worse")


def test_an_unknown_agent_lists_those_that_exist(tree: Tree) -> None:
    tree.agent(name="one")
    tree.agent("bottle: [\n", name="two")
    with pytest.raises(UsageError, match="there is no agent 'three'; those that exist: one, two"):
        tree.resolve().require_agent("three")


def test_without_any_agent_the_sentence_says_where_to_write_one(tree: Tree) -> None:
    with pytest.raises(UsageError, match=r"agents/NAME\.md"):
        tree.resolve().require_agent("x")


def test_a_missing_bottle_names_the_agents_file_and_the_bottles_there_are(tree: Tree) -> None:
    tree.bottle("", name="other")
    path = tree.agent()
    assert tree.refusal() == f"{path}:2:9: bottle: there is no bottle 'b'; those that exist: other"


def test_a_repositorys_bottle_is_ignored_with_a_warning(tree: Tree) -> None:
    folder = tree.cwd / ".bot-bottle" / "bottles"
    folder.mkdir(parents=True)
    put(folder / "b.md", "---\negress: {routes: [{host: evil.example}]}\n---\n")
    tree.repo_agent()
    manifest = tree.resolve()
    assert manifest.bottles == {}
    assert any("bottles is ignored" in text for text in manifest.warnings)


def test_a_repositorys_agent_works_in_the_operators_bottle(tree: Tree) -> None:
    tree.bottle(COMMAND)
    tree.repo_agent(name="helper")
    manifest = tree.resolve()
    assert manifest.require_agent("helper").origin == "repository"
    assert manifest.bottle_for("helper").agent_provider.argv == ("my-agent",)


@pytest.mark.parametrize("own", ["bottle: b\n", "bottle: [broken\n"])
def test_a_repository_never_replaces_the_operators_agent_even_a_broken_one(tree: Tree, own: str) -> None:
    tree.bottle("")
    tree.agent(own)
    tree.repo_agent()
    manifest = tree.resolve()
    assert any("your own is used" in text for text in manifest.warnings)
    if "broken" in own:
        with pytest.raises(ManifestError):
            manifest.require_agent("a")
    else:
        assert manifest.require_agent("a").prompt == "Do it."


def test_the_home_folder_is_not_taken_for_a_repository(tree: Tree) -> None:
    tree.bottle("")
    tree.agent()
    manifest = Manifest.resolve(tree.home.parent, tree.home)
    assert manifest.warnings == ()
    assert manifest.require_agent("a").origin == "operator"


@pytest.mark.parametrize("name", ["Upper.md", "1st.md", "a_b.md", "a\x1b[31m.md", "x" * 70 + ".md"])
def test_other_file_names_are_passed_over_with_a_warning(tree: Tree, name: str) -> None:
    put(tree.home / "agents" / name, "---\nbottle: b\n---\n")
    manifest = tree.resolve()
    assert manifest.agents == {}
    (warning,) = manifest.warnings
    assert "is ignored" in warning
    assert "\x1b" not in warning


def test_files_that_are_no_manifests_are_passed_over_in_silence(tree: Tree) -> None:
    put(tree.home / "agents" / "README.txt", "x")
    put(tree.home / "agents" / ".hidden.md", "x")
    assert tree.resolve().warnings == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"---\nbottle: b\n---\n" + b"x" * (256 * 1024), "larger than 256 KiB"),
        (b"---\nbottle: b\n---\n\xff\n", "a.md:4:1: not UTF-8"),
        (b"---\nbottle: b\n---\nhi \0\n", "a.md:4:1: the prompt holds a NUL"),
        (b"", "does not start with a line '---'"),
        (b"---\nbottle: b\n", "no closing line"),
        (b"---\nbottle: &x b\n---\n", "anchors"),
        (b"---\n" + b"[" * 10000 + b"\n---\n", "nests deeper"),
    ],
)
def test_hostile_files_get_one_sentence(tree: Tree, content: bytes, said: str) -> None:
    tree.bottle("")
    path = tree.repo_agent()
    put(path, content)
    assert said in tree.refusal()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_never_give_anything_but_a_manifest_error(tree: Tree, data: st.DataObject) -> None:
    good = (
        b"---\nenv: {A: x}\nagent_provider: {auth_token: T}\negress:\n  routes:\n    - host: a.example\n"
        b"      auth: {scheme: Bearer, token_ref: T2}\nlimits: {memory: 1GiB}\n---\nbody\n"
    )
    at = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 8))
    new = data.draw(st.binary(max_size=6))
    put(tree.home / "bottles" / "b.md", good[:at] + new + good[at + cut :])
    tree.agent()
    manifest = tree.resolve()
    for error in manifest.broken_bottles.values():
        assert all(line.isprintable() for line in str(error).splitlines())


def test_a_routes_file_has_the_manifests_route_keys(tmp_path: Path) -> None:
    path = put(
        tmp_path / "routes.yaml", "routes:\n  - host: A.example\n    auth: {scheme: Bearer, token_ref: T}\n"
    )
    (route,) = load_routes_file(path)
    assert (route.host, route.origin, route.effective_ports) == ("a.example", "routes[0]", (443,))
    assert route.auth is not None
    assert route.auth.token_ref == "T"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "routes: is missing"),
        ("routes: [{host: a.example}, {host: a.example}]\n", "repeats a.example"),
        ("route: []\n", "did you mean routes?"),
        ("routes: [{host: 'a b'}]\n", "routes.yaml:1:17: routes[0].host"),
    ],
)
def test_a_bad_routes_file_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_routes_file(put(tmp_path / "routes.yaml", text))
    assert said in str(caught.value)


def test_a_missing_routes_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        load_routes_file(tmp_path / "none.yaml")
