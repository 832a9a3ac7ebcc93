"""The demo shows the truth: it passes where every wall stands, and says so where one does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bot_bottle.backend.registry import get_bottle_backend
from bot_bottle.demo import scenes, stage
from bot_bottle.demo.git_upstream import why_not

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.lab import Lab

pytestmark = pytest.mark.integration


@pytest.fixture
def own_home(tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run the demo in this process, with a home and a temporary folder that can be looked at."""
    result = get_bottle_backend(backend).probe()
    if result.level == "unavailable":
        pytest.skip(f"{backend}: {result.detail}")
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT_BOTTLE_BACKEND", backend)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_demo_passes_and_leaves_nothing(lab: Lab) -> None:
    temporary = lab.user_home / "tmp"
    temporary.mkdir(exist_ok=True)
    lab.own()
    result = lab.cli("demo", env={"TMPDIR": str(temporary), "BOT_BOTTLE_BACKEND": lab.backend}, timeout=120)
    assert result.returncode == 0, result.out + result.err
    assert result.out.count("went     as it should") == len(scenes.SCENES) + len(scenes.EPILOGUE)
    assert "NOT" not in result.out
    assert "aws-access-key-id" in result.out
    assert "happened pushed bottle/demo" in result.out
    assert "\033" not in result.out  # a pipe gets plain text
    assert list(temporary.iterdir()) == []
    assert list((lab.home / "state").glob("demo-*")) == []
    assert list((lab.home / "audit").glob("demo-*")) == []


def test_demo_passes_where_the_bottle_has_no_curl_and_this_machine_no_git(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scenes, "_has_curl", lambda _stage: False)
    monkeypatch.setattr("bot_bottle.git_gate.git._SYSTEM_PATH", str(own_home))
    assert stage.play() == 0, capsys.readouterr().out
    output = capsys.readouterr().out
    assert "went     skipped: git is not installed here; install git to see this scene" in output
    assert "every scene that was played went as it should" in output
    assert os.environ["BOT_BOTTLE_HOME"] == str(own_home / "home")


def test_demo_fails_where_a_forbidden_host_is_let_through(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = stage._BOTTLE.replace("  routes:\n", f"  routes:\n    - host: {stage.ELSEWHERE_HOST}\n")
    monkeypatch.setattr(stage, "_BOTTLE", opened)
    assert stage.play() == 1
    output = capsys.readouterr().out
    assert "SAW THE REQUEST" in output
    assert "NOT every scene went as it should" in output


def test_demo_fails_where_the_token_is_in_the_bottle(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _count: "0123456789abcdef")
    leaking = stage._BOTTLE.replace("env:\n", "env:\n  LEAK: demo-token-0123456789abcdef\n")
    monkeypatch.setattr(stage, "_BOTTLE", leaking)
    assert stage.play() == 1
    output = " ".join(capsys.readouterr().out.split())
    # Both credentials are the same here: the model's and the upstream's.
    assert output.count("the token's bytes are in: the bottle") == (1 if "skipped:" in output else 2)


def test_demo_fails_where_the_gate_refuses_the_cleaned_commit(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if why_not():
        pytest.skip(why_not())
    narrowed = stage._GIT.replace("TokenRef:", "Branches: [other/**], TokenRef:")
    monkeypatch.setattr(stage, "_GIT", narrowed)
    code, output = stage.play(), capsys.readouterr().out
    if "the bottle's image has no git" in output:
        pytest.skip("the bottle's image has no git in it")
    assert code == 1
    assert "branch_denied" in output
    assert "SOMETHING ELSE THAN THE TOKEN" in " ".join(output.split())
