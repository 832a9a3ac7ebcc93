"""What providers ask for, as data; and what their shell lines really do."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import bot_bottle
from bot_bottle.agent_account import AGENT_HOME, AGENT_WORKSPACE
from bot_bottle.agent_provider.claude_login import PLACEHOLDER_KEY, PLACEHOLDER_TOKEN
from bot_bottle.agent_provider.guide import GUIDE_PATH, POINTER
from bot_bottle.agent_provider.registry import (
    DEFAULT_TEMPLATE,
    agent_provision_plan,
    check_provider_keys,
    known_templates,
)
from bot_bottle.egress.routes import RouteAuth, egress_resolve_token_values, egress_routes_for_bottle
from bot_bottle.errors import UsageError
from bot_bottle.manifest.model import (
    ManifestAgent,
    ManifestAgentProvider,
    ManifestBottle,
    ManifestEgress,
    ManifestRoute,
)

if TYPE_CHECKING:
    from bot_bottle.agent_provider.plan import AgentProvisionPlan

SYSTEM = f"{AGENT_HOME}/.bot-bottle/system-prompt.md"
#: What the program is always started with.
STARTED = ["--dangerously-skip-permissions", "--append-system-prompt-file", SYSTEM]
REAL = "sk-ant-oat01-the-real-one"


def plan(
    tmp_path: Path,
    *,
    template: str = "claude",
    argv: tuple[str, ...] = (),
    auth_token: str = "",
    body: str = "",
    headless: bool = False,
    prompt: str = "",
    resume: bool = False,
    claude_plan: str = "",
    api_key: str = "",
    token_command: tuple[str, ...] = (),
    token_file: str = "",
    env: dict[str, str] | None = None,
    bottle_env: dict[str, str] | None = None,
) -> AgentProvisionPlan:
    provider = ManifestAgentProvider(
        template=template,
        argv=argv,
        auth_token=auth_token,
        plan=claude_plan,
        api_key=api_key,
        token_command=token_command,
        token_file=token_file,
    )
    bottle = ManifestBottle(name="b", path=tmp_path / "b.md", agent_provider=provider, env=bottle_env or {})
    agent = ManifestAgent(name="a", path=tmp_path / "a.md", bottle="b", prompt=body)
    return agent_provision_plan(
        bottle,
        agent,
        env=env or {"TOK": REAL, "HOME": str(tmp_path)},
        headless=headless,
        prompt=prompt,
        resume=resume,
    )


def contents(made: AgentProvisionPlan) -> dict[str, str]:
    return {file.path: file.content.decode() for file in made.files}


def test_claude_with_a_token_gets_its_route_its_placeholder_and_quiet(tmp_path: Path) -> None:
    made = plan(tmp_path, auth_token="TOK")
    (route,) = made.egress_routes
    assert route.host == "api.anthropic.com"
    assert route.auth == RouteAuth(scheme="Bearer", token_ref="TOK", placeholders=(PLACEHOLDER_TOKEN,))
    assert route.tls_passthrough
    assert route.effective_ports == (443,)
    assert made.guest_env["CLAUDE_CODE_OAUTH_TOKEN"] == PLACEHOLDER_TOKEN
    assert PLACEHOLDER_TOKEN.startswith("sk-ant-oat01-")
    assert made.hidden_env_names == frozenset({"CLAUDE_CODE_OAUTH_TOKEN"})
    for flag in (
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "DISABLE_ERROR_REPORTING",
        "DISABLE_AUTOUPDATER",
    ):
        assert made.guest_env[flag] == "1"
    assert REAL not in repr(made) + json.dumps(made.guest_env) + "".join(contents(made).values())


def login(made: AgentProvisionPlan, folder: str = ".claude") -> dict[str, object]:
    read = json.loads(contents(made)[f"{AGENT_HOME}/{folder}/.credentials.json"])["claudeAiOauth"]
    assert isinstance(read, dict)
    return read


def host_login(folder: Path, plan: object) -> None:
    folder.mkdir(parents=True)
    real = {"accessToken": REAL, "refreshToken": REAL, "subscriptionType": plan, "rateLimitTier": "tier_20x"}
    (folder / ".credentials.json").write_text(json.dumps({"claudeAiOauth": real}))


def test_claudes_stand_in_is_a_login_that_opens_nothing_and_never_ends(tmp_path: Path) -> None:
    made = login(plan(tmp_path, auth_token="TOK"))
    assert made["accessToken"] == PLACEHOLDER_TOKEN
    assert made["refreshToken"] is None
    assert made["scopes"] == ["user:inference"]
    assert made["subscriptionType"] is None
    assert isinstance(made["expiresAt"], int)
    assert made["expiresAt"] > 4_000_000_000_000


@pytest.mark.parametrize(
    ("host", "written", "known"),
    [
        ("max", "", ("max", "tier_20x")),
        ("max", "max", ("max", "tier_20x")),
        ("pro", "max", ("max", None)),
        (None, "team", ("team", None)),
        (REAL, "", (None, None)),  # no word of a plan: it could be anything, so it stays outside
        (["max"], "", (None, None)),
    ],
)
def test_claudes_plan_is_what_is_written_or_what_the_host_is_logged_in_with(
    tmp_path: Path, host: object, written: str, known: tuple[str | None, str | None]
) -> None:
    host_login(tmp_path / "settings", host)
    env = {"TOK": REAL, "CLAUDE_CONFIG_DIR": str(tmp_path / "settings")}
    made = plan(tmp_path, auth_token="TOK", claude_plan=written, env=env)
    assert (login(made)["subscriptionType"], login(made)["rateLimitTier"]) == known
    assert REAL not in "".join(contents(made).values())


def test_claude_with_an_api_key_gets_the_header_and_is_not_asked_about_it(tmp_path: Path) -> None:
    made = plan(tmp_path, api_key="KEY")
    (route,) = made.egress_routes
    assert route.host == "api.anthropic.com"
    assert route.auth == RouteAuth(
        scheme="header", name="x-api-key", token_ref="KEY", placeholders=(PLACEHOLDER_KEY,)
    )
    assert made.guest_env["ANTHROPIC_API_KEY"] == PLACEHOLDER_KEY
    assert made.hidden_env_names == frozenset({"ANTHROPIC_API_KEY"})
    state = json.loads(contents(made)[f"{AGENT_HOME}/.claude.json"])
    assert state["customApiKeyResponses"]["approved"] == [PLACEHOLDER_KEY[-20:]]
    assert not any(path.endswith(".credentials.json") for path in contents(made))


def test_claudes_files_go_where_the_bottle_wants_them(tmp_path: Path) -> None:
    place = f"{AGENT_HOME}/.config/claude"
    made = plan(tmp_path, auth_token="TOK", bottle_env={"CLAUDE_CONFIG_DIR": place})
    assert login(made, ".config/claude")["accessToken"] == PLACEHOLDER_TOKEN
    assert {f"{place}/.claude.json", f"{place}/settings.json"} <= contents(made).keys()
    assert not any("/.claude/" in path for path in contents(made))
    for outside in ("/etc/claude", AGENT_HOME, f"{AGENT_HOME}/../x", "relative"):
        with pytest.raises(UsageError, match="CLAUDE_CONFIG_DIR"):
            plan(tmp_path, bottle_env={"CLAUDE_CONFIG_DIR": outside})


def test_claude_itself_goes_by_the_file_and_its_tools_still_have_the_variable(tmp_path: Path) -> None:
    made = plan(tmp_path, auth_token="TOK")
    assert made.guest_env["CLAUDE_CODE_OAUTH_TOKEN"] == PLACEHOLDER_TOKEN
    seen = run_as_claude(made, tmp_path, print_env=True)
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in str(seen["stdin"])
    assert seen["argv"] == STARTED


def test_claude_without_a_token_opens_nothing(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.egress_routes == ()
    assert made.hidden_env_names == frozenset()
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in made.guest_env


def test_the_providers_route_keeps_the_operators_narrower_paths(tmp_path: Path) -> None:
    bottle = ManifestBottle(
        name="b",
        path=tmp_path / "b.md",
        agent_provider=ManifestAgentProvider(template="claude", auth_token="TOK"),
        egress=ManifestEgress(
            routes=(ManifestRoute(host="api.anthropic.com", path_allowlist=("/v1/messages",)),)
        ),
    )
    (route,) = egress_routes_for_bottle(bottle, plan(tmp_path, auth_token="TOK").egress_routes)
    assert route.path_allowlist == ("/v1/messages",)
    assert egress_resolve_token_values([route], {"TOK": REAL})["TOK"].reveal() == REAL


def test_claude_starts_without_a_question(tmp_path: Path) -> None:
    made = plan(tmp_path)
    assert made.argv == ("claude", "--dangerously-skip-permissions", "--append-system-prompt-file", SYSTEM)
    assert made.program == "claude"
    state = json.loads(contents(made)[f"{AGENT_HOME}/.claude.json"])
    assert state["hasCompletedOnboarding"] is True
    assert state["bypassPermissionsModeAccepted"] is True
    assert state["projects"][AGENT_WORKSPACE]["hasTrustDialogAccepted"] is True
    assert all(file.mode == 0o600 for file in made.files)


def test_claude_reads_the_agents_prompt_from_a_file(tmp_path: Path) -> None:
    made = plan(tmp_path, body="You are a reader.")
    at = made.argv.index("--append-system-prompt-file")
    assert contents(made)[made.argv[at + 1]] == f"You are a reader.\n\n{POINTER}\n"
    assert GUIDE_PATH in POINTER


def test_claudes_task_is_never_in_argv(tmp_path: Path) -> None:
    made = plan(tmp_path, headless=True, prompt="the secret task")
    assert made.argv[:2] == ("/bin/sh", "-c")
    assert "--print" in made.argv
    assert not any("secret task" in element for element in made.argv)
    assert "the secret task\n" in contents(made).values()


def test_claude_headless_without_a_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--prompt"):
        plan(tmp_path, headless=True)


def run_as_claude(made: AgentProvisionPlan, home: Path, *, print_env: bool = False) -> dict[str, object]:
    """Run the plan's argv with a stand-in program, with the bottle's home moved to ``home``."""
    program = home / "bin" / "claude"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nprintf "%s\\n" "$@"\nprintf "stdin: "; ' + ("env" if print_env else "cat") + "\n"
    )
    program.chmod(0o755)
    for file in made.files:
        path = home / file.path.removeprefix(f"{AGENT_HOME}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
    argv = [element.replace(AGENT_HOME, str(home)) for element in made.argv]
    env = {**made.guest_env, "PATH": f"{program.parent}:/usr/bin:/bin", "HOME": str(home)}
    done = subprocess.run(argv, env=env, capture_output=True, check=True, input=b"", timeout=20)
    arguments, _, stdin = done.stdout.decode().partition("stdin: ")
    return {"argv": arguments.replace(str(home), AGENT_HOME).split(), "stdin": stdin}


def test_claude_gets_its_task_on_standard_input(tmp_path: Path) -> None:
    made = plan(tmp_path, headless=True, prompt='say "$HOME" `id`')
    seen = run_as_claude(made, tmp_path)
    assert seen == {"argv": [*STARTED, "--print"], "stdin": 'say "$HOME" `id`\n'}


@pytest.mark.parametrize("begun", [False, True])
def test_claude_continues_only_a_conversation_that_has_begun(tmp_path: Path, *, begun: bool) -> None:
    made = plan(tmp_path, resume=True, headless=True, prompt="go on")
    assert f"{AGENT_HOME}/.claude.json" not in contents(made)
    if begun:
        folder = tmp_path / ".claude" / "projects" / "-home-agent-workspace"
        folder.mkdir(parents=True)
        (folder / "1.jsonl").write_text("{}")
    argv = run_as_claude(made, tmp_path)["argv"]
    assert isinstance(argv, list)
    assert ("--continue" in argv) is begun


def test_a_command_runs_as_it_is_written(tmp_path: Path) -> None:
    made = plan(tmp_path, template="command", argv=("my-agent", "--flag", "a b"))
    assert made.argv == ("my-agent", "--flag", "a b")
    assert made.program == "my-agent"
    assert (made.files, made.guest_env, made.egress_routes) == ((), {}, ())


def test_a_commands_prompt_is_a_file_and_fills_its_placeholders(tmp_path: Path) -> None:
    argv = ("my-agent", "--file={prompt_file}", "-p", "{prompt}", "{other}")
    made = plan(
        tmp_path, template="command", argv=argv, body="Body {prompt_file}", headless=True, prompt="Task"
    )
    (path,) = contents(made)
    assert contents(made)[path] == "Body {prompt_file}\n\nTask\n"
    assert made.guest_env == {"BOT_BOTTLE_PROMPT_FILE": path}
    assert made.argv == ("my-agent", f"--file={path}", "-p", "Body {prompt_file}\n\nTask", "{other}")
    assert path.startswith(f"{AGENT_HOME}/")


def test_a_prompt_too_long_for_an_argument_is_refused_before_the_kernel_does(tmp_path: Path) -> None:
    long = "x" * (128 * 1024)
    with pytest.raises(UsageError, match="prompt_file"):
        plan(tmp_path, template="command", argv=("a", "{prompt}"), body=long)
    assert plan(tmp_path, template="command", argv=("a", "{prompt_file}"), body=long).argv[0] == "a"


def test_templates_say_which_keys_they_know() -> None:
    assert known_templates() == ("claude", "codex", "command")
    assert DEFAULT_TEMPLATE == "claude"
    assert check_provider_keys("claude", {"auth_token"}) == []
    assert check_provider_keys("command", {"argv"}) == []
    assert check_provider_keys("codex", {"forward_host_credentials", "dockerfile"}) == []
    assert [key for key, _ in check_provider_keys("command", {"auth_token"})] == ["auth_token", ""]


def test_no_provider_is_named_outside_its_folder() -> None:
    # A dotted name is a folder of the operator's own home, which a backend may know as private; *-key names
    # a header field or a form of credential, which is refused whoever runs.
    named = re.compile(
        r"(?<![.\w])(claude|anthropic|codex|openai|chatgpt)(?!-(?:[a-z]+-)*key\b)", re.IGNORECASE
    )
    package = Path(bot_bottle.__file__).parent
    naming = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if named.search(path.read_text())
    }
    assert {path for path in naming if not path.startswith(("agent_provider/", "demo/"))} == set()
