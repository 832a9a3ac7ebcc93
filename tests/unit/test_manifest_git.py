"""``git`` of bottles and agents: remotes that mean one thing only, and who a commit claims to be from."""

from __future__ import annotations

import base64
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.agent_provider.common import gitconfig
from bot_bottle.manifest import values
from bot_bottle.manifest.model import ManifestGitUser
from bot_bottle.manifest.remotes import Upstream, known_host_key, parse_upstream
from tests.support.manifest_tree import Tree

if TYPE_CHECKING:
    from pathlib import Path


def host_key(kind: str = "ssh-ed25519", inside: str = "", length: int = 32) -> str:
    name = (inside or kind).encode()
    blob = len(name).to_bytes(4, "big") + name + length.to_bytes(4, "big") + b"k" * length
    return f"{kind} {base64.b64encode(blob).decode()}"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    tree.agent()
    return tree


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ssh://git@Git.Example.com/me/p.git", ("ssh", "git", "git.example.com", None, "/me/p.git")),
        ("ssh://me@10.1.2.3:2222/p", ("ssh", "me", "10.1.2.3", 2222, "/p")),
        ("ssh://git@[fd00::1]:22/~me/p", ("ssh", "git", "fd00::1", 22, "/~me/p")),
        ("https://git.example.com:8443/a/b/", ("https", "", "git.example.com", 8443, "/a/b/")),
    ],
)
def test_upstreams(text: str, parts: tuple[str, str, str, int | None, str]) -> None:
    scheme, user, host, port, path = parts
    assert scheme in {"ssh", "https"}
    found = parse_upstream(text)
    assert found == Upstream(scheme=found.scheme, user=user, host=host, port=port, path=path)
    assert found.scheme == scheme


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("git@git.example.com:me/p.git", "write ssh://git@git.example.com/me/p.git"),
        ("http://git.example.com/p", "is no upstream"),
        ("git://git.example.com/p", "is no upstream"),
        ("file:///tmp/p", "is no upstream"),
        ("ext::sh -c id", "is no upstream"),
        ("/tmp/p", "is no upstream"),
        ("ssh://git.example.com/p", "names no user"),
        ("ssh://-oProxyCommand=x@h.example/p", "names no user"),
        ("ssh://git@-oProxyCommand=x/p", "has a host that"),
        ("ssh://git@*.example.com/p", "has a host that"),
        ("ssh://git@git.example.com", "no plain path"),
        ("ssh://git@git.example.com/", "no plain path"),
        ("ssh://git@git.example.com/a/../b", "no plain path"),
        ("ssh://git@git.example.com/a b", "no plain path"),
        ("ssh://git@git.example.com/$(id)", "no plain path"),
        ("ssh://git@git.example.com//p", "no plain path"),
        ("ssh://git@git.example.com:0/p", "no usable port"),
        ("ssh://git@git.example.com:99999/p", "no usable port"),
        ("ssh://git@git.example.com:/p", "no usable port"),
        ("https://me:hidden@git.example.com/p", "credential never stands in a URL"),
        ("https://@git.example.com/p", "credential never stands in a URL"),
    ],
)
def test_upstreams_that_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z]") as caught:
        parse_upstream(text)
    assert said in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("text", [host_key(), f"{host_key('ssh-rsa', length=256)} a comment"])
def test_host_keys(text: str) -> None:
    assert known_host_key(text) == " ".join(text.split()[:2])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-dss AAAA",
        f"git.example.com {host_key()}",
        host_key(inside="ssh-rsa"),
        host_key(length=4),
        f"{host_key()}!",
        "ssh-ed25519 ü",
    ],
)
def test_host_keys_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(is|has)"):
        known_host_key(text)


def test_remotes_are_read_in_full(tree: Tree) -> None:
    tree.bottle(
        "git:\n  remotes:\n    Git.Example.com:\n      Name: project\n"
        "      Upstream: ssh://git@git.example.com:30009/me/project.git\n"
        f"      IdentityFile: ~/.ssh/id\n      KnownHostKey: {host_key()}\n"
        "    forge.example:\n      Name: other\n      Upstream: ssh://git@10.0.0.7/p.git\n"
        "      IdentityFile: /etc/key\n"
    )
    first, second = tree.resolve().bottle_for("a").git.remotes
    assert (first.host, first.name, first.user, first.port) == ("git.example.com", "project", "git", 30009)
    assert (first.identity_file, first.known_host_key) == ("~/.ssh/id", host_key())
    assert (second.host, second.upstream_host, second.known_host_key) == ("forge.example", "10.0.0.7", "")


REMOTE = "git: {{remotes: {{{key}: {{Name: {name}, Upstream: '{upstream}'{more}}}}}}}\n"


@pytest.mark.parametrize(
    ("key", "name", "upstream", "more", "said"),
    [
        ("a.example", "p", "https://b.example/p", "", "Upstream: leads to b.example; declare it under"),
        ("a.example", "p", "ssh://git@a.example/p", "", "IdentityFile: is missing; an ssh upstream needs"),
        ("a.example", "p", "https://a.example/p", ", IdentityFile: /k", "is for ssh upstreams only"),
        (
            "a.example",
            "p",
            "https://a.example/p",
            f", KnownHostKey: {host_key()}",
            "is for ssh upstreams only",
        ),
        ("a.example", "p", "https://a.example/p", ", IdentityFile: key", "must be an absolute path"),
        ("a.example", "p", "https://a.example/p", ", ExtraHosts: x", "unknown key"),
        ("a.example", "p", "https://a.example/p", ", identityfile: /k", "did you mean IdentityFile?"),
        ("a.example", "../p", "https://a.example/p", "", "Name: is no label"),
        ("a.example", "p.git", "https://a.example/p", "", "Name: is no label"),
        ("'*.a.example'", "p", "https://a.example/p", "", "a remote is one host"),
        ("a/b", "p", "https://a.example/p", "", "holds a path"),
    ],
)
def test_bad_remotes(tree: Tree, key: str, name: str, upstream: str, more: str, said: str) -> None:
    tree.bottle(REMOTE.format(key=key, name=name, upstream=upstream, more=more))
    assert said in tree.refusal()


def test_one_host_in_two_spellings_is_refused(tree: Tree) -> None:
    one = "{Name: p, Upstream: 'https://a.example/p'}"
    two = "{Name: q, Upstream: 'https://a.example/q'}"
    tree.bottle(f"git: {{remotes: {{a.example: {one}, A.example: {two}}}}}\n")
    assert "repeats a.example; write one remote for each host" in tree.refusal()


@pytest.mark.parametrize(
    ("bottle", "agent", "name", "email", "summary"),
    [
        ("", "", "", "", ""),
        ("{name: B, email: b@x}", "", "B", "b@x", "B (bottle), b@x (bottle)"),
        ("", "{name: A, email: a@x}", "A", "a@x", "A (agent), a@x (agent)"),
        ("{name: B, email: b@x}", "{name: A}", "A", "b@x", "A (agent), b@x (bottle)"),
        ("{name: B}", "{email: a@x}", "B", "a@x", "B (bottle), a@x (agent)"),
        ("{email: b@x}", "", "", "b@x", "b@x (bottle)"),
    ],
)
def test_the_agents_user_is_laid_over_the_bottles(
    tree: Tree, bottle: str, agent: str, name: str, email: str, summary: str
) -> None:
    path = tree.bottle(f"git: {{user: {bottle}}}\n" if bottle else "")
    agent_path = tree.agent("bottle: b\n" + (f"git: {{user: {agent}}}\n" if agent else ""))
    manifest = tree.resolve()
    effective = manifest.bottle_for("a")
    assert (effective.git.user.name, effective.git.user.email) == (name, email)
    assert manifest.git_identity_summary("a") == summary
    owners = {"agent": agent_path, "bottle": path}
    for field in ("name", "email"):
        if getattr(effective.git.user, field):
            owner = summary.split(", ")[0 if field == "name" else -1].partition("(")[2].rstrip(")")
            assert effective.sources[f"git.user.{field}"].path == owners[owner]


LINES = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=60)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
@pytest.mark.parametrize("value", ['Some "One" \\ # ; [x]', "\\", '"', "' ; rm", "Ünï 名", " a  b "])
def test_git_reads_back_what_was_declared(tmp_path: Path, value: str) -> None:
    file = tmp_path / "gitconfig"
    file.write_bytes(gitconfig(ManifestGitUser(name=value, email="a@x")))
    for key, wanted in (("user.name", value), ("user.email", "a@x")):
        done = subprocess.run(["git", "config", "-z", "--file", file, key], capture_output=True, check=True)
        assert done.stdout.decode() == f"{wanted}\0"


@given(LINES)
def test_an_identity_is_one_line_and_never_a_section(text: str) -> None:
    try:
        accepted = values.git_text(text)
    except ValueError:
        return
    lines = gitconfig(ManifestGitUser(name=accepted)).decode().split("\n")
    assert len(lines) == 3
    assert lines[0] == "[user]"
