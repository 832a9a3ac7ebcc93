"""The commands that only look or tidy up, and what the command line itself promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle import audit, bottle_state, paths
from bot_bottle.backend import registry
from bot_bottle.backend.base import Leftover, ProbeResult
from bot_bottle.bottle_state import BottleMetadata
from bot_bottle.cli import commands, main
from bot_bottle.cli.proxy import parse_listen
from bot_bottle.errors import UsageError
from tests.support.scripted_backend import ScriptedBackend

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "bb"
    for folder in ("bottles", "agents"):
        (base / folder).mkdir(parents=True, mode=0o755)
    base.chmod(0o700)
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(base))
    monkeypatch.chdir(tmp_path)
    ScriptedBackend.reset()
    place = "tests.support.scripted_backend:ScriptedBackend"
    monkeypatch.setattr(registry, "_BACKENDS", {"scripted": place})
    return base


def state(identity: str, *, kept: bool = False) -> Path:
    metadata = BottleMetadata(
        identity=identity,
        agent_name=identity[:-6],
        bottle_name="b",
        backend="scripted",
        started_at="2026-11-23T10:00:00+00:00",
        exit_code=1 if kept else None,
    )
    folder = bottle_state.create_state(metadata)
    if kept:
        bottle_state.mark_preserved(identity)
    return folder


def declare(
    home: Path, bottle: str, agent: str = "bottle: b\n", body: str = "Read only.\nSecond line."
) -> None:
    for path, text in (
        (home / "bottles" / "b.md", f"---\n{bottle}---\n"),
        (home / "agents" / "a.md", f"---\n{agent}---\n{body}\n"),
    ):
        path.write_text(text)
        path.chmod(0o644)


# -- list ------------------------------------------------------------------------------------------------


def test_list_shows_what_runs_and_what_is_kept(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state("one-aaaaa", kept=True)
    state("two-bbbbb")
    with bottle_state.hold_lock("two-bbbbb"):
        assert main(["list"]) == 0
        head, one, two = capsys.readouterr().out.splitlines()
        assert head.split() == ["IDENTITY", "STATUS", "AGENT", "BACKEND", "STARTED", "EXIT"]
        assert one.split() == ["one-aaaaa", "preserved", "one", "scripted", "2026-11-23T10:00:00+00:00", "1"]
        assert two.split()[:2] == ["two-bbbbb", "running"]
        assert main(["list", "active"]) == 0
        head, two = capsys.readouterr().out.splitlines()
        assert head.split() == ["IDENTITY", "STATUS", "AGENT", "BACKEND", "STARTED", "EXIT"]
        assert two.split() == ["two-bbbbb", "running", "two", "scripted", "2026-11-23T10:00:00+00:00"]
        assert main(["list", "active", "--json"]) == 0
        assert [entry["identity"] for entry in json.loads(capsys.readouterr().out)] == ["two-bbbbb"]
    assert main(["list", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert [(e["identity"], e["status"], e["exit_code"]) for e in entries] == [
        ("one-aaaaa", "preserved", 1),
        ("two-bbbbb", "unfinished", None),
    ]


def test_list_of_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "no bottle is running or kept\n"
    assert main(["list", "active"]) == 0
    assert capsys.readouterr().out == "no bottle is running\n"
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_list_survives_a_state_that_cannot_be_read(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state("one-aaaaa") / "metadata.json").write_text("{")
    for name in ("metadata.json", "lock"):
        path = state(f"two-{name[:4]}x") / name
        path.unlink(missing_ok=True)
        path.symlink_to(path.name)
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == [
        "IDENTITY",
        "one-aaaaa",
        "two-lockx",
        "two-metax",
    ]


def test_list_agents_and_bottles_with_the_broken_ones(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(home, "nonsense: 1\n")
    assert main(["list", "agents"]) == 0
    assert capsys.readouterr().out == "a\tb\n"
    assert main(["list", "bottles"]) == 0
    assert capsys.readouterr().out.startswith("b\tbroken: ")
    assert main(["list", "bottles", "--json"]) == 0
    assert "unknown key" in json.loads(capsys.readouterr().out)[0]["error"]


_IMPORTS = """
import sys
from bot_bottle.cli import main
assert main(["list"]) == 0
print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def test_list_imports_nothing_it_does_not_need(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stderr.split())
    heavy = {"pydantic", "yaml", "cryptography", "asyncio", "uvloop", "httptools", "rich", "ssl", "tarfile"}
    assert "click" in loaded
    assert loaded & heavy == set()


# -- info ------------------------------------------------------------------------------------------------


def test_info_of_an_agent_shows_names_and_never_values(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(
        home,
        "env: {EDITOR: hidden-literal, SECRET: '?ask me'}\nagent_provider: {auth_token: OAUTH}\n"
        "egress: {routes: [{host: a.example, methods: [GET]}]}\nlimits: {pids: 64, memory: 1.5GiB}\n",
    )
    assert main(["info", "a"]) == 0
    out = capsys.readouterr().out
    assert "env         : EDITOR, SECRET  <- bottles/b.md\n" in out
    assert "DISABLE_TELEMETRY  <- provider claude\n" in out
    assert "Read only. (23 characters)" in out
    assert "a.example methods GET  <- bottles/b.md:4\n" in out
    assert (
        "api.anthropic.com [auth:Bearer OAUTH] [content rules off]  <- provider claude (bottles/b.md:3)\n"
        in out
    )
    assert "limits      : memory 1536MiB  <- bottles/b.md:5\n" in out
    assert "              pids 64  <- bottles/b.md:5\n" in out
    assert "hidden-literal" not in out
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in out
    assert main(["info", "a", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["agent"]["origin"] == "operator"
    assert described["limits"]["pids"] == 64
    assert "hidden-literal" not in json.dumps(described)


def test_info_shows_each_setting_with_its_file_and_what_cannot_be_had_yet(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "bottles" / "base.md").write_text(
        "---\nagent_provider: {template: codex, forward_host_credentials: true, dockerfile: /d}\n"
        "git: {user: {name: Base, email: b@example.com}, remotes: {h.example: {Name: p, "
        "Upstream: 'https://h.example/p.git'}}}\nsupervise: true\nworkspace: copy\n---\n"
    )
    (home / "bottles" / "base.md").chmod(0o644)
    declare(
        home,
        "extends: base\nenv: {LOCAL: x, HOST: '${HOST_X}', KEY: '?'}\n"
        "egress: {add_routes: [{host: a.example}]}\n",
        "bottle: b\ngit: {user: {name: Own}}\n",
    )
    assert main(["info", "a"]) == 0
    out = capsys.readouterr().out
    for said in (
        "b.md), extends base\n",
        "provider    : codex [dockerfile /d] [forwards the host's login to the sidecar]",
        "env         : HOST, KEY, LOCAL  <- bottles/b.md\n",
        "git identity: Own (agent), b@example.com (bottle)  <- agents/a.md:3, bottles/base.md:3\n",
        "git gate    : p -> https://h.example/p.git  <- bottles/base.md:3\n",
        "egress      : a.example  <- bottles/b.md:4\n",
        "[auth:Bearer CODEX_HOST_CREDENTIAL_TOKEN] [content rules off]",
        "supervise   : on  <- bottles/base.md:4\n",
        "workspace   : copy  <- bottles/base.md:5\n",
        "the git gate is not in this version: nothing can be pushed",
        "nobody can be asked at run time in this version",
        "no backend of this version builds images",
    ):
        assert said in out, said
    assert main(["info", "a", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    bottle = described["bottle"]
    assert bottle["extends"] == ["base"]
    assert bottle["env"] == {"LOCAL": "literal", "HOST": "host:HOST_X", "KEY": "asked"}
    assert bottle["agent_provider"]["forward_host_credentials"] is True
    assert bottle["git"]["user"] == {"name": "Own", "email": "b@example.com"}
    assert bottle["git"]["remotes"][0]["upstream"] == "https://h.example/p.git"
    assert bottle["sources"]["git.user.email"] == {
        "file": str(home / "bottles" / "base.md"),
        "line": 3,
        "column": 33,
    }
    assert bottle["sources"]["git.user.name"]["file"] == str(home / "agents" / "a.md")
    assert (bottle["supervise"], bottle["workspace"]) == (True, "copy")
    assert len(described["notes"]) == 3


def test_each_effective_setting_has_a_place_in_both_forms(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "bottles" / "base.md").write_text(
        "---\nenv: {A: x}\nagent_provider: {template: command, argv: [run]}\nlimits:\n  memory: 1GiB\n"
        "  pids: 64\nsupervise: true\nworkspace: copy\n---\n"
    )
    (home / "bottles" / "base.md").chmod(0o644)
    declare(
        home,
        "extends: base\nenv: {B: x}\nlimits:\n  cpus: 1.5\n  open_files: 99\nsupervise: false\n"
        "workspace: empty\negress: {routes: [{host: a.example}]}\ngit: {user: {email: b@example.com}}\n",
        "bottle: b\nskills: [one]\ngit: {user: {name: Own}}\n",
    )
    assert main(["info", "a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    placed = [line for line in lines if line.split(":")[0].strip() not in {"agent", "bottle", "prompt"}]
    assert len(placed) == 12
    assert [line for line in placed if "  <- " not in line] == []
    for said in (
        "env         : A  <- bottles/base.md",
        "              B  <- bottles/b.md",
        "skills      : one  <- agents/a.md:3",
        "limits      : memory 1GiB  <- bottles/base.md:5",
        "              cpus 1.5  <- bottles/b.md:5",
        "supervise   : off  <- bottles/b.md:7",
        "workspace   : empty  <- bottles/b.md:8",
    ):
        assert any(line.endswith(said) for line in lines), said
    assert main(["info", "a", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    places = described["bottle"]["sources"] | described["agent"]["sources"]
    assert {key: place["file"].rpartition("/")[2] for key, place in places.items()} == {
        "env.A": "base.md",
        "env.B": "b.md",
        "agent_provider": "base.md",
        "egress.routes[0]": "b.md",
        "limits.memory": "base.md",
        "limits.pids": "base.md",
        "limits.cpus": "b.md",
        "limits.open_files": "b.md",
        "supervise": "b.md",
        "workspace": "b.md",
        "git.user.name": "a.md",
        "git.user.email": "b.md",
        "bottle": "a.md",
        "skills": "a.md",
    }
    assert described["git_identity"] == "Own (agent), b@example.com (bottle)"


def test_info_of_an_identity(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state("one-aaaaa", kept=True)
    assert main(["info", "one-aaaaa"]) == 0
    assert "status    : preserved" in capsys.readouterr().out
    assert main(["info", "one-aaaaa", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["agent"] == "one"


def test_info_of_a_removed_bottle_points_to_its_record(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(home, "")
    record("one-aaaaa")
    assert main(["info", "one-aaaaa"]) == 2
    err = capsys.readouterr().err
    assert "the bottle one-aaaaa is gone" in err
    assert "bot-bottle audit one-aaaaa" in err
    assert main(["info", "two-aaaaa"]) == 2
    assert "those that exist: a" in capsys.readouterr().err


def test_info_of_nothing_lists_the_agents(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(home, "")
    assert main(["info", "x"]) == 2
    assert "those that exist: a" in capsys.readouterr().err


# -- audit -----------------------------------------------------------------------------------------------


def record(identity: str) -> Path:
    path = paths.audit_path(identity)
    log = audit.AuditLog.open(path)
    log.append("deny", host="evil.example", reason="host_not_allowed", detail="two words\x1b[2J")
    log.close()
    return path


def test_audit_shows_each_decision_safe_to_print(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record("one-aaaaa")
    assert main(["audit", "one-aaaaa"]) == 0
    out = capsys.readouterr().out
    assert 'reason=host_not_allowed host=evil.example detail="two words?[2J"' in out
    assert "\x1b" not in out
    assert main(["audit", "one-aaaaa", "--json"]) == 0
    assert [r["event"] for r in json.loads(capsys.readouterr().out)] == ["deny", "end"]


def test_audit_verify_proves_or_names_the_first_bad_line(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = record("one-aaaaa")
    assert main(["audit", "verify", "one-aaaaa"]) == 0
    assert "one-aaaaa: ok: 2 records, chain intact" in capsys.readouterr().out
    path.write_bytes(path.read_bytes().replace(b"evil", b"good"))
    assert main(["audit", "verify", "one-aaaaa"]) == 1
    assert "BROKEN: line 1" in capsys.readouterr().out
    assert main(["audit", "verify", "one-aaaaa", "--json"]) == 1
    verdict = json.loads(capsys.readouterr().out)
    assert (verdict["ok"], verdict["error_line"]) == (False, 1)


@pytest.mark.parametrize("words", [["one-bbbbb"], ["verify", "one-bbbbb"], ["verify"], ["../x"], ["a", "b"]])
def test_audit_of_something_else_is_a_sentence(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    record("one-aaaaa")
    assert main(["audit", *words]) == 2
    err = capsys.readouterr().err
    assert "one-aaaaa" in err or "write: bot-bottle audit" in err


# -- cleanup ---------------------------------------------------------------------------------------------


def test_cleanup_removes_what_is_dead_and_keeps_what_is_kept_or_runs(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state("dead-aaaaa")
    state("kept-bbbbb", kept=True)
    state("live-ccccc")
    ScriptedBackend.dead = [
        Leftover(backend="scripted", identity="dead-aaaaa", kind="cgroup", describe="a cgroup")
    ]
    with bottle_state.hold_lock("live-ccccc"):
        assert main(["cleanup", "--yes"]) == 0
        assert [s.identity for s in bottle_state.list_states()] == ["kept-bbbbb", "live-ccccc"]
        assert main(["cleanup", "--all", "--yes"]) == 0
        assert [s.identity for s in bottle_state.list_states()] == ["live-ccccc"]
    assert ScriptedBackend.removed[0].kind == "cgroup"
    out = capsys.readouterr().out
    assert "scripted: a cgroup" in out
    assert "kept for resume (--all removes them too): kept-bbbbb" in out


def test_cleanup_by_name(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state("kept-aaaaa", kept=True)
    state("kept-bbbbb", kept=True)
    assert main(["cleanup", "kept-aaaaa", "--yes"]) == 0
    assert [s.identity for s in bottle_state.list_states()] == ["kept-bbbbb"]
    assert main(["cleanup", "kept-aaaaa", "--yes"]) == 2
    assert "those that exist: kept-bbbbb" in capsys.readouterr().err


def test_cleanup_twice_is_no_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state("dead-aaaaa")
    assert main(["cleanup", "--yes"]) == 0
    assert main(["cleanup", "--yes"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_cleanup_asks_and_without_anyone_to_ask_removes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state("dead-aaaaa")
    assert main(["cleanup"]) == 2
    assert "pass --yes" in capsys.readouterr().err
    assert len(bottle_state.list_states()) == 1


def test_cleanup_goes_on_after_one_that_cannot_be_removed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for identity in ("dead-aaaaa", "dead-bbbbb", "dead-ccccc", "dead-ddddd"):
        state(identity)
    ScriptedBackend.dead = [
        Leftover(backend=name, identity="dead-aaaaa", kind="cgroup", describe=f"a {name} cgroup")
        for name in ("gone", "scripted")
    ]
    (home / "state" / "dead-bbbbb" / "lock").symlink_to("elsewhere")  # a real error of the kernel's: ELOOP
    really = bottle_state.cleanup_state

    def clean(identity: str) -> None:
        if identity == "dead-aaaaa":
            raise RecursionError("maximum recursion depth exceeded")
        if identity == "dead-ccccc":
            raise UsageError("said in a sentence")
        really(identity)

    monkeypatch.setattr(bottle_state, "cleanup_state", clean)
    assert main(["cleanup", "--all", "--yes"]) == 1
    out, err = capsys.readouterr()
    assert "removed dead-ddddd" in out
    assert ScriptedBackend.removed[0].backend == "scripted"
    assert [s.identity for s in bottle_state.list_states()] == ["dead-aaaaa", "dead-bbbbb", "dead-ccccc"]
    for said in (
        "not removed: a gone cgroup: backend 'gone' is not in this version",
        "not removed: dead-aaaaa: an unexpected RecursionError; this is a mistake of the program",
        "not removed: dead-bbbbb: [Errno 40]",
        "not removed: dead-ccccc: said in a sentence",
    ):
        assert said in err, said
    assert "Traceback" not in err


def test_cleanup_never_touches_what_is_not_ours(home: Path) -> None:
    state("dead-aaaaa")
    (home / "state" / "My Documents").mkdir()
    outside = home / "outside"
    outside.mkdir()
    (home / "state" / "link-aaaaa").symlink_to(outside)
    assert main(["cleanup", "--all", "--yes"]) == 0
    assert outside.is_dir()
    assert (home / "state" / "My Documents").is_dir()


# -- doctor ----------------------------------------------------------------------------------------------


def test_doctor_shows_each_backend_and_the_one_command(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ScriptedBackend.probe_result = ProbeResult(
        backend="scripted", level="unavailable", detail="no namespaces", remedy="sudo sysctl x=1"
    )
    assert main(["doctor"]) == 3
    out = capsys.readouterr().out
    assert "unavailable  backend scripted: no namespaces\n" in out
    assert "-> sudo sysctl x=1" in out
    ScriptedBackend.reset()
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert {"backend", "program", "folder", "manifest"} <= {f["kind"] for f in findings}


def test_doctor_tells_of_a_folder_that_others_can_write_and_of_broken_files(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(home, "nonsense: 1\n")
    (home / "config.toml").write_text("x = 1\n")
    home.chmod(0o777)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"-> chmod go-w '{home}'" in out
    assert "config.toml" in out
    assert out.count(str(home)) == 2  # the line and its remedy
    home.chmod(0o700)
    assert main(["doctor"]) == 0
    assert "nonsense: unknown key" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another account")
def test_doctor_tells_of_a_home_of_another_account(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(home, "")
    os.chown(home, 12345, 12345)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"folder {home}: belongs to another user" in out
    assert out.count(str(home)) == 2


def test_doctor_has_one_line_for_one_cause(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(home, "")
    for number in range(20):
        for folder, text in (("bottles", "---\n---\n"), ("agents", "---\nbottle: b\n---\n")):
            path = home / folder / f"n{number}.md"
            path.write_text(text)
            path.chmod(0o644)
    (home / "bottles").chmod(0o777)
    assert main(["doctor"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if str(home / "bottles") in line)
    assert line.startswith(
        "degraded     manifest bottles/b, bottles/n0, bottles/n1, bottles/n10, bottles/n11 and 16 more: "
    )
    assert main(["check"]) == 2
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert out[1].endswith("to mend in 21 of 42 files")


def test_doctor_without_git_says_how_to_get_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(home))
    main(["doctor"])
    out = capsys.readouterr().out
    assert "apt-get install git" in out
    assert "agents whose template is claude cannot start" in out


# -- the command line itself -----------------------------------------------------------------------------


def test_every_command_has_help_and_a_module(capsys: pytest.CaptureFixture[str]) -> None:
    for name in commands.COMMANDS:
        assert main([name, "--help"]) == 0
        assert "Usage: bot-bottle" in capsys.readouterr().out
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in commands.COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bot-bottle 0.")


def test_an_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strat"]) == 2
    assert "did you mean start?" in capsys.readouterr().err


def test_an_unexpected_error_shows_its_place_and_not_its_text(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def explode() -> tuple[()]:
        raise RuntimeError("token=sk-" + "hidden")

    monkeypatch.setattr(bottle_state, "list_states", explode)
    assert main(["list"]) == 70
    err = capsys.readouterr().err
    assert "unexpected RuntimeError" in err
    assert "list_.py" in err
    assert "sk-hidden" not in err
    monkeypatch.setenv("BOT_BOTTLE_DEBUG", "1")
    assert main(["list"]) == 70
    assert "sk-hidden" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback(home: Path) -> None:
    for number in range(30):
        state(f"agent{number}-aaaaa", kept=True)
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "bot_bottle", "list"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write_end)
    assert done.stderr == b""
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["list"], 1, ""),
        (["list", "--json"], 1, ""),
        (["list", "--help"], 1, ""),
        (["cleanup", "agent0-aaaaa"], 2, "there is no terminal to ask on"),
    ],
)
@pytest.mark.parametrize("many", [1, 200])  # fails at the end, and in the middle: more than a buffer holds
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_a_sentence(
    home: Path, arguments: list[str], code: int, said: str, many: int, unbuffered: str
) -> None:
    for number in range(many):
        bottle_state.mark_preserved(state(f"agent{number}-aaaaa").name)
    late = not unbuffered and (many == 1 or arguments[0] == "cleanup")
    for full, words in (("/dev/full", "No space left on device"), (str(home / "out"), "File too large")):
        # A file that may not grow behaves as one on a disk without room.
        script = f'ulimit -f 0; exec "$@" >"{full}"'
        done = subprocess.run(
            ["sh", "-c", script, "sh", sys.executable, "-m", "bot_bottle", *arguments],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.stderr.endswith(f"bot-bottle: the output cannot be written: {words}\n")
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr
        assert done.returncode == (code if late else 1)
        assert not late or said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("check", 1), ("check --json", 1), ("info a", 1), ("schema bottle", 1), ("doctor", 1), ("info none", 2)],
)
def test_a_full_disk_never_changes_what_the_exit_code_says(home: Path, arguments: str, code: int) -> None:
    declare(home, "agent_provider: {template: command, argv: [x]}\n")
    for errors in ("&1", str(home / "errors")):
        script = f'exec "{sys.executable}" -m bot_bottle {arguments} >/dev/full 2>{errors}'
        assert subprocess.run(["sh", "-c", script], check=False, timeout=60).returncode == code
    said = (home / "errors").read_text().splitlines()
    assert said[-1].startswith("bot-bottle: ")
    assert len(said) == 1


@pytest.mark.parametrize("arguments", ["list", "cleanup", "start a"])
def test_closed_descriptors_are_no_traceback(home: Path, arguments: str) -> None:
    script = f'exec "{sys.executable}" -m bot_bottle {arguments} <&- >&-'
    done = subprocess.run(["sh", "-c", script], stderr=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode in {0, 2}
    assert b"unexpected" not in done.stderr


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("localhost:8080", ("127.0.0.1", 8080)), ("[::1]:9", ("::1", 9))],
)
def test_listen_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text", ["", "8080", "host:1", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536", ":1", "127.0.0.1:²"]
)
def test_bad_listen_addresses(text: str) -> None:
    with pytest.raises(UsageError, match="--listen"):
        parse_listen(text)
