"""What a bottle was launched with, and how a later manifest differs from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bot_bottle.declared import declared, differences
from bot_bottle.manifest.model import (
    ManifestAgent,
    ManifestAgentProvider,
    ManifestBottle,
    ManifestEgress,
    ManifestGit,
    ManifestGitRemote,
    ManifestLimits,
    ManifestRoute,
)

AGENT = ManifestAgent(name="a", path=Path("/m/a.md"), bottle="b", prompt="Do it.", skills=("one",))
BOTTLE = ManifestBottle(
    name="b",
    path=Path("/m/b.md"),
    agent_provider=ManifestAgentProvider(template="command", argv=("sh",)),
    env={"LITERAL": "not-to-be-shown", "HOST": "${HOST_VAR}", "ASKED": "?which"},
    limits=ManifestLimits(pids=100),
)
REMOTE = ManifestGitRemote(
    host="git.test",
    name="origin",
    upstream="https://git.test/x",
    scheme="https",
    user="",
    upstream_host="git.test",
    port=None,
    path="x",
)


def changed(agent: ManifestAgent = AGENT, bottle: ManifestBottle = BOTTLE) -> tuple[str, ...]:
    return differences(declared(AGENT, BOTTLE, "a-11111"), declared(agent, bottle, "a-11111"))


def test_nothing_differs_where_nothing_but_places_and_routes_do() -> None:
    routes = ManifestEgress(routes=(ManifestRoute(host="x.test"),))
    assert changed(replace(AGENT, path=Path("/n")), replace(BOTTLE, egress=routes, extends=("c",))) == ()


def test_each_setting_that_differs_is_named() -> None:
    assert changed(bottle=replace(BOTTLE, limits=ManifestLimits(pids=200, open_files=9))) == (
        "limits.open_files: added, 9",
        "limits.pids: 100 -> 200",
    )
    remotes = ManifestGit(remotes=(REMOTE,))
    lines = changed(bottle=replace(BOTTLE, git=remotes))
    assert 'git.remotes.git.test.upstream: added, "https://git.test/x"' in lines
    assert changed(replace(AGENT, skills=())) == ("agent.skills: removed",)
    assert changed(bottle=replace(BOTTLE, supervise=True)) == ("supervise: added, true",)


def test_values_are_compared_and_not_kept() -> None:
    env = {**BOTTLE.env, "LITERAL": "another", "ASKED": "${NOW_HOST}"}
    lines = changed(replace(AGENT, prompt="Do more."), replace(BOTTLE, env=env))
    assert lines == ("agent.prompt: changed", "env.ASKED: asked -> host:NOW_HOST", "env.LITERAL: changed")
    kept = str(declared(AGENT, BOTTLE, "a-11111"))
    assert "not-to-be-shown" not in kept
    assert "Do it." not in kept
    assert (
        declared(AGENT, BOTTLE, "a-22222")["env.LITERAL"] != declared(AGENT, BOTTLE, "a-11111")["env.LITERAL"]
    )
