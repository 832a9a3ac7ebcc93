"""``check``: every mistake at once, with its place, for humans and for programs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bot_bottle.cli import main
from tests.support.manifest_tree import Tree, put

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tree.home))
    monkeypatch.setenv("HOME", str(tree.home.parent))
    monkeypatch.chdir(tree.cwd)
    return tree


Capture = pytest.CaptureFixture[str]


def test_what_is_right_is_said_in_one_line(tree: Tree, capsys: Capture) -> None:
    tree.bottle("")
    tree.agent()
    assert main(["check"]) == 0
    assert capsys.readouterr() == ("2 files are right\n", "")


def test_the_operators_config_is_checked_too(tree: Tree, capsys: Capture) -> None:
    path = put(tree.home / "config.toml", "[pins]\n'a.example' = 'localhost'\n")
    assert main(["check"]) == 2
    assert f"{path}:2:1: pins." in capsys.readouterr().out
    put(path, 'backend = "bubblewrap"\n')
    assert main(["check"]) == 0
    assert capsys.readouterr().out == "1 file is right\n"


def test_each_mistake_of_the_config_has_its_line(tree: Tree, capsys: Capture) -> None:
    path = put(
        tree.home / "config.toml",
        'backend = "bublewrap"\nnotify = "yes"\n[egres]\nproxy = "x"\n[egress]\nupstream_ca = "ca.pem"\n'
        'proxy_user = "me"\n[pins]\n"a.example" = "localhost"\n[docker]\nnetwork = "host"\nnetwrk = 1\n',
    )
    assert main(["check"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"{path}:").split("; ")[0].partition(" or [")[0] for line in lines[:-1]] == [
        "1:1: backend: there is no backend bublewrap",
        "2:1: notify: must be true or false, without quotes",
        "3:1: egres: unknown key",
        "6:1: egress.upstream_ca: must be an absolute path",
        "7:1: egress.proxy_user: goes with proxy",
        '9:1: pins."a.example": must be an IP address with or without a port, such as 127.0.0.1:8443',
        "11:1: docker.network: the sidecar cannot use host",
        "12:1: docker.netwrk: unknown key",
    ]
    put(path, '# mine\nbackend = "bublewrap"\n')
    said = f"{path}:2:1: backend: there is no backend bublewrap; did you mean bubblewrap?"
    assert main(["check"]) == 2
    assert capsys.readouterr().out.splitlines()[0] == said
    main(["doctor"])
    assert f"config config.toml: {said}\n" in capsys.readouterr().out
    put(path, "notify = true\nnotify =\n")
    assert main(["check"]) == 2
    assert capsys.readouterr().out.startswith(f"{path}:2:")


def test_an_unknown_template_is_told_beside_other_mistakes(tree: Tree, capsys: Capture) -> None:
    tree.bottle("agent_provider: {template: clade}\nlimits: {memory: 4GB}\n")
    assert main(["check"]) == 2
    out = capsys.readouterr().out
    assert "agent_provider.template: unknown template; did you mean claude?\n" in out
    assert "limits.memory: " in out


def test_what_is_wrong_between_keys_is_told_beside_a_key_that_is_wrong_by_itself(
    tree: Tree, capsys: Capture
) -> None:
    remote = "{Name: p, Upstream: 'ssh://git@g.test/p.git'}"
    tree.bottle(
        "agent_provider: {template: command}\nlimits: {memory: 4GB}\nguard: [A, A]\n"
        f"git: {{remotes: {{g.test: {remote}}}}}\negress: {{routes: [{{host: a.test}}, {{host: a.test}}]}}\n"
    )
    tree.bottle(
        "agent_provider: {template: claude, auth_token: 5, forward_host_credentials: true}\n", name="part"
    )
    tree.bottle("agent_provider: {template: command, agrv: [x]}\n", name="misspelt")
    assert main(["check"]) == 2
    lines = [line.split(": ", 1)[1] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert [line.partition(";")[0] for line in lines] == [
        "agent_provider: template command needs argv",
        "limits.memory: is no amount of memory",
        "guard[1]: is written twice",
        'git.remotes["g.test"].IdentityFile: is missing',
        "egress.routes[1].host: repeats a.test of routes[0]",
        "agent_provider.agrv: unknown key",
        "agent_provider.auth_token: must be text, and this is a number",
        "agent_provider.forward_host_credentials: is for template codex only, and this is claude",
    ]


def test_what_a_credential_cannot_be_read_from_is_a_warning(
    tree: Tree, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = f"{{Name: p, Upstream: 'ssh://git@g.test/p.git', IdentityFile: {tmp_path}/no-key}}"
    bottle = tree.bottle(
        f"agent_provider:\n  template: claude\n  token_file: {tmp_path}/token\n"
        f"git:\n  remotes:\n    g.test: {remote}\n"
    )
    other = tree.bottle("agent_provider: {template: claude, token_command: [no-such-vault, get]}\n", "other")
    assert main(["check"]) == 0
    err = capsys.readouterr().err
    assert f"{bottle}:2:1: agent_provider.token_file ({tmp_path}/token) cannot be read" in err
    assert f"{bottle}:7:5: git.remotes.g.test: IdentityFile {tmp_path}/no-key" in err
    assert f"{other}:2:1: agent_provider.token_command: there is no program no-such-vault" in err
    (tmp_path / "token").write_text("one\ntwo marked-token\n")
    (tmp_path / "token").chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "no-key"], check=True)
    (tmp_path / "no-such-vault").write_text("#!/bin/sh\ntouch ran\n")
    (tmp_path / "no-such-vault").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert main(["check"]) == 0
    err = capsys.readouterr().err
    assert "token_file" in err, "it holds two lines"
    assert "holds more than one line" in err
    assert "marked-token" not in err
    assert "IdentityFile" not in err
    assert "no-such-vault" not in err
    assert not (tree.cwd / "ran").exists()


def test_an_empty_home_names_init(tree: Tree, capsys: Capture) -> None:
    for command, code in ((["check"], 0), (["list"], 0), (["list", "agents"], 0), (["doctor"], None)):
        ended = main(command)
        assert code is None or ended == code
        assert "bot-bottle init" in capsys.readouterr().out, command


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("GH_TOKEN", "ghp_" + "a1B2c3D4e5F6" * 3, True),
        ("DATABASE_URL", "postgres://app:" + "v9Qz7Lm2xKp4" + "@db.internal/app", True),
        ("DATABASE_URL", "postgres://app:password@localhost/app", False),
        ("ASKED", "?paste ghp_" + "a1B2c3D4e5F6" * 3, False),
        ("EDITOR", "code --wait --new-window", False),
        ("PIP_INDEX_URL", "https://packages.example.com/simple/", False),
    ],
)
def test_a_literal_that_looks_like_a_credential_is_a_warning(
    tree: Tree, capsys: Capture, name: str, value: str, told: bool
) -> None:
    bottle = tree.bottle(f"env:\n  {name}: {json.dumps(value)}\n")
    assert main(["check"]) == 0
    err = capsys.readouterr().err
    assert (f"{bottle}:3:{len(name) + 5}: env.{name}: looks like a credential" in err) == told
    assert value not in err


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("48213907", True),
        ("hunter2x", True),
        ("a" * 32, True),
        ("e3b0c44298fc1c149afbf4c8", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("env", ["", "env: {PIN: '${HOST_PIN}'}\n", "env: {PIN: VALUE}\n"])
def test_a_guarded_value_that_can_be_guessed_is_a_warning(
    tree: Tree, capsys: Capture, monkeypatch: pytest.MonkeyPatch, value: str, told: bool, env: str
) -> None:
    monkeypatch.setenv("HOST_PIN" if "HOST" in env else "PIN", value)
    bottle = tree.bottle(f"{env.replace('VALUE', json.dumps(value))}guard: [PIN]\n")
    assert main(["check"]) == 0
    err = capsys.readouterr().err
    assert (f"{bottle}:{3 if env else 2}:9: guard: PIN: its value has so little in it" in err) == told
    assert not value or value not in err


def test_nothing_declared_is_nothing_wrong(tree: Tree, capsys: Capture) -> None:
    assert main(["check"]) == 0
    assert capsys.readouterr().out == (
        "0 files are right\nnothing is declared here yet; write a first agent with: bot-bottle init\n"
    )


def test_all_mistakes_of_all_files_come_at_once(tree: Tree, capsys: Capture) -> None:
    bottle = tree.bottle("egres: {}\nlimits: {pids: 1, memory: 4}\n")
    child = tree.bottle("extends: nowhere\n", name="child")
    agent = tree.agent("bottle: none-such\n")
    theirs = tree.repo_agent("bottle: child\nenv: {A: x}\n", name="theirs")
    tree.agent("bottle: child\n", name="unrelated-to-b")
    assert main(["check"]) == 2
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert [line.split(": ")[0] for line in lines[:-1]] == [
        f"{agent}:2:9",
        f"{bottle}:2:1",
        f"{bottle}:3:16",
        f"{bottle}:3:27",
        f"{child}:2:10",
        f"{theirs}:3:1",
    ]
    assert lines[-1] == "6 to mend in 4 of 5 files"


def test_programs_get_the_same_as_values(tree: Tree, capsys: Capture) -> None:
    path = tree.bottle("egress: {routes: [{host: a.example, metods: [GET]}]}\n")
    tree.bottle("", name="open").chmod(0o666)
    assert main(["check", "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert sorted(report["files"]) == sorted([str(path), str(tree.home / "bottles" / "open.md")])
    first, second = report["problems"]
    assert first == {
        "file": str(path),
        "line": 2,
        "column": 37,
        "key": "egress.routes[0].metods",
        "message": "unknown key; did you mean methods?",
    }
    assert (second["line"], "run: chmod go-w" in second["message"]) == (0, True)


def test_a_misspelt_key_is_one_mistake_and_its_beginning_says_what_was_meant(
    tree: Tree, capsys: Capture
) -> None:
    path = tree.bottle("egress: {routes: [{host: a.example, path: [/x]}]}\n")
    agent = tree.agent("botle: b\n")
    assert main(["check"]) == 2
    assert capsys.readouterr().out.splitlines()[:-1] == [
        f"{agent}:2:1: botle: unknown key; did you mean bottle?",
        f"{path}:2:37: egress.routes[0].path: unknown key; did you mean path_allowlist?",
    ]


def test_a_skill_that_is_not_there_is_found_before_a_launch(tree: Tree, capsys: Capture) -> None:
    tree.bottle("")
    path = tree.agent("bottle: b\nskills: [tdd]\n")
    assert main(["check"]) == 2
    assert capsys.readouterr().out.startswith(f"{path}:3:9: skills: there is no folder ")


@pytest.mark.parametrize("which", ["file", "folder", "kind", "relative"])
def test_paths_narrow_what_is_checked(
    tree: Tree, capsys: Capture, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tree.bottle("nonsense: 1\n")
    tree.agent("bottle: 5\n")
    tree.agent(name="good", text="bottle: fine\n")
    tree.bottle("", name="fine")
    monkeypatch.chdir(tree.home)
    chosen = {
        "file": str(path),
        "folder": str(tree.home),
        "kind": str(path.parent),
        "relative": "bottles/b.md",
    }[which]
    assert main(["check", chosen]) == 2
    out = capsys.readouterr().out
    assert f"{path}:2:1: nonsense" in out
    assert ("a.md" in out) == (which == "folder")
    assert main(["check", str(tree.home / "agents" / "good.md"), str(tree.home / "bottles" / "fine.md")]) == 0
    assert capsys.readouterr().out == "2 files are right\n"


def test_a_repository_is_checked_against_the_operators_bottles(tree: Tree, capsys: Capture) -> None:
    tree.bottle("")
    path = tree.repo_agent("bottle: c\n", name="theirs")
    for chosen in (tree.cwd, tree.cwd / ".bot-bottle", path.parent, path):
        assert main(["check", str(chosen)]) == 2
        assert capsys.readouterr().out.splitlines() == [
            f"{path}:2:9: bottle: there is no bottle 'c'; those that exist: b",
            "1 to mend in 1 of 1 file",
        ]


def test_a_routes_file(tree: Tree, capsys: Capture) -> None:
    path = put(tree.cwd / "routes.yaml", "routes:\n  - host: https://x\n")
    assert main(["check", str(path)]) == 2
    assert f"{path}:2:11: routes[0].host: holds a scheme" in capsys.readouterr().out
    put(path, "routes:\n  - host: x.example\n")
    assert main(["check", str(path)]) == 0


def test_a_file_that_no_start_reads_is_not_called_right(tree: Tree, capsys: Capture) -> None:
    theirs = tree.cwd / ".bot-bottle" / "bottles"
    theirs.mkdir(parents=True)
    odd = put(tree.home / "bottles" / "Odd.md", "---\n---\n")
    tree.agent()
    for path in (put(theirs / "x.md", "---\n---\n"), odd, tree.repo_agent()):
        assert main(["check", str(path)]) == 2
        assert f"{path}: is not read by any start" in capsys.readouterr().err


def test_a_path_may_be_written_in_a_roundabout_way(tree: Tree, capsys: Capture) -> None:
    path = tree.bottle("nonsense: 1\n")
    assert main(["check", str(path.parent / ".." / "bottles" / "." / "b.md")]) == 2
    assert capsys.readouterr().out.startswith(f"{path}:2:1: nonsense")


@pytest.mark.parametrize("name", ["missing", "README.txt", "."])
def test_what_is_no_manifest_is_a_sentence(tree: Tree, capsys: Capture, name: str) -> None:
    put(tree.cwd / "README.txt", "x")
    assert main(["check", str(tree.cwd / name)]) == 2
    assert capsys.readouterr().err.startswith(f"bot-bottle: {tree.cwd}")


def test_a_variable_in_the_place_of_the_sidecars_is_a_warning(tree: Tree, capsys: Capture) -> None:
    base = tree.bottle("env: {SSL_CERT_FILE: /my/ca.pem, no_proxy: 'localhost,127.0.0.1,::1'}\n", name="base")
    tree.bottle("extends: base\nagent_provider: {template: command, argv: [x]}\n")
    assert main(["check"]) == 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"{base}:2:22: env.SSL_CERT_FILE: replaces what leads programs to egress" in err
    assert main(["check", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["warnings"]) == 1


def test_a_route_that_asks_a_human_where_there_is_none_is_a_warning(tree: Tree, capsys: Capture) -> None:
    asking = "egress:\n  routes:\n    - {host: a.example.com, pipelock: {on_match: ask}}\n"
    path = tree.bottle(asking, name="base")
    assert main(["check"]) == 0
    err = capsys.readouterr().err
    assert (
        f"{path}:4:7: egress.routes[0]: a.example.com asks a human (on_match: ask), and without supervise"
        in err
    )
    assert err.count("\n") == 1
    tree.bottle("extends: base\nsupervise: true\n")
    assert main(["check"]) == 0
    assert "asks a human" not in capsys.readouterr().err, "a part of a bottle that has one"
