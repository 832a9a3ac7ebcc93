"""Provider ``codex``: Codex, unattended, with the host's login or an API key; the bottle holds neither."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_HOME, AGENT_WORKSPACE
from bot_bottle.agent_provider.guide import standing
from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionFile
from bot_bottle.egress.routes import EgressRoute, RouteAuth
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.agent_provider.codex_auth import HostLogin
    from bot_bottle.agent_provider.plan import ProvisionRequest
    from bot_bottle.renewal import Renewal

TEMPLATE = "codex"
MANIFEST_KEYS = frozenset({"forward_host_credentials", "api_key"})
REQUIRED_KEYS: Mapping[str, str] = MappingProxyType({})
ALTERNATIVES = frozenset({"forward_host_credentials", "api_key"})
INSTALL = "npm install -g @openai/codex"
SKILLS_FOLDER = ".agents/skills"
ASKS: Mapping[str, str] = MappingProxyType({"forward_host_credentials": "true"})

#: Names the host login's access token between ``provisioned_env`` and its route.
CODEX_HOST_CREDENTIAL_TOKEN_REF = "CODEX_HOST_CREDENTIAL_TOKEN"  # noqa: S105 - a name

_CODEX_HOME = f"{AGENT_HOME}/.codex"
_FOLDER = f"{AGENT_HOME}/.bot-bottle"
_PROMPT_FILE = f"{_FOLDER}/prompt.md"

# What a session needs: the model, its list, which workspace the account is, how much of the plan is left. Not
# the connectors, plugins, files and settings behind the same host: those reach further than any model does.
_CHATGPT_HOST = "chatgpt.com"
_CHATGPT_PATHS = (
    "/backend-api/codex/responses",
    "/backend-api/codex/models",
    "/backend-api/wham/accounts/check",
    "/backend-api/wham/usage",
)
_API_HOST = "api.openai.com"
_API_PATHS = ("/v1/responses",)

# The bottle is the sandbox and nobody is there to ask; what would only be refused is not tried (connectors,
# telemetry, updates); bodies stay readable for content rules; no server of its own outlives a session.
_CONFIG = f"""\
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
cli_auth_credentials_store = "file"

[projects."{AGENT_WORKSPACE}"]
trust_level = "trusted"

[analytics]
enabled = false

[feedback]
enabled = false

[otel]
metrics_exporter = "none"

[tui]
show_tooltips = false

[notice]
hide_full_access_warning = true

[features]
api_key_model_discovery = false
apps = false
plugins = false
remote_plugin = false
daemon_auto_start = false
enable_request_compression = false
"""

# ``resume --last`` is an error, or a question, where the first session ended before its first message.
_RESUME_IF_BEGUN = (
    f"for file in {_CODEX_HOME}/sessions/*/*/*/rollout-*; "
    'do if [ -e "$file" ]; then set -- "$@" resume --last{more}; break; fi; done'
)


def provision(request: ProvisionRequest) -> AgentProvisionPlan:
    """Say what Codex needs.

    Raises ``UsageError`` for a headless run without a prompt, and for a host login that cannot be forwarded.
    """
    from bot_bottle.agent_provider import codex_auth  # noqa: PLC0415 - listing what there is needs none of it
    from bot_bottle.backend.util import AGENT_CA_BUNDLE  # noqa: PLC0415

    if request.headless and not request.prompt.strip():
        raise UsageError("a headless run needs a task: --prompt TEXT")
    provider = request.provider
    files: list[ProvisionFile] = []
    routes: tuple[EgressRoute, ...] = ()
    secrets: dict[str, str] = {}
    renewals: tuple[Renewal, ...] = ()
    if provider.forward_host_credentials:
        routes = (
            _route(
                _CHATGPT_HOST, _CHATGPT_PATHS, CODEX_HOST_CREDENTIAL_TOKEN_REF, codex_auth.placeholder_mark()
            ),
        )
        if not request.preview:
            login = codex_auth.read_host_login(request.host_env, time.time())
            secrets = {CODEX_HOST_CREDENTIAL_TOKEN_REF: login.access_token.reveal()}
            renewals = (_renewal(login, request.host_env),)
            files.append(ProvisionFile(path=f"{_CODEX_HOME}/auth.json", content=login.stand_in))
    elif provider.api_key:
        routes = (_route(_API_HOST, _API_PATHS, provider.api_key, codex_auth.PLACEHOLDER_KEY),)
        files.append(ProvisionFile(path=f"{_CODEX_HOME}/auth.json", content=codex_auth.api_key_stand_in()))
    files.append(_text_file(f"{_CODEX_HOME}/AGENTS.md", standing(request.agent_prompt)))
    if request.headless:
        # The task is read from a file inside: in argv every user of the machine could read it (ps).
        files.append(_text_file(_PROMPT_FILE, request.prompt))
    if not request.resume:
        # A resumed session keeps what the program itself has written there since.
        files.append(ProvisionFile(path=f"{_CODEX_HOME}/config.toml", content=_config(request.supervise_url)))
    return AgentProvisionPlan(
        template=TEMPLATE,
        program=TEMPLATE,
        argv=_argv(headless=request.headless, resume=request.resume),
        dirs=(_FOLDER, _CODEX_HOME),
        files=tuple(files),
        # Codex brings its own roots, and of the variables for others it reads this one only.
        guest_env={"CODEX_HOME": _CODEX_HOME, "CODEX_CA_CERTIFICATE": AGENT_CA_BUNDLE},
        egress_routes=routes,
        provisioned_env=secrets,
        renewals=renewals,
    )


def _renewal(login: HostLogin, host_env: Mapping[str, str]) -> Renewal:
    """Say how the host's login is read again; Codex on this host renews it where nothing else has."""
    from bot_bottle.agent_provider import codex_auth, codex_renewal  # noqa: PLC0415
    from bot_bottle.renewal import MARGIN, Fresh, Renewal  # noqa: PLC0415

    def is_due() -> bool:
        return codex_auth.read_host_login(host_env, 0.0).ends_at - time.time() <= MARGIN

    def read() -> Fresh:
        if is_due():
            codex_renewal.renew(host_env, is_due)
        now = codex_auth.read_host_login(host_env, time.time())
        return Fresh(value=now.access_token, ends_at=now.ends_at)

    return Renewal(
        token_ref=CODEX_HOST_CREDENTIAL_TOKEN_REF,
        first=Fresh(value=login.access_token, ends_at=login.ends_at),
        read=read,
    )


def _config(supervise_url: str) -> bytes:
    if not supervise_url:
        return _CONFIG.encode()
    server = f'\n[mcp_servers.bot-bottle]\nurl = "{supervise_url}"\ntool_timeout_sec = 60\n'
    return f"{_CONFIG}{server}".encode()


def _argv(*, headless: bool, resume: bool) -> tuple[str, ...]:
    everything = "--dangerously-bypass-approvals-and-sandbox"
    argv = (TEMPLATE, "exec", "--skip-git-repo-check", everything) if headless else (TEMPLATE, everything)
    if not headless and not resume:
        return argv
    script = f'exec "$@" - < {_PROMPT_FILE}' if headless else 'exec "$@"'
    if resume:
        # Sessions of headless runs count as well; ``exec`` takes either kind anyway.
        begun = _RESUME_IF_BEGUN.replace("{more}", "" if headless else " --include-non-interactive")
        script = f"{begun}; {script}"
    return ("/bin/sh", "-c", script, TEMPLATE, *argv)


def _route(host: str, paths: tuple[str, ...], token_ref: str, placeholder: str) -> EgressRoute:
    return EgressRoute(
        host=host,
        path_allowlist=paths,
        methods=("GET", "POST"),
        auth=RouteAuth(scheme="Bearer", token_ref=token_ref, placeholders=(placeholder,)),
        tls_passthrough=True,
        usage="responses",
        origin=f"agent_provider.{TEMPLATE}",
    )


def _text_file(path: str, text: str) -> ProvisionFile:
    return ProvisionFile(path=path, content=f"{text}\n".encode())
