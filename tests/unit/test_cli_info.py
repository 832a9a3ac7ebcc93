"""``info``: names and places, never a value."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bot_bottle import audit, bottle_state, paths
from bot_bottle.bottle_state import BottleMetadata
from bot_bottle.cli import info, main
from bot_bottle.egress.counters import Tally
from tests.support.cli_home import declare, record, scripted_home, state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return scripted_home(tmp_path, monkeypatch)


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
        "git gate    : p -> https://h.example/p.git [no token], push: bottle/**  <- bottles/base.md:3\n",
        "egress      : a.example  <- bottles/b.md:4\n",
        "[auth:Bearer CODEX_HOST_CREDENTIAL_TOKEN] [content rules off]",
        "supervise   : on  <- bottles/base.md:4\n",
        "workspace   : copy  <- bottles/base.md:5\n",
        "agent_provider.dockerfile: for backends that build images (docker)",
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
    assert len(described["notes"]) == 1


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


@pytest.mark.parametrize(
    ("backend", "place"),
    [
        ("bubblewrap", "state/one-aaaaa/workspace"),
        ("docker", "the volume bot-bottle-one-aaaaa-home"),
        ("from-the-future", None),
        ("", None),
    ],
)
def test_info_of_an_identity_says_where_its_workspace_lies(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    backend: str,
    place: str | None,
) -> None:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path))  # and the real backends
    bottle_state.create_state(BottleMetadata(identity="one-aaaaa", agent_name="one", backend=backend))
    assert main(["info", "one-aaaaa", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["workspace"]
    assert told is None if place is None else told.endswith(place)


def test_info_sums_up_what_all_sessions_of_an_identity_used(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state("one-aaaaa", kept=True)
    for session in range(2):
        log = audit.AuditLog.open(paths.audit_path("one-aaaaa"))
        log.append("request", decision="allow", host="a.example", path='/"event":"usage"')
        for model, tokens in (("m-1", 100), ("\x1b[2J", 5)):
            log.append("usage", model=model, input_tokens=tokens, cached_tokens=session, output_tokens=1)
        log.close()
    assert main(["info", "one-aaaaa"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()[-4:]]
    assert lines[0][:2] == ["MODEL", "ANSWERS"]
    assert lines[1:] == [
        ["m-1", "2", "200", "1", "2"],
        ["?[2J", "2", "10", "1", "2"],
        ["(all)", "4", "210", "2", "4"],
    ]
    assert main(["info", "one-aaaaa", "--json"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert (tokens["answers"], tokens["input_tokens"], len(tokens["models"])) == (4, 210, 2)


def test_info_has_a_row_for_each_grant(capsys: pytest.CaptureFixture[str]) -> None:
    counters = Tally().to_wire()
    live = {
        "halted": False,
        "connections": 0,
        "routes": [{"host": "kept.test", "counters": counters}],
        "granted": [{"host": "docs.test", "counters": {**counters, "requests": 7}}],
        "elsewhere": {"counters": counters},
    }
    info._print_live(live)
    rows = capsys.readouterr().out.splitlines()
    assert [row.split("  ")[0] for row in rows[2:]] == ["kept.test", "docs.test (granted)", "(no route)"]
    assert rows[3].split()[2] == "7"


def test_info_of_a_removed_bottle_points_to_its_record(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(home, "")
    record("one-aaaaa")
    assert main(["info", "one-aaaaa"]) == 2
    err = capsys.readouterr().err
    assert "the bottle one-aaaaa is gone" in err
    assert "bot-bottle logs one-aaaaa" in err
    assert main(["info", "two-aaaaa"]) == 2
    assert "there is no identity 'two-aaaaa'; those that exist: none; agents: a" in capsys.readouterr().err


def test_info_of_nothing_lists_the_agents(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(home, "")
    assert main(["info", "x"]) == 2
    assert "those that exist: a" in capsys.readouterr().err


def test_a_session_whose_launcher_was_killed_is_told_as_such(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state("dead-abcde")
    bottle_state.mark_preserved("dead-abcde")
    said = "the session ended without a word: its launcher was killed, or the machine went down"
    assert main(["info", "dead-abcde"]) == 0
    assert f"ended     : {said}\n" in capsys.readouterr().out
    metadata = bottle_state.require_metadata("dead-abcde")
    assert main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ended"] == said
    assert main(["list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(" killed")
    bottle_state.write_metadata(replace(metadata, ended="the session was ended by SIGTERM"))
    assert main(["list"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(" cut short")
    with bottle_state.hold_lock("dead-abcde"):
        assert main(["info", "dead-abcde"]) == 0
        assert "ended" not in capsys.readouterr().out


def test_attaching_to_what_has_ended_says_how_to_go_on(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state("gone-abcde", kept=True)
    assert main(["attach", "gone-abcde"]) == 2
    said = "gone-abcde does not run any more; go on with: bot-bottle resume gone-abcde\n"
    assert capsys.readouterr().err.endswith(said)
