"""Keys that no manifest has, each with the sentence that says what to write instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.manifest.schema import AgentGitKeys, AgentKeys, BottleKeys, EgressKeys, GitKeys, RouteKeys

if TYPE_CHECKING:
    from pydantic import BaseModel

_NOW_A_ROUTE = "has been replaced; write a route under egress.routes with auth: {scheme, token_ref}"
_NOT_AN_AGENTS = (
    "belongs to the bottle: what a bottle may do is the operator's to say; write it in the bottle's file"
)
_NO_CREDENTIAL = (
    "belongs to the bottle: an agent may come with a repository, and no repository chooses which of the "
    "operator's credentials are used; write it in the bottle's file"
)
_NO_REMOTES = (
    "belongs to the bottle: a remote carries a credential and trust in a host, which are the operator's to "
    "give; an agent may declare git.user only"
)
_NOT_A_BOTTLES = "belongs to an agent, not to a bottle"

#: Keys that never will be, with the sentence that says what to write instead.
REFUSED: dict[type[BaseModel], dict[str, str]] = {
    BottleKeys: {
        "git_user": "has moved to git.user",
        "cred_proxy": _NOW_A_ROUTE,
        "tokens": _NOW_A_ROUTE,
        "ssh": "has been removed; git remotes are reached through the git gate only",
        "runtime": "has been removed; the machine decides how a bottle is isolated (see --backend)",
        "backend": "is not the manifest's to say; use --backend or the operator's config file",
        "bottle": _NOT_A_BOTTLES,
        "skills": _NOT_A_BOTTLES,
    },
    EgressKeys: {"allowlist": "has been replaced; list the hosts under egress.routes as - host: NAME"},
    RouteKeys: {
        "role": "unknown role: no route has one; a provider adds its own routes (see agent_provider)"
    },
    GitKeys: {"repos": "has another name; write git.remotes", "name": "belongs to git.user"},
    AgentKeys: {
        **dict.fromkeys(
            ("env", "egress", "limits", "extends", "pipelock", "supervise", "workspace", "backend"),
            _NOT_AN_AGENTS,
        ),
        **dict.fromkeys(
            ("agent_provider", "auth", "auth_token", "token_ref", "tokens", "forward_host_credentials"),
            _NO_CREDENTIAL,
        ),
        **dict.fromkeys(("remotes", "IdentityFile", "KnownHostKey"), _NO_REMOTES),
        "api_key": _NO_CREDENTIAL,
        "token_command": _NO_CREDENTIAL,
        "token_file": _NO_CREDENTIAL,
        "git_user": "has moved to git.user",
    },
    AgentGitKeys: {"remotes": _NO_REMOTES},
}
