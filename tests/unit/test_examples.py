"""The examples load as they are, without a warning, and show what they say they show."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.agent_provider.added import added_names
from bot_bottle.agent_provider.registry import agent_provision_plan, known_templates
from bot_bottle.egress.routes import egress_routes_for_bottle
from bot_bottle.manifest.model import Manifest
from tests.support.codex_login import CodexLogin

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, monkeypatch_module: pytest.MonkeyPatch) -> Manifest:
    home = tmp_path_factory.mktemp("home") / ".bot-bottle"
    monkeypatch_module.setenv("BOT_BOTTLE_HOME", str(home))
    shutil.copytree(EXAMPLES, home)
    for path in (home, *home.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o022)  # a checkout under umask 002 is its group's to write
    return Manifest.resolve(home.parent / "elsewhere", home)


def test_every_example_loads(manifest: Manifest) -> None:
    assert manifest.warnings == ()
    assert manifest.broken_agents == {}
    assert manifest.broken_bottles == {}
    named = {agent.bottle for agent in manifest.agents.values()}
    extended = {parent for bottle in manifest.bottles.values() for parent in bottle.extends}
    assert named | extended == set(manifest.bottles)


@pytest.mark.parametrize("name", sorted(path.stem for path in (EXAMPLES / "agents").glob("*.md")))
def test_every_example_makes_a_plan(manifest: Manifest, name: str, tmp_path: Path) -> None:
    agent = manifest.require_agent(name)
    bottle = manifest.bottle_for(name)
    template = bottle.agent_provider.template
    assert agent.prompt
    assert template in {*known_templates(), *added_names()}
    CodexLogin().write(tmp_path / ".codex")
    home = {"HOME": str(tmp_path)}
    plan = agent_provision_plan(bottle, agent, env=home, headless=True, prompt="task")
    egress_routes_for_bottle(bottle, plan.egress_routes)
    assert plan.template == template


def test_the_examples_show_what_their_names_say(manifest: Manifest) -> None:
    templates = {manifest.bottle_for(name).agent_provider.template for name in manifest.agents}
    assert templates == {*known_templates(), *added_names()}
    assert set(added_names()) == {"aider", "gemini", "opencode"}
    reader = manifest.bottle_for("reader")
    assert [route.host for route in reader.egress.routes] == ["docs.python.org", "*.pytest.org"]
    assert all(set(route.methods) == {"GET", "HEAD"} for route in reader.egress.routes)
    assert reader.agent_provider.auth_token
    assert manifest.git_identity_summary("builder") == "Build Bot (bottle), build-bot@example.com (bottle)"


def test_the_readme_names_every_example(manifest: Manifest) -> None:
    text = (EXAMPLES / "README.md").read_text()
    for name in (*manifest.agents, *manifest.bottles):
        assert f"`{name}`" in text
