"""``bot-bottle build``: which bottles it asks the backend for, and what it prints."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import pytest

from bot_bottle.backend import registry
from bot_bottle.backend.base import Prepared
from bot_bottle.cli import main
from bot_bottle.errors import UnavailableError
from tests.support.scripted_backend import ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bot_bottle.manifest.model import ManifestBottle
    from bot_bottle.operator_config import OperatorConfig


class BuildingBackend(ScriptedBackend):
    """Builds one thing for each bottle, as far as anybody can see."""

    asked: ClassVar[list[tuple[list[str], str, bool]]] = []
    failure: ClassVar[str] = ""

    def build_ahead(
        self, bottles: Sequence[ManifestBottle], config: OperatorConfig, *, refresh: bool = False
    ) -> tuple[Prepared, ...]:
        names = [bottle.name for bottle in bottles]
        self.asked.append((names, config.docker.base_image, refresh))
        if self.failure:
            raise UnavailableError(self.failure)
        shared = Prepared(what="the sidecar of every bottle", name="side:1", size=3 << 20, fresh=False)
        own = Prepared(what="a Dockerfile", name="agent:1", size=5 << 20, fresh=True, bottles=tuple(names))
        return shared, own


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    base = tmp_path / "bb"
    base.mkdir(mode=0o700)
    for bottle, agents in {"one": ("first", "second"), "two": ("third",), "torn": ("fourth",)}.items():
        text = "nonsense: 1\n" if bottle == "torn" else "agent_provider: {template: command, argv: [x]}\n"
        write(base / "bottles" / f"{bottle}.md", f"---\n{text}---\n")
        for agent in agents:
            write(base / "agents" / f"{agent}.md", f"---\nbottle: {bottle}\n---\nWork.\n")
    write(base / "config.toml", '[docker]\nbase_image = "mine:1"\n')
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(base))
    monkeypatch.chdir(tmp_path)
    ScriptedBackend.reset()
    monkeypatch.setattr(BuildingBackend, "asked", [])
    places = {
        "plain": "tests.support.scripted_backend:ScriptedBackend",
        "building": "tests.unit.test_cli_build:BuildingBackend",
    }
    monkeypatch.setattr(registry, "_BACKENDS", places)
    return base


def write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def asked() -> list[tuple[list[str], str, bool]]:
    return BuildingBackend.asked


def test_without_a_name_it_builds_for_every_agent_that_is_right(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--backend", "building"]) == 0
    assert asked() == [(["one", "two"], "mine:1", False)]
    head, shared, own = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "STATE", "SIZE", "FOR"]
    assert shared.split() == ["side:1", "ready", "3", "MiB", "the", "sidecar", "of", "every", "bottle"]
    assert own.startswith("agent:1  built  5 MiB  a Dockerfile (bottles: one, two)")


def test_named_agents_are_built_for_once_each_bottle(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--backend", "building", "--fresh", "--json", "second", "first"]) == 0
    assert asked() == [(["one"], "mine:1", True)]
    assert json.loads(capsys.readouterr().out) == {
        "backend": "scripted",
        "prepared": [
            {
                "what": "the sidecar of every bottle",
                "name": "side:1",
                "size": 3 << 20,
                "fresh": False,
                "bottles": [],
            },
            {"what": "a Dockerfile", "name": "agent:1", "size": 5 << 20, "fresh": True, "bottles": ["one"]},
        ],
    }


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nobody"], "there is no agent 'nobody'; those that exist: first, fourth, second, third"),
        (["fourth"], "unknown key"),
    ],
)
def test_a_named_agent_that_is_wrong_builds_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    assert main(["build", "--backend", "building", "first", *args]) == 2
    assert said in capsys.readouterr().err
    assert asked() == []


def test_a_backend_without_images_has_nothing_to_build(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build"]) == 0
    assert capsys.readouterr().out == "nothing to build: scripted uses no images\n"
    assert main(["build", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"backend": "scripted", "prepared": []}


def test_a_backend_that_cannot_is_its_sentence_and_exit_3(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BuildingBackend, "failure", "no engine answers")
    assert main(["build", "--backend", "building", "first"]) == 3
    assert capsys.readouterr().err == "bot-bottle: no engine answers\n"
