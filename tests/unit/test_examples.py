"""The examples load as they are, without a warning, and show what they say they show."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bot_bottle.agent_provider.registry import agent_provision_plan, known_templates
from bot_bottle.egress.routes import egress_routes_for_bottle
from bot_bottle.manifest.model import Manifest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    home = tmp_path_factory.mktemp("home") / ".bot-bottle"
    shutil.copytree(EXAMPLES, home)
    for path in (home, *home.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o022)  # a checkout under umask 002 is its group's to write
    return Manifest.resolve(home.parent / "elsewhere", home)


def test_every_example_loads(manifest: Manifest) -> None:
    assert manifest.warnings == ()
    assert manifest.broken_agents == {}
    assert manifest.broken_bottles == {}
    assert {agent.bottle for agent in manifest.agents.values()} == set(manifest.bottles)


@pytest.mark.parametrize("name", sorted(path.stem for path in (EXAMPLES / "agents").glob("*.md")))
def test_every_example_makes_a_plan(manifest: Manifest, name: str) -> None:
    agent = manifest.require_agent(name)
    bottle = manifest.bottle_for(name)
    plan = agent_provision_plan(bottle, agent, env={}, headless=True, prompt="task")
    egress_routes_for_bottle(bottle, plan.egress_routes)
    assert agent.prompt
    assert plan.template in known_templates()


def test_the_readme_names_every_example(manifest: Manifest) -> None:
    text = (EXAMPLES / "README.md").read_text()
    for name in (*manifest.agents, *manifest.bottles):
        assert f"`{name}`" in text
