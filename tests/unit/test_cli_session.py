"""``start`` and ``resume`` from arguments to exit code, on a backend that only records."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bot_bottle import bottle_state
from bot_bottle.backend import launch, registry
from bot_bottle.cli import main, terminal
from tests.support.scripted_backend import ScriptedBackend, ScriptedBottle

REAL = "the-real-credential"


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "bb"
    for folder in ("bottles", "agents"):
        (base / folder).mkdir(parents=True, mode=0o755)
    base.chmod(0o700)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(base))
    monkeypatch.delenv(registry.ENV_BACKEND, raising=False)
    monkeypatch.delenv("BOT_BOTTLE_DRY_RUN", raising=False)
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    ScriptedBackend.reset()
    place = "tests.support.scripted_backend:ScriptedBackend"
    monkeypatch.setattr(registry, "_BACKENDS", {"scripted": place})
    write(
        base / "bottles" / "b.md",
        "---\nagent_provider: {template: command, argv: [my-agent]}\nenv: {EDITOR: vi}\negress:\n  routes:\n"
        "    - host: api.example\n      path_allowlist: [/v1/]\n"
        "      auth: {scheme: Bearer, token_ref: API_TOKEN}\n---\n",
    )
    write(base / "agents" / "a.md", "---\nbottle: b\n---\n")
    monkeypatch.setenv("API_TOKEN", REAL)
    return base


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o644)
    return path


def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> Terminal:
    """Give the command a terminal on which ``text`` is typed; what it shows is in the result."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(text))
    monkeypatch.setattr(sys, "stderr", shown)
    return shown


def test_a_launch_shows_the_preflight_runs_and_leaves_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", "a", "--yes", "--headless"]) == 0
    (plan,) = ScriptedBackend.launched
    assert plan.provision.argv == ("my-agent",)
    assert plan.secrets["API_TOKEN"].reveal() == REAL
    assert bottle_state.list_states() == ()
    out, err = capsys.readouterr()
    assert out == ""
    for said in (
        "agent       : a (",
        "bottle      : b (",
        "backend     : scripted (the default); nothing at all",
        "provider    : command",
        "env         : EDITOR",
        "api.example [auth:Bearer API_TOKEN] paths /v1/",
        "the agent ended with exit code 0; its home and workspace were removed (--keep keeps them)\n",
        "memory 4 GiB: holds (cgroup v2)",
        "cpu 2: NOT HELD (no cgroup)",
        "workspace   : empty",
    ):
        assert said in err
    assert REAL not in err
    assert "vi" not in [word for line in err.splitlines() for word in line.split()]


def test_config_can_keep_the_work_of_every_start(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(home / "config.toml", "keep = true\n")
    assert main(["start", "a", "--yes", "--headless", "--no-keep"]) == 0
    assert bottle_state.list_states() == ()
    assert main(["start", "a", "--yes", "--headless"]) == 0
    (state,) = bottle_state.list_states()
    assert "(--cwd copies the current folder in), kept\n" in capsys.readouterr().err
    assert main(["resume", state.identity, "--yes", "--headless"]) == 0
    assert [kept.status for kept in bottle_state.list_states()] == ["preserved"]
    assert main(["resume", state.identity, "--yes", "--headless", "--no-keep"]) == 0
    assert bottle_state.list_states() == ()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_folder_that_work_cannot_come_home_to_is_told_of(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["start", "a", "--cwd", "--dry-run"]
    assert main(asked) == 0
    assert "is no git repository: `diff` shows its work, `pull` cannot bring it" in capsys.readouterr().out
    subprocess.run(["git", "init", "-q", "."], check=True)
    assert main(asked) == 0
    assert "`pull`" not in capsys.readouterr().out
    Path("part").mkdir()
    monkeypatch.chdir("part")
    assert main(asked) == 0
    assert "part is a part of a repository and comes without its history" in capsys.readouterr().out
    assert main([*asked[:2], "--no-cwd", "--dry-run"]) == 0
    assert "`pull`" not in capsys.readouterr().out


def test_an_agents_exit_code_passes_through_and_its_state_is_kept(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ScriptedBackend.outcome = 7
    assert main(["start", "a", "--yes", "--headless"]) == 7
    (state,) = bottle_state.list_states()
    assert state.status == "preserved"
    assert f"bot-bottle resume {state.identity}" in capsys.readouterr().err


def test_ctrl_c_is_130_in_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ScriptedBackend.outcome = KeyboardInterrupt()
    assert main(["start", "a", "--yes", "--headless"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 1), ("\n", 1), ("", 1), ("yep\n", 1)]
)
def test_only_a_clear_yes_starts(home: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int) -> None:
    shown = answer(monkeypatch, typed)
    assert main(["start", "a", "--headless"]) == code
    assert len(ScriptedBackend.launched) == (1 if code == 0 else 0)
    assert "[y/N]" in shown.getvalue()
    assert bottle_state.list_states() == ()


def test_without_a_terminal_and_without_yes_nothing_starts(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_terminal(monkeypatch)
    assert main(["start", "a"]) == 2
    assert "pass --yes" in capsys.readouterr().err
    assert ScriptedBackend.launched == []


@pytest.mark.parametrize("by", ["flag", "variable"])
def test_a_dry_run_prints_the_preflight_and_touches_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    no_terminal(monkeypatch)
    write(
        home / "bottles" / "b.md",
        "---\nagent_provider: {template: command, argv: [x]}\nenv: {K: '?key'}\n---\n",
    )
    if by == "variable":
        monkeypatch.setenv("BOT_BOTTLE_DRY_RUN", "1")
    before = sorted(home.rglob("*"))
    assert main(["start", "a", "--dry-run"] if by == "flag" else ["start", "a"]) == 0
    assert "env         : K" in capsys.readouterr().out
    assert sorted(home.rglob("*")) == before
    assert ScriptedBackend.launched == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["start", "b"], 2, "there is no agent 'b'; those that exist: a"),
        (["start", "a", "--prompt", "x", "--yes"], 2, "--prompt goes with --headless"),
        (["start", "a", "--yes", "--backend", "docker"], 2, "backend 'docker' is not in this version"),
        (["start"], 2, "Missing argument"),
        (["start", "a", "--nonsense"], 2, "No such option"),
        (["resume", "a-zzzzz"], 2, "there is no identity 'a-zzzzz'; those that exist: none"),
        (["resume", "../../etc"], 2, "there is no identity '../../etc'"),
    ],
)
def test_bad_arguments_are_one_sentence(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(arguments) == code
    assert said in capsys.readouterr().err
    assert ScriptedBackend.launched == []


def test_an_unset_credential_fails_before_anything_starts_and_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("API_TOKEN")
    assert main(["start", "a", "--yes"]) == 2
    err = capsys.readouterr().err
    assert "not set" in err
    assert "API_TOKEN" in err
    assert bottle_state.list_states() == ()
    assert ScriptedBackend.launched == []


def test_a_repo_that_is_no_remote_is_told_first_and_all_that_is_missing_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("API_TOKEN")
    monkeypatch.delenv("GIT_TOKEN", raising=False)
    monkeypatch.delenv("HOST_X", raising=False)
    text = (home / "bottles" / "b.md").read_text().replace("EDITOR: vi", "EDITOR: vi, OTHER: '${HOST_X}'")
    remotes = (
        "git: {remotes: {h.example: {Name: p, Upstream: 'https://h.example/p.git', TokenRef: GIT_TOKEN}, "
        "i.example: {Name: q, Upstream: 'https://i.example/q.git', TokenRef: GIT_TOKEN_OF_I}, "
        "j.example: {Name: r, Upstream: 'ssh://git@j.example/r.git', IdentityFile: /nonexistent/key}}}"
    )
    guard = "guard: [NOT_EXPORTED]"
    write(home / "bottles" / "b.md", text.replace("env:", f"{remotes}\n{guard}\nenv:"))
    assert main(["start", "a", "--yes", "--headless", "--repo", "nonsense"]) == 2
    err = capsys.readouterr().err
    assert "--repo nonsense: is no remote of bottle b" in err
    assert "p (https://h.example/p.git), q (https://i.example/q.git)" in err
    assert "API_TOKEN" not in err
    monkeypatch.chdir("/")
    assert main(["start", "a", "--yes", "--headless", "--cwd"]) == 2
    err = capsys.readouterr().err
    told = ("GIT_TOKEN is", "GIT_TOKEN_OF_I is", "/nonexistent/key", "API_TOKEN", "HOST_X", "NOT_EXPORTED")
    assert [name for name in (*told, "--cwd copies a project folder") if name not in err] == []
    assert ScriptedBackend.launched == []


def test_a_repo_is_named_as_its_remote_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TOKEN", "marked-git-token")
    text = (home / "bottles" / "b.md").read_text()
    remotes = ", ".join(
        f"{name}.example: {{Name: {name[0]}, Upstream: 'https://{name}.example/{name}.git', "
        "TokenRef: GIT_TOKEN}"
        for name in ("one", "two")
    )
    write(home / "bottles" / "b.md", text.replace("env:", f"git: {{remotes: {{{remotes}}}}}\nenv:"))
    for named in ("t", "two.example", "https://two.example/two.git"):
        ScriptedBackend.launched.clear()
        assert main(["start", "a", "--yes", "--headless", "--repo", named]) == 0
        assert [plan.spec.repo for plan in ScriptedBackend.launched] == ["https://two.example/two.git"]


@pytest.mark.parametrize("key", ["auth_token", "api_key"])
def test_a_providers_credential_that_is_not_set_is_told_by_its_key_and_place(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    monkeypatch.delenv("MY_OWN", raising=False)
    write(home / "bottles" / "b.md", f"---\nagent_provider:\n  template: claude\n  {key}: MY_OWN\n---\n")
    assert main(["start", "a", "--yes", "--headless", "--prompt", "go"]) == 2
    err = capsys.readouterr().err
    assert (
        f"MY_OWN (the credential for api.anthropic.com, declared in agent_provider.{key}, bottles/b.md:2)"
        in err
    )
    assert "write export MY_OWN=... before starting" in err


def test_the_last_words_tell_of_a_stash(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_any: object, **_more: object) -> int:
        log = ScriptedBackend.launched[-1].state_dir / "workspace/.git/logs/refs/stash"
        if len(ScriptedBackend.launched) > 1:
            log.parent.mkdir(parents=True)
            log.write_text("")
        return 3

    monkeypatch.setattr("tests.support.scripted_backend.ScriptedBottle.exec_agent", work)
    for told in (False, True):
        assert main(["start", "a", "--yes", "--headless"]) == 3
        assert ("--from 'stash@{0}'" in capsys.readouterr().err) is told


def test_a_bottle_with_a_credential_is_told_of_to_the_operators_command(home: Path, tmp_path: Path) -> None:
    write(home / "config.toml", 'on_request = ["/bin/true"]\n')
    assert main(["start", "a", "--yes", "--headless"]) == 0
    write(home / "bottles" / "b.md", "---\nagent_provider: {template: command, argv: [x]}\n---\n")
    assert main(["start", "a", "--yes", "--headless"]) == 0
    assert [plan.on_request for plan in ScriptedBackend.launched] == [("/bin/true",), ()]


def test_a_secret_that_must_be_asked_for_fails_unattended_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_terminal(monkeypatch)
    write(
        home / "bottles" / "b.md",
        "---\nagent_provider: {template: command, argv: [x]}\nenv: {K: '?key'}\n---\n",
    )
    assert main(["start", "a", "--yes", "--headless"]) == 2
    err = capsys.readouterr().err
    assert "env.K" in err
    assert "bottle      :" not in err
    assert ScriptedBackend.launched == []
    answer(monkeypatch, "y\n")
    assert main(["start", "a", "--headless"]) == 2


@pytest.mark.parametrize(("typed", "asked"), [("y\n", ["K"]), ("n\n", [])])
def test_a_secret_is_asked_for_after_the_yes(
    home: Path, monkeypatch: pytest.MonkeyPatch, typed: str, asked: list[str]
) -> None:
    write(
        home / "bottles" / "b.md",
        "---\nagent_provider: {template: command, argv: [x, '{prompt_file}']}\n"
        "env: {K: '?key', L: x, BOT_BOTTLE_PROMPT_FILE: '?overridden'}\n---\n",
    )
    shown = answer(monkeypatch, typed)
    names: list[str] = []

    def ask(name: str, message: str) -> str:
        assert shown.getvalue().endswith("Start this bottle? [y/N] ")
        names.append(name)
        return f"<{message}>"

    monkeypatch.setattr(terminal, "ask_secret", ask)
    main(["start", "a"])
    assert names == asked
    assert [plan.guest_env["K"] for plan in ScriptedBackend.launched] == ["<key>"] * len(asked)
    assert "<key>" not in shown.getvalue()


def test_a_variable_in_the_place_of_the_sidecars_is_told_before_a_launch(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(
        home / "bottles" / "b.md",
        "---\nagent_provider: {template: command, argv: [x]}\nenv: {EDITOR: vi, HTTPS_PROXY: 'http://p:1'}\n---\n",
    )
    assert main(["start", "a", "--dry-run"]) == 0
    note = "note        : env.HTTPS_PROXY: replaces what leads programs to egress"
    assert note in capsys.readouterr().out
    assert main(["info", "a"]) == 0
    out = capsys.readouterr().out
    assert note in out
    assert out.rstrip().endswith("<- bottles/b.md:3")


def test_a_machine_that_cannot_is_doctors_sentence_and_exit_3(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ScriptedBackend.refusal = "no namespaces here; run: sysctl this"
    assert main(["start", "a", "--yes"]) == 3
    assert "bot-bottle: no namespaces here; run: sysctl this" in capsys.readouterr().err
    assert bottle_state.list_states() == ()


def test_every_mistake_of_a_manifest_is_printed_on_its_own_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(home / "bottles" / "b.md", "---\nenvv: {}\nlimits: {pids: 0}\n---\n")
    assert main(["start", "a", "--yes"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith(f"{path}:2:1: envv: ")
    assert lines[2].startswith(f"{path}:3:16: limits.pids: ")


def test_a_repositorys_words_cannot_write_to_the_terminal(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "project" / ".bot-bottle" / "agents"
    folder.mkdir(parents=True)
    write(folder / "evil.md", "---\nbottle: b\n---\n\x1b[2J\x1b]0;owned\x07 do it\n")
    write(folder / "bad.md", '---\nbottle: b\n"\\e[2J": 1\n---\n')
    write(folder / "x\x1b[2J.md", "")
    assert main(["start", "evil", "--dry-run"]) == 0
    assert main(["start", "bad", "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "from this repository" in captured.out


def preserved(home: Path) -> str:
    ScriptedBackend.outcome = 1
    main(["start", "a", "--yes", "--headless"])
    ScriptedBackend.reset()
    (state,) = bottle_state.list_states()
    return state.identity


def test_resume_goes_on_with_the_same_identity_on_the_recorded_backend(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = preserved(home)
    assert main(["resume", identity, "--yes", "--headless", "--prompt", "go on"]) == 0
    (plan,) = ScriptedBackend.launched
    assert (plan.identity, plan.spec.identity, plan.backend_name) == (identity, identity, "scripted")
    assert plan.spec.prompt == "go on"
    assert bottle_state.list_states() == ()
    assert "as the last session left it" in capsys.readouterr().err


def test_what_is_recorded_of_a_resumed_bottle_is_of_its_last_session(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = preserved(home)
    first = bottle_state.require_metadata(identity)
    assert first.ended
    bottle_state.write_metadata(replace(first, started_at="2026-01-01T00:00:00+00:00"))
    during: list[bottle_state.BottleMetadata] = []

    def look(*_args: object, **_more: object) -> int:
        during.append(bottle_state.require_metadata(identity))
        raise SystemExit(143)

    monkeypatch.setattr(ScriptedBottle, "exec_agent", look)
    notes: list[tuple[object, ...]] = []
    monkeypatch.setattr(launch, "note_session", lambda *said: notes.append(said))
    with pytest.raises(SystemExit):
        main(["resume", identity, "--yes", "--headless"])
    assert (during[0].exit_code, during[0].ended) == (None, "")
    assert during[0].started_at > "2026-11"
    assert notes == [(identity, "ended")]  # a session that `stop` ends is on the record too
    assert bottle_state.require_metadata(identity).ended == "the session was ended by SIGTERM"
    assert "the session was cut short; its home and workspace are kept" in capsys.readouterr().err


def test_resume_shows_what_has_changed_in_the_manifest_before_it_holds(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = preserved(home)
    assert main(["resume", identity, "--dry-run"]) == 0
    assert "changed since" not in capsys.readouterr().out
    text = (home / "bottles" / "b.md").read_text()
    text = text.replace("host: api.example", "host: other.example").replace("EDITOR: vi", "EDITOR: secret-ed")
    write(home / "bottles" / "b.md", text.replace("env:", "limits: {pids: 99}\nenv:"))
    shown = answer(monkeypatch, "n\n")
    assert main(["resume", identity]) == 1
    said, _, rest = shown.getvalue().partition("changed since this bottle last ran")
    changes = rest.partition("Start this bottle?")[0]
    assert "other.example" in said
    assert [line.split(";")[0] for line in changes.splitlines()[1:]] == [
        "  - api.example",
        "  + other.example",
        "  env.EDITOR: changed",
        "  limits.pids: added, 99",
    ]
    assert "secret-ed" not in changes
    assert ScriptedBackend.launched == []
    monkeypatch.undo()


def test_resume_of_an_old_state_without_a_backend_means_docker(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = preserved(home)
    path = home / "state" / identity / "metadata.json"
    old = json.loads(path.read_text())
    del old["backend"]
    path.write_text(json.dumps(old))
    assert main(["resume", identity, "--yes", "--headless"]) == 2
    assert "backend 'docker' is not in this version" in capsys.readouterr().err


def test_resume_holds_to_the_manifest_as_it_is_now(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = preserved(home)
    (home / "agents" / "a.md").unlink()
    assert main(["resume", identity, "--yes"]) == 2
    assert "there is no agent 'a'" in capsys.readouterr().err
    assert [state.identity for state in bottle_state.list_states()] == [identity]


def test_resume_of_a_running_bottle_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = preserved(home)
    with bottle_state.hold_lock(identity):
        assert main(["resume", identity, "--yes"]) == 2
    assert "is running; end its session first" in capsys.readouterr().err


def test_resume_lists_what_could_be_resumed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = preserved(home)
    capsys.readouterr()
    assert main(["resume", "a-zzzzz"]) == 2
    assert identity in capsys.readouterr().err


@pytest.mark.parametrize(
    ("declared", "flags", "copied"),
    [
        ("copy", [], True),
        ("copy", ["--no-cwd"], False),
        ("empty", [], False),
        ("empty", ["--cwd"], True),
    ],
)
def test_the_bottles_workspace_holds_unless_the_command_line_says_otherwise(
    home: Path, capsys: pytest.CaptureFixture[str], *, declared: str, flags: list[str], copied: bool
) -> None:
    path = home / "bottles" / "b.md"
    write(path, path.read_text().replace("---\n", f"---\nworkspace: {declared}\n", 1))
    assert main(["start", "a", "--dry-run", *flags]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "workspace  " in line]
    assert ("a private copy of" in line) == copied
    assert ("<- bottles/b.md:2" in line) == (not flags)
    assert main(["start", "a", "--yes", "--headless", *flags]) == 0
    assert ScriptedBackend.launched[-1].spec.copy_cwd == copied


def test_an_agents_identity_and_skills_enter_the_bottle(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skill = tmp_path / ".claude" / "skills" / "tdd"
    skill.mkdir(parents=True)
    write(skill / "SKILL.md", "# Test first\n")
    skill.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    write(home / "bottles" / "b.md", "---\ngit: {user: {name: B, email: b@example.com}}\n---\n")
    write(home / "agents" / "a.md", "---\nbottle: b\nskills: [tdd]\ngit: {user: {name: A}}\n---\n")
    assert main(["start", "a", "--yes", "--headless", "--prompt", "x"]) == 0
    files = {file.path: file.content for file in ScriptedBackend.launched[0].provision.files}
    assert files["/home/agent/.gitconfig"] == b'[user]\n\tname = "A"\n\temail = "b@example.com"\n'
    assert files["/home/agent/.claude/skills/tdd/SKILL.md"] == b"# Test first\n"
    err = capsys.readouterr().err
    assert "skills      : tdd  <- agents/a.md:3" in err
    assert "git identity: A (agent), b@example.com (bottle)" in err
    (skill / "SKILL.md").chmod(0o666)
    assert main(["start", "a", "--dry-run"]) == 2
    assert "a.md:3:9: skills: " in capsys.readouterr().err
    assert len(ScriptedBackend.launched) == 1


def test_a_login_that_is_missing_ends_a_start_before_anything_began(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODEX_HOME", str(home / "nothing-here"))
    provider = "{template: codex, forward_host_credentials: true}"
    write(home / "bottles" / "b.md", f"---\nagent_provider: {provider}\n---\n")
    assert main(["check"]) == 0
    assert main(["info", "a"]) == 0
    assert "chatgpt.com [auth:Bearer" in capsys.readouterr().out
    assert main(["start", "a", "--yes", "--headless", "--prompt", "x"]) == 2
    assert "auth.json does not exist: Codex is not logged in on this host" in capsys.readouterr().err
    assert ScriptedBackend.launched == []
    assert bottle_state.list_states() == ()
