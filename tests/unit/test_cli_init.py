"""``init`` writes what passes ``check``, asks for what it cannot find, and never overwrites."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.cli import main
from bot_bottle.manifest.build import bottle_from_text
from bot_bottle.manifest.model import Manifest
from bot_bottle.manifest.starter import Answers, StarterRemote, starter_files, upstream_of
from tests.support.no_room import WORDS, no_room

Capture = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "user" / ".bot-bottle"
    project = tmp_path / "My Project 2"
    for folder in (base.parent, project):
        folder.mkdir(mode=0o755)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(base))
    monkeypatch.setenv("HOME", str(base.parent))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(project)
    return base


def answers(monkeypatch: pytest.MonkeyPatch, *lines: str) -> Terminal:
    shown = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{line}\n" for line in lines)))
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def origin(url: str) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(["git", "config", "remote.origin.url", url], check=True)


def test_without_a_question_the_usual_is_written_and_right(home: Path, capsys: Capture) -> None:
    assert main(["init", "--yes", "--provider", "claude"]) == 0
    out, err = capsys.readouterr()
    bottle, agent = (home / kind / "my-project-2.md" for kind in ("bottles", "agents"))
    assert out == f"{bottle}\n{agent}\n"
    assert "export BOT_BOTTLE_CLAUDE_OAUTH_TOKEN=..." in err
    assert "bot-bottle start my-project-2 --cwd --dry-run" in err
    assert bottle.stat().st_mode & 0o777 == 0o600
    assert main(["check"]) == 0
    made = Manifest.resolve(Path.cwd()).bottle_for("my-project-2")
    assert made.agent_provider.auth_token == "BOT_BOTTLE_CLAUDE_OAUTH_TOKEN"
    assert made.egress.routes == ()


def test_a_login_of_this_host_is_used_where_the_provider_can(home: Path) -> None:
    assert main(["init", "w", "--yes", "--provider", "codex"]) == 0
    assert main(["check"]) == 0
    assert Manifest.resolve(Path.cwd()).bottle_for("w").agent_provider.forward_host_credentials


def test_an_api_key_in_place_of_a_login(home: Path) -> None:
    for template in ("claude", "codex"):
        flags = ["--provider", template, "--api-key-var", "MY_KEY"]
        assert main(["init", template, "--yes", *flags]) == 0
        made = Manifest.resolve(Path.cwd()).bottle_for(template).agent_provider
        assert (made.api_key, made.auth_token, made.forward_host_credentials) == ("MY_KEY", "", False)
    assert main(["check"]) == 0


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_commits_are_from_whom_the_operators_git_says_and_never_the_folders(
    home: Path, capsys: Capture
) -> None:
    origin("https://git.example/me/p.git")
    subprocess.run(["git", "config", "user.name", "A Stranger"], check=True)
    assert main(["init", "nobody", "--yes"]) == 0
    assert not Manifest.resolve(Path.cwd()).bottle_for("nobody").git.user.name
    for key, value in (("user.name", 'Some "One"'), ("user.email", "bad <address>")):
        subprocess.run(["git", "config", "--global", key, value], check=True)
    remote = ["--remote", "https://git.example/me/p.git", "--remote-token-var", "GIT_TOKEN"]
    assert main(["init", "w", "--yes", *remote]) == 0
    made = Manifest.resolve(Path.cwd()).bottle_for("w").git
    assert (made.user.name, made.user.email) == ('Some "One"', "")
    assert [one.token_ref for one in made.remotes] == ["GIT_TOKEN"]
    assert main(["init", "reader", "--yes", *remote[:2]]) == 0
    assert "without a token (TokenRef) https://git.example/me/p.git can be read" in capsys.readouterr().err


def test_a_bottle_from_flags(home: Path, capsys: Capture) -> None:
    flags = ["--provider", "command", "--command", "my-agent --say 'two words'", "--host", "API.example."]
    remote = ["--remote", "git@git.example:me/p.git", "--identity-file", "~/.ssh/key"]
    assert main(["init", "worker", "--yes", *flags, "--host", "docs.example", *remote]) == 0
    made = Manifest.resolve(Path.cwd()).bottle_for("worker")
    assert made.agent_provider.argv == ("my-agent", "--say", "two words")
    assert [route.host for route in made.egress.routes] == ["api.example", "docs.example"]
    (kept,) = made.git.remotes
    assert (kept.name, kept.upstream, kept.identity_file) == (
        "p",
        "ssh://git@git.example/me/p.git",
        "~/.ssh/key",
    )
    err = capsys.readouterr().err
    assert "git.example is not in ~/.ssh/known_hosts" in err
    assert "ssh-keyscan -t ed25519 git.example shows one, to be compared with" in err
    assert "~/.ssh/key is not there yet; make it (ssh-keygen -f ~/.ssh/key) or change it" in err
    assert main(["check"]) == 0


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_questions_are_asked_until_the_answer_will_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin("https://me:hidden-token@git.example/me/p.git")
    shown = answers(
        monkeypatch,
        "Bad Name",
        "helper",
        "clade",
        "",
        "sk-ant-secret",
        "TOKEN",
        "a.example https://b",
        "a.example, b.example",
        "y",
        "ghp_hidden-token",
        "GIT_TOKEN",
    )
    assert main(["init"]) == 0
    text = shown.getvalue()
    assert "Name of the bottle and the agent [my-project-2]: " in text
    assert "is no name" in text
    assert "is no provider of this version; choose one of: claude, codex, command" in text
    assert "must be the name of a host variable, never the credential itself" in text
    assert "'https://b' holds a scheme" in text
    assert "Declare the git remote https://git.example/me/p.git? [Y/n] " in text
    made = Manifest.resolve(Path.cwd()).bottle_for("helper")
    assert made.agent_provider.auth_token == "TOKEN"
    assert [route.host for route in made.egress.routes] == ["a.example", "b.example"]
    assert made.git.remotes[0].upstream == "https://git.example/me/p.git"
    assert made.git.remotes[0].token_ref == "GIT_TOKEN"
    assert "export TOKEN=... GIT_TOKEN=..., then" in text
    written = (home / "bottles" / "helper.md").read_text()
    assert "hidden-token" not in written + text
    assert "sk-ant-secret" not in written


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_remote_that_only_the_folder_names_is_no_way_out_unasked(home: Path, capsys: Capture) -> None:
    origin("git@git.example:stranger/p.git")
    assert main(["init", "w", "--yes"]) == 0
    assert "to do so add --remote ssh://git@git.example/stranger/p.git" in capsys.readouterr().err
    assert Manifest.resolve(Path.cwd()).bottle_for("w").git.remotes == ()


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_a_host_key_that_ssh_knows_is_pinned(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    key = " ".join((tmp_path / "k.pub").read_text().split()[:2])
    known = tmp_path / "known_hosts"
    known.write_text(f"[git.example]:2222 {key}\n")
    real, fake = shutil.which("ssh-keygen"), tmp_path / "bin" / "ssh-keygen"
    fake.parent.mkdir()
    # ssh-keygen looks in the account's home, whatever HOME says.
    fake.write_text(f'#!/bin/sh\nexec {real} "$@" -f {known}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    assert main(["init", "w", "--yes", "--remote", "ssh://git@git.example:2222/p.git"]) == 0
    (remote,) = Manifest.resolve(Path.cwd()).bottle_for("w").git.remotes
    assert remote.known_host_key == key


@pytest.mark.parametrize("kind", ["bottles", "agents"])
def test_nothing_is_overwritten(home: Path, capsys: Capture, kind: str) -> None:
    path = home / kind / "w.md"
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere")
    assert main(["init", "w", "--yes"]) == 2
    assert f"{path} is there already" in capsys.readouterr().err
    assert path.is_symlink()
    assert [found for found in home.rglob("*.md") if found != path] == []


def test_where_it_could_not_be_used_nothing_is_left(home: Path, capsys: Capture) -> None:
    (home / "bottles").mkdir(parents=True)
    (home / "bottles").chmod(0o777)
    assert main(["init", "w", "--yes"]) == 2
    assert "can be written by every user" in capsys.readouterr().err
    assert list(home.rglob("*w.md*")) == []


def test_a_full_disk_names_the_file_and_leaves_nothing(home: Path, capsys: Capture) -> None:
    with no_room():
        assert main(["init", "w", "--yes"]) == 2
    assert capsys.readouterr().err == f"bot-bottle: {home}/bottles/w.md: cannot be written ({WORDS})\n"
    assert [path for path in home.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["w"], "there is no terminal to ask on; pass --yes"),
        (["W", "--yes"], "is no name"),
        (["w", "--yes", "--provider", "other"], "is no provider of this version"),
        (["w", "--yes", "--provider", "codex", "--token-var", "T"], "--token-var does not go with"),
        (["w", "--yes", "--provider", "codex", "--token-var", "T"], "with --api-key-var"),
        (["w", "--yes", "--api-key-var", "sk-hidden-1"], "--api-key-var must be the name of a host variable"),
        (["w", "--yes", "--provider", "command", "--api-key-var", "K"], "--api-key-var does not go with"),
        (["w", "--yes", "--api-key-var", "K", "--token-var", "T"], "both name a credential"),
        (["w", "--yes", "--remote", "git@h.example:p", "--remote-token-var", "T"], "is for an https remote"),
        (["w", "--yes", "--provider", "command"], "--command is missing"),
        (["w", "--yes", "--provider", "command", "--command", " "], "--command names no program"),
        (["w", "--yes", "--provider", "command", "--command", "'"], "--command No closing quotation"),
        (["w", "--yes", "--command", "x"], "--command does not go with the provider claude"),
        (["w", "--yes", "--token-var", "sk-ant-hidden-1"], "--token-var must be the name of a host variable"),
        (["w", "--yes", "--host", "*"], "--host '*' may use"),
        (["w", "--yes", "--remote", "file:///x"], "--remote is no upstream"),
        (
            ["w", "--yes", "--remote", "ssh://git@h.example/p", "--identity-file", "k"],
            "--identity-file must be",
        ),
    ],
)
def test_flags_that_will_not_do(home: Path, capsys: Capture, arguments: list[str], said: str) -> None:
    assert main(["init", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "hidden" not in err
    assert not home.exists()


def test_questions_that_are_not_answered_write_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "w")
    assert main(["init"]) == 2
    assert not home.exists()


@pytest.mark.parametrize(
    ("url", "upstream"),
    [
        ("git@h.example:me/p.git", "ssh://git@h.example/me/p.git"),
        ("ssh://git@h.example/p", "ssh://git@h.example/p"),
        ("https://t0ken@h.example/p.git", "https://h.example/p.git"),
        ("https://a:b@h.example:8443/p", "https://h.example:8443/p"),
        ("http://h.example/p", ""),
        ("/srv/p.git", ""),
        ("file:///srv/p.git", ""),
        ("ext::sh -c id", ""),
        ("", ""),
    ],
)
def test_remotes_as_git_writes_them(url: str, upstream: str) -> None:
    assert upstream_of(url) == upstream


WORD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(argv=st.lists(WORD, min_size=1, max_size=4))
def test_any_command_line_survives_being_written(argv: list[str]) -> None:
    answers = Answers(
        name="w",
        template="command",
        argv=tuple(argv),
        hosts=("a.example", "*.b.example"),
        remote=StarterRemote(upstream="ssh://git@h.example/me/p.git", identity_file="~/.ssh/k"),
    )
    text, _ = starter_files(answers)
    provider = bottle_from_text("w", Path("w.md"), text).layer.provider
    assert provider is not None
    assert provider.value.argv == tuple(argv)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--no-remote", "--remote-token-var", "TOK"], "--remote-token-var is for an https remote, and none"),
        (["--remote-token-var", "TOK"], "--remote-token-var is for an https remote, and none"),
        (["--api-key-var", "KEY", "--command", "echo hi"], "--command does not go with the provider claude"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    home: Path, capsys: Capture, options: list[str], said: str
) -> None:
    assert main(["init", "--yes", "--provider", "claude", *options]) == 2
    assert said in capsys.readouterr().err
    assert not list(home.glob("*/*.md"))
