"""What the operator reads before a launch: everything that matters, by name."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from bot_bottle.agent_provider.plan import AgentProvisionPlan
from bot_bottle.backend.plan import BottlePlan, BottleSpec, LimitStatus
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.manifest.model import (
    Manifest,
    ManifestAgent,
    ManifestAgentProvider,
    ManifestBottle,
    ManifestGit,
    ManifestGitRemote,
    ManifestGitUser,
    ManifestLimits,
    ManifestSource,
)
from bot_bottle.preflight import first_line, preflight_lines, route_text
from bot_bottle.print_util import visible_agent_env_names
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import Pin

_END = "removed after exit code 0 unless --keep is given"


@pytest.fixture
def plan() -> BottlePlan:
    provider = ManifestAgentProvider(template="command", argv=("x",))
    bottle = ManifestBottle(
        name="b", path=Path("/home/o/b.md"), agent_provider=provider, env={"EDITOR": "literal", "KEY": "?ask"}
    )
    agent = ManifestAgent(name="a", path=Path("/repo/a.md"), bottle="b", prompt="Be kind.\nMore.")
    manifest = Manifest(agents={"a": agent}, bottles={"b": bottle})
    return BottlePlan(
        spec=BottleSpec(manifest=manifest, agent_name="a", user_cwd=Path("/repo")),
        identity="a-abcde",
        backend_name="scripted",
        bottle=bottle,
        provision=AgentProvisionPlan(
            template="command",
            program="x",
            argv=("x",),
            guest_env={"PLACEHOLDER": "fake", "SHOWN": "1"},
            hidden_env_names=frozenset({"PLACEHOLDER"}),
        ),
        routes=(),
        state_dir=Path("/state/a-abcde"),
        audit_path=Path("/audit/a-abcde.jsonl"),
        guest_env={"EDITOR": "literal", "KEY": "typed-secret"},
        secrets={"TOKEN": Secret("real-secret")},
    )


def rows(plan: BottlePlan, **words: str) -> dict[str, list[str]]:
    """Give the preflight as label -> its lines."""
    found: dict[str, list[str]] = {}
    label = ""
    for line in preflight_lines(plan, **words):
        head, value = line[:14].strip(), line[16:]
        label = head or label
        found.setdefault(label, []).append(value)
    return found


def test_names_are_shown_and_values_are_not(plan: BottlePlan) -> None:
    shown = rows(plan)
    assert shown["env"] == ["EDITOR, KEY", "SHOWN  <- provider command"]
    assert shown["prompt"] == ["Be kind. (14 characters)"]
    assert shown["egress"] == ["(no way out)"]
    text = "\n".join(preflight_lines(plan))
    assert not any(value in text for value in ("literal", "typed-secret", "real-secret", "fake"))


def test_an_operators_own_addresses_and_roots_are_shown(plan: BottlePlan) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    changed = replace(
        plan,
        pins={"api.example": Pin(address="127.0.0.1", port=8443), "six.example": Pin(address="::1", port=1)},
        upstream_ca_pem=pem,
    )
    shown = rows(changed, upstream_ca="/etc/lab.pem")
    assert shown["pins"] == [
        "api.example -> 127.0.0.1:8443 (config.toml)",
        "six.example -> [::1]:1 (config.toml)",
    ]
    assert shown["upstream CA"] == ["/etc/lab.pem: 1 certificate trusted for upstream servers"]
    assert "pins" not in rows(plan)
    assert "upstream CA" not in rows(plan)


def test_how_the_operator_hears_of_requests_is_shown(plan: BottlePlan) -> None:
    told = rows(replace(plan, on_request=("tell-me", "--loud"), notify=True))["on request"]
    assert told == ["runs tell-me --loud (config.toml)", "a notification on the desktop (config.toml)"]
    assert "on request" not in rows(plan)


def test_each_route_is_one_line_with_all_it_opens() -> None:
    route = EgressRoute(
        host="api.example",
        path_allowlist=("/v1/", "/v2/"),
        methods=("GET",),
        ports=(8443,),
        auth=RouteAuth(scheme="Bearer", token_ref="TOKEN"),
        tls_passthrough=True,
        ssrf_ip_allowlist=(ip_network("10.0.0.0/8"),),
    )
    assert route_text(route) == (
        "api.example [auth:Bearer TOKEN] [content rules off] methods GET ports 8443 paths /v1/ /v2/ "
        "may resolve to 10.0.0.0/8"
    )
    assert route_text(EgressRoute(host="*.example.org")) == "*.example.org"


def test_limits_that_do_not_hold_say_so(plan: BottlePlan) -> None:
    limits = (
        LimitStatus(name="memory", value="4 GiB", holds=True, how="cgroup v2"),
        LimitStatus(name="cpu", value="2", holds=False, how="no cgroup delegated"),
    )
    assert rows(replace(plan, limits=limits))["limits"] == [
        "memory 4 GiB: holds (cgroup v2)",
        "cpu 2: NOT HELD (no cgroup delegated)",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, f"empty (--cwd copies the current folder in), {_END}"),
        ({"copy_cwd": True}, f"a private copy of /repo, {_END}"),
        (
            {"repo": "https://h.example/p.git"},
            f"a clone of https://h.example/p.git through the git gate, {_END}",
        ),
        ({"identity": "a-abcde", "copy_cwd": True}, f"as the last session left it, {_END}"),
        ({"keep": True}, "empty (--cwd copies the current folder in), kept"),
    ],
)
def test_the_workspace(plan: BottlePlan, change: dict[str, bool | str], said: str) -> None:
    spec = replace(plan.spec, **change)  # type: ignore[arg-type]
    assert rows(replace(plan, spec=spec))["workspace"] == [said]


def test_a_headless_task_and_notes_are_shown(plan: BottlePlan) -> None:
    spec = replace(plan.spec, headless=True, prompt="Do this\nthen that")
    shown = rows(replace(plan, spec=spec, notes=("one", "two")), why="asked for", boundary="a wall")
    assert shown["task"] == ["Do this (17 characters)"]
    assert shown["note"] == ["one", "two"]
    assert shown["backend"] == ["scripted (asked for); a wall"]


def test_the_plan_prints_itself_to_stderr(plan: BottlePlan, capsys: pytest.CaptureFixture[str]) -> None:
    plan.print()
    assert capsys.readouterr() == ("", "\n".join(preflight_lines(plan)) + "\n")


def test_foreign_text_cannot_write_to_the_terminal(plan: BottlePlan) -> None:
    assert first_line("\x1b[2J\u202efoo\r\nbar") == r"\x1b[2J\u202efoo (13 characters)"
    assert first_line("") == "(empty)"


def test_placeholders_of_a_provider_are_no_news() -> None:
    assert visible_agent_env_names(["B", "A", "HIDDEN", "A"], frozenset({"HIDDEN"})) == ("A", "B")


def test_every_setting_is_shown_with_the_file_it_came_from(plan: BottlePlan) -> None:
    def at(line: int, name: str = "base") -> ManifestSource:
        return ManifestSource(path=Path(f"/home/o/bottles/{name}.md"), line=line, column=1)

    remote = ManifestGitRemote(
        host="git.example",
        name="project",
        upstream="ssh://git@git.example/p.git",
        scheme="ssh",
        user="git",
        upstream_host="git.example",
        port=None,
        path="/p.git",
    )
    bottle = replace(
        plan.bottle,
        extends=("base",),
        git=ManifestGit(user=ManifestGitUser(name="Bot\u202e"), remotes=(remote,)),
        supervise=True,
        workspace="copy",
        limits=ManifestLimits(memory=1 << 30),
        sources={
            "env.EDITOR": at(2),
            "env.KEY": at(2, "b"),
            "agent_provider": at(3),
            "egress.routes[0]": at(4),
            "git.user.name": at(5),
            "git.remotes.git.example": at(6),
            "supervise": at(7),
            "workspace": at(8),
            "limits.memory": at(9),
        },
    )
    agent = replace(
        plan.spec.manifest.agents["a"],
        skills=("tdd",),
        sources={"skills": ManifestSource(path=Path("/repo/.bot-bottle/agents/a.md"), line=3, column=1)},
    )
    manifest = Manifest(agents={"a": agent}, bottles={"b": bottle})
    routes = (
        EgressRoute(host="a.example", origin="egress.routes[0]"),
        EgressRoute(host="b.example", origin="egress.routes[0] + agent_provider.x"),
    )
    limit = LimitStatus(name="memory", value="1 GiB", holds=True, how="cgroup v2")
    spec = replace(plan.spec, manifest=manifest, copy_cwd=True)
    shown = rows(replace(plan, spec=spec, bottle=bottle, routes=routes, limits=(limit,)))
    assert shown["bottle"] == ["b (/home/o/b.md), extends base"]
    assert shown["provider"] == ["command x  <- bottles/base.md:3"]
    assert shown["env"][:2] == ["EDITOR  <- bottles/base.md", "KEY  <- bottles/b.md"]
    assert shown["skills"] == ["tdd  <- agents/a.md:3"]
    assert shown["git identity"] == [r"Bot\u202e (bottle)  <- bottles/base.md:5"]
    assert shown["git gate"] == [
        "project -> ssh://git@git.example/p.git [NO HOST KEY: closed], push: bottle/**  <- bottles/base.md:6"
    ]
    assert shown["egress"] == [
        "a.example  <- bottles/base.md:4",
        "b.example  <- bottles/base.md:4 + provider x (bottles/base.md:3)",
    ]
    assert shown["supervise"] == ["on  <- bottles/base.md:7"]
    assert shown["limits"] == ["memory 1 GiB: holds (cgroup v2)  <- bottles/base.md:9"]
    assert shown["workspace"] == [
        "a private copy of /repo, removed after exit code 0 unless --keep is given  <- bottles/base.md:8"
    ]
    assert "note" not in shown
