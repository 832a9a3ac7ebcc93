"""The commands that only look or tidy up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bot_bottle import bottle_state
from bot_bottle.audit import AuditLog
from bot_bottle.backend.base import Leftover, ProbeResult
from bot_bottle.cli import main
from bot_bottle.errors import UsageError
from tests.support.cli_home import declare, record, scripted_home, state
from tests.support.scripted_backend import ScriptedBackend

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return scripted_home(tmp_path, monkeypatch)


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
    assert capsys.readouterr().out == (
        "no bottle is running or kept; start one with: bot-bottle start NAME\n"
        "no agent of yours is declared yet; write one with: bot-bottle init\n"
    )
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


_START = """
import sys
from bot_bottle.cli import main
import bot_bottle.backend.docker.backend
assert main(["start", "a", "--dry-run", "--backend", "bubblewrap"]) == 0
print(*sorted(sys.modules), file=sys.stderr)
"""


def test_start_imports_nothing_before_it_is_needed(home: Path) -> None:
    """What this names is needed by few launches (``--repo``, a terminal), or by another process alone."""
    declare(home, "agent_provider: {template: command, argv: [/bin/true]}\n")
    done = subprocess.run(
        [sys.executable, "-c", _START],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "bot_bottle.backend.launch" in loaded
    heavy = {
        *("asyncio", "cryptography", "docker", "httptools", "logging", "mcp", "multiprocessing", "requests"),
        *("rich", "textual", "urllib3", "uvloop", "betterleaks", "hyperscan", "pyseccomp"),
        *("bot_bottle.egress.proxy", "bot_bottle.git_gate.git", "bot_bottle.pipelock.scanner"),
    }
    assert loaded & heavy == set()


# -- audit -----------------------------------------------------------------------------------------------


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


def test_audit_takes_a_file_as_well(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "proxy.jsonl"
    log = AuditLog.open(path)
    log.append("request", decision="deny", host="a.example\x9b2J")
    assert main(["audit", "verify", str(path)]) == 0, "another process writes it still"
    log.close()
    for word in (str(path), "proxy.jsonl"):  # the current folder's
        assert main(["audit", "verify", word]) == 0
        assert capsys.readouterr().out.endswith(f"{word}: ok: 2 records, chain intact, ended cleanly\n")
    assert main(["audit", str(path)]) == 0
    assert "host=a.example?2J" in capsys.readouterr().out
    data = path.read_bytes()
    path.write_bytes(data.splitlines(keepends=True)[0])
    assert main(["audit", "verify", str(path)]) == 1
    assert "INCOMPLETE" in capsys.readouterr().out
    path.write_bytes(data.replace(b"a.example", b"b.example"))
    assert main(["audit", "verify", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["file"], found["ok"], found["error_line"]) == (str(path), False, 1)
    for word, said in (
        (str(tmp_path), "is no file"),
        (f"{tmp_path}/none", "cannot be read (No such file"),
        (f"{tmp_path}/{'n' * 300}", "cannot be read (File name too long"),
        ("n" * 300, "there is no identity"),
    ):
        assert main(["audit", "verify", word]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        *(["apply", "{}", "--yes"], ["attach", "{}"], ["audit", "{}"], ["audit", "verify", "{}"]),
        *(["cleanup", "{}", "--yes"], ["diff", "{}"], ["info", "{}"], ["logs", "{}"], ["panic", "{}"]),
        *(["panic", "{}", "--lift"], ["pull", "{}"], ["requests", "{}"], ["resume", "{}", "--yes"]),
        *(["rm", "{}"], ["rm", "{}", "--stop", "--yes"], ["stop", "{}"]),
    ],
)
def test_every_command_says_the_same_of_an_identity_that_is_not_there(
    home: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    state("worker-abcde", kept=True)
    record("worker-abcde")
    record("gone-abcde")
    for wrong, said in (
        (
            "worker-abcdf",
            "there is no identity 'worker-abcdf'; did you mean worker-abcde? those that exist: ",
        ),
        ("zzzzzzz-22222", "there is no identity 'zzzzzzz-22222'; those that exist: "),
    ):
        assert main([word.format(wrong) for word in command]) == 2
        assert said in capsys.readouterr().err
    if command[0] not in {"audit", "logs"}:
        assert main([word.format("gone-abcde") for word in command]) == 2
        assert "gone-abcde is gone" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["one-bbbbb"], ["verify", "one-bbbbb"], ["verify"], ["../x"], ["a", "b"]])
def test_audit_of_something_else_is_a_sentence(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    record("one-aaaaa")
    assert main(["audit", *words]) == 2
    err = capsys.readouterr().err
    assert any(said in err for said in ("one-aaaaa", "write: bot-bottle audit", "cannot be read"))


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


@pytest.mark.parametrize("command", [["cleanup", "--all"], ["rm", "one-aaaaa"]])
def test_a_state_that_cannot_be_read_can_be_removed(home: Path, command: list[str]) -> None:
    folder = state("one-aaaaa", kept=True)
    (folder / "metadata.json").write_text("{")
    assert main([*command, "--yes"]) == 0
    assert bottle_state.list_states() == ()
    assert not folder.exists()


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


def test_doctor_judges_the_folder_above_and_one_that_cannot_be_made(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def folder() -> dict[str, str]:
        main(["doctor", "--json"])
        (found,) = (f for f in json.loads(capsys.readouterr().out) if f["kind"] == "folder")
        return dict(found)

    above = home.parent
    above.chmod(0o755)
    assert (folder()["level"], folder()["detail"]) == ("ok", "yours alone to write")
    above.chmod(0o777)
    assert folder()["level"] == "degraded"
    assert folder()["remedy"] == f"chmod go-w '{above}'"
    above.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_asked: False)  # as root of a read-only file system
        assert (folder()["level"], folder()["detail"][:17]) == ("unavailable", "cannot be written")
        patched.setenv("BOT_BOTTLE_HOME", str(above / "none" / "bb"))
        assert folder()["detail"] == f"not there, and cannot be made: {above} cannot be written"
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(above / "none" / "bb"))
    assert folder()["level"] == "ok"
    assert "bot-bottle init" in folder()["detail"]


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


@pytest.mark.parametrize("columns", [40, 72, 200])
def test_a_narrow_terminal_gets_lines_that_fit(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    state("worker-with-a-name-abcde", kept=True)
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in (["list"], ["dashboard", "--once"]):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        assert main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns, lines
        assert ("worker-with-a-name-abcde" in lines) is (columns < 100), lines
        assert any("scripted" in line for line in lines)
