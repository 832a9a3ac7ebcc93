"""Provider ``claude``: Claude Code, unattended; egress adds its credential, which the bottle never holds."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionFile
from bot_bottle.backend.base import AGENT_HOME, AGENT_WORKSPACE
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.agent_provider.plan import ProvisionRequest

TEMPLATE = "claude"
MANIFEST_KEYS = frozenset({"auth_token"})
REQUIRED_KEYS: Mapping[str, str] = MappingProxyType({})
ALTERNATIVES: frozenset[str] = frozenset()
INSTALL = "npm install -g @anthropic-ai/claude-code"
SKILLS_FOLDER = ".claude/skills"
ASKS: Mapping[str, str] = MappingProxyType({"auth_token": "BOT_BOTTLE_CLAUDE_OAUTH_TOKEN"})

API_HOST = "api.anthropic.com"

#: Claude Code takes an OAuth token only in this form; egress strips it and adds the real one.
PLACEHOLDER_TOKEN = "sk-ant-oat01-egress-placeholder"  # noqa: S105 - it opens nothing, which is its purpose
_TOKEN_VARIABLE = "CLAUDE_CODE_OAUTH_TOKEN"  # noqa: S105 - a name

_FOLDER = f"{AGENT_HOME}/.bot-bottle"
_SYSTEM_PROMPT_FILE = f"{_FOLDER}/system-prompt.md"
_PROMPT_FILE = f"{_FOLDER}/prompt.md"

# ``--continue`` is an error where the first session ended before its first message.
_CONTINUE_IF_BEGUN = (
    "for file in ~/.claude/projects/*/*.jsonl; "
    'do if [ -e "$file" ]; then set -- "$@" --continue; break; fi; done'
)

# The program is bound read-only, so it must not try to replace itself.
_ALWAYS = {"DISABLE_AUTOUPDATER": "1"}
# Telemetry and error reports go to hosts that no provider route opens; asking is only noise in the audit log.
_QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_TELEMETRY": "1",
    "DISABLE_ERROR_REPORTING": "1",
}


def provision(request: ProvisionRequest) -> AgentProvisionPlan:
    """Say what Claude Code needs; raises ``UsageError`` for a headless run without a prompt."""
    if request.headless and not request.prompt.strip():
        raise UsageError("a headless run needs a task: --prompt TEXT")
    files: list[ProvisionFile] = []
    argv = [TEMPLATE, "--dangerously-skip-permissions"]
    script = 'exec "$@"'
    if request.agent_prompt:
        files.append(_text_file(_SYSTEM_PROMPT_FILE, request.agent_prompt))
        argv += ["--append-system-prompt-file", _SYSTEM_PROMPT_FILE]
    if request.headless:
        # The task is read from a file inside: in argv every user of the machine could read it (ps).
        files.append(_text_file(_PROMPT_FILE, request.prompt))
        argv.append("--print")
        script += f" < {_PROMPT_FILE}"
    if request.resume:
        script = f"{_CONTINUE_IF_BEGUN}; {script}"
    else:
        # A resumed session keeps what the program itself has written there since.
        files += _first_start_files()
    if request.headless or request.resume:
        argv = ["/bin/sh", "-c", script, TEMPLATE, *argv]
    token = request.provider.auth_token
    return AgentProvisionPlan(
        template=TEMPLATE,
        program=TEMPLATE,
        argv=tuple(argv),
        dirs=(_FOLDER, f"{AGENT_HOME}/.claude"),
        files=tuple(files),
        guest_env={**_ALWAYS, **_QUIET, _TOKEN_VARIABLE: PLACEHOLDER_TOKEN} if token else dict(_ALWAYS),
        egress_routes=(_api_route(token),) if token else (),
        hidden_env_names=frozenset({_TOKEN_VARIABLE}) if token else frozenset(),
    )


def _api_route(token_ref: str) -> EgressRoute:
    return EgressRoute(
        host=API_HOST,
        auth=RouteAuth(scheme="Bearer", token_ref=token_ref),
        tls_passthrough=True,
        origin=f"agent_provider.{TEMPLATE}",
    )


def _first_start_files() -> list[ProvisionFile]:
    """Answer, as files, what the program would ask at its first start; nobody is there to answer."""
    state = {
        "hasCompletedOnboarding": True,
        "bypassPermissionsModeAccepted": True,
        "projects": {
            AGENT_WORKSPACE: {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        },
    }
    settings = {"skipDangerousModePermissionPrompt": True}
    return [
        _text_file(f"{AGENT_HOME}/.claude.json", json.dumps(state, indent=2)),
        _text_file(f"{AGENT_HOME}/.claude/settings.json", json.dumps(settings, indent=2)),
    ]


def _text_file(path: str, text: str) -> ProvisionFile:
    return ProvisionFile(path=path, content=f"{text}\n".encode())
