"""Provider ``claude``: Claude Code, unattended; egress adds its credential, which the bottle never holds."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_HOME, AGENT_WORKSPACE
from bot_bottle.agent_provider.guide import standing
from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionFile
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.agent_provider.plan import ProvisionRequest
    from bot_bottle.renewal import Renewal

TEMPLATE = "claude"
MANIFEST_KEYS = frozenset({"auth_token", "plan", "api_key", "token_command", "token_file"})
REQUIRED_KEYS: Mapping[str, str] = MappingProxyType({})
ALTERNATIVES = frozenset({"auth_token", "api_key", "token_command", "token_file"})
INSTALL = "npm install -g @anthropic-ai/claude-code"
SKILLS_FOLDER = ".claude/skills"
ASKS: Mapping[str, str] = MappingProxyType({"auth_token": "BOT_BOTTLE_CLAUDE_OAUTH_TOKEN"})

API_HOST = "api.anthropic.com"

_TOKEN_VARIABLE = "CLAUDE_CODE_OAUTH_TOKEN"  # noqa: S105 - a name
_KEY_VARIABLE = "ANTHROPIC_API_KEY"

_CONFIG_FOLDER = f"{AGENT_HOME}/.claude"
_FOLDER = f"{AGENT_HOME}/.bot-bottle"
_SYSTEM_PROMPT_FILE = f"{_FOLDER}/system-prompt.md"
_PROMPT_FILE = f"{_FOLDER}/prompt.md"

# ``--continue`` is an error where the first session ended before its first message.
_CONTINUE_IF_BEGUN = (
    'for file in "${CLAUDE_CONFIG_DIR:-$HOME/.claude}"/projects/*/*.jsonl; '
    'do if [ -e "$file" ]; then set -- "$@" --continue; break; fi; done'
)

# The program is bound read-only, so it must not try to replace itself.
_ALWAYS = {"DISABLE_AUTOUPDATER": "1"}
# Telemetry, error reports and plugins go to hosts that no provider route opens; asking is only noise in the
# audit log.
_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
}


def provision(request: ProvisionRequest) -> AgentProvisionPlan:
    """Say what Claude Code needs.

    Raises ``UsageError`` for a headless run without a prompt, and for a folder of settings that is not in
    the agent's home.
    """
    # Listing what there is needs none of these.
    from bot_bottle.agent_provider import claude_login, token_command, token_file  # noqa: PLC0415

    if request.headless and not request.prompt.strip():
        raise UsageError("a headless run needs a task: --prompt TEXT")
    folder, state_file = _places(request.bottle_env.get(claude_login.CONFIG_DIR, ""))
    token, key = request.provider.auth_token, request.provider.api_key
    renewals: tuple[Renewal, ...] = ()
    if request.provider.token_command:
        token = token_command.TOKEN_COMMAND_REF
        if not request.preview:
            renewals = (token_command.renewal(request.provider.token_command, request.host_env),)
    elif request.provider.token_file:
        token = token_file.TOKEN_FILE_REF
        if not request.preview:
            renewals = (token_file.renewal(request.provider.token_file, request.host_env),)
    files: list[ProvisionFile] = []
    argv = [TEMPLATE, "--dangerously-skip-permissions"]
    before, after = [], ""
    files.append(_text_file(_SYSTEM_PROMPT_FILE, standing(request.agent_prompt)))
    argv += ["--append-system-prompt-file", _SYSTEM_PROMPT_FILE]
    if request.headless:
        # The task is read from a file inside: in argv every user of the machine could read it (ps).
        files.append(_text_file(_PROMPT_FILE, request.prompt))
        argv.append("--print")
        after = f" < {_PROMPT_FILE}"
    if request.resume:
        before.append(_CONTINUE_IF_BEGUN)
    else:
        # A resumed session keeps what the program itself has written there since.
        key_inside = claude_login.PLACEHOLDER_KEY if key else ""
        files += _first_start_files(folder, state_file, key_inside, request.supervise_url)
    if token:
        plan, tier = ("", "") if request.preview else claude_login.host_plan(request.host_env)
        if request.provider.plan and request.provider.plan != plan:
            plan, tier = request.provider.plan, ""
        login = claude_login.stand_in(plan, tier)
        files.append(ProvisionFile(path=claude_login.credentials_path(folder), content=login))
        # The program itself goes by the file alone: of a token in its environment it knows no plan.
        before.append(f"unset {_TOKEN_VARIABLE}")
    routes: tuple[EgressRoute, ...] = ()
    stand_ins: dict[str, str] = {}
    if token:
        auth = RouteAuth(scheme="Bearer", token_ref=token, placeholders=(claude_login.PLACEHOLDER_TOKEN,))
        routes = (_api_route(auth),)
        stand_ins = {_TOKEN_VARIABLE: claude_login.PLACEHOLDER_TOKEN}
    elif key:
        stand_in = (claude_login.PLACEHOLDER_KEY,)
        routes = (
            _api_route(RouteAuth(scheme="header", name="x-api-key", token_ref=key, placeholders=stand_in)),
        )
        stand_ins = {_KEY_VARIABLE: claude_login.PLACEHOLDER_KEY}
    if before or after:
        script = "; ".join((*before, f'exec "$@"{after}'))
        argv = ["/bin/sh", "-c", script, TEMPLATE, *argv]
    return AgentProvisionPlan(
        template=TEMPLATE,
        program=TEMPLATE,
        argv=tuple(argv),
        dirs=(_FOLDER, folder),
        files=tuple(files),
        guest_env={**_ALWAYS, **(_QUIET if stand_ins else {}), **stand_ins},
        egress_routes=routes,
        provisioned_env={one.token_ref: one.first.value.reveal() for one in renewals},
        renewals=renewals,
        hidden_env_names=frozenset(stand_ins),
    )


def _places(config_dir: str) -> tuple[str, str]:
    """Give the folder of settings and the file of state; with a folder of its own the latter is in it."""
    if not config_dir:
        return _CONFIG_FOLDER, f"{AGENT_HOME}/.claude.json"
    place = PurePosixPath(config_dir)
    if ".." in place.parts or not place.is_relative_to(AGENT_HOME) or place == PurePosixPath(AGENT_HOME):
        raise UsageError(
            f"env.CLAUDE_CONFIG_DIR: the agent's files go below {AGENT_HOME}; "
            f"write for example {AGENT_HOME}/.config/claude"
        )
    return str(place), f"{place}/.claude.json"


def _api_route(auth: RouteAuth) -> EgressRoute:
    return EgressRoute(
        host=API_HOST,
        auth=auth,
        tls_passthrough=True,
        usage="messages",
        origin=f"agent_provider.{TEMPLATE}",
    )


def _first_start_files(folder: str, state_file: str, key: str, supervise_url: str) -> list[ProvisionFile]:
    """Answer, as files, what the program would ask at its first start; nobody is there to answer."""
    state: dict[str, object] = {
        "hasCompletedOnboarding": True,
        "bypassPermissionsModeAccepted": True,
        "projects": {
            AGENT_WORKSPACE: {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        },
    }
    if key:
        # It asks whether to use a key it finds in its environment, and remembers the answer by the key's end.
        state["customApiKeyResponses"] = {"approved": [key[-20:]], "rejected": []}
    if supervise_url:
        state["mcpServers"] = {"bot-bottle": {"type": "http", "url": supervise_url}}
    settings = {"skipDangerousModePermissionPrompt": True}
    return [
        _text_file(state_file, json.dumps(state, indent=2)),
        _text_file(f"{folder}/settings.json", json.dumps(settings, indent=2)),
    ]


def _text_file(path: str, text: str) -> ProvisionFile:
    return ProvisionFile(path=path, content=f"{text}\n".encode())
