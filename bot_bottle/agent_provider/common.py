"""What a bottle gets whatever program runs in it: a guide to it, skills, who its commits are from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider.guide import guide_file
from bot_bottle.agent_provider.plan import ProvisionFile
from bot_bottle.agent_provider.registry import skills_folder
from bot_bottle.agent_provider.skills import skill_files
from bot_bottle.errors import UsageError
from bot_bottle.git_gate.spellings import gitconfig as gate_config
from bot_bottle.manifest.problem import ManifestFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bot_bottle.agent_provider.plan import AgentProvisionPlan
    from bot_bottle.git_gate.remote import GateRemote
    from bot_bottle.manifest.model import ManifestAgent, ManifestBottle, ManifestGitUser

_GITCONFIG = f"{AGENT_HOME}/.gitconfig"
_GATE_CONFIG = f"{AGENT_HOME}/.config/bot-bottle/git-gate.gitconfig"


def with_common_files(
    plan: AgentProvisionPlan,
    bottle: ManifestBottle,
    agent: ManifestAgent,
    *,
    env: Mapping[str, str],
    resume: bool = False,
) -> AgentProvisionPlan:
    """Add to a provider's plan what does not depend on the provider.

    ``env`` is the operator's environment, whose ``HOME`` holds the skills. A resumed bottle keeps its
    ``~/.gitconfig``, which the agent may have written to since. Raises ``ManifestError`` for a skill
    that cannot come in.
    """
    user, remotes = bottle.git.user, bottle.git.remotes
    files = (guide_file(), *agent_skills(bottle, agent, env=env))
    if (user.name or user.email or remotes) and not resume:
        content = gitconfig(user) if user.name or user.email else b""
        if remotes:
            content += f"[include]\n\tpath = {_GATE_CONFIG}\n".encode()
        files = (*files, ProvisionFile(path=_GITCONFIG, content=content, mode=0o644))
    return replace(plan, files=(*plan.files, *files))


def with_git_gate(plan: AgentProvisionPlan, remotes: Sequence[GateRemote], gate: str) -> AgentProvisionPlan:
    """Lead git inside the bottle to ``gate`` (``http://ADDRESS:PORT``) for every spelling of ``remotes``.

    It is a file of its own, which ``~/.gitconfig`` includes, so that a resumed bottle has what is declared
    now. The agent may change it: without it there is just no way to the upstream.
    """
    if not remotes:
        return plan
    content = gate_config(remotes, gate)
    return replace(plan, files=(*plan.files, ProvisionFile(path=_GATE_CONFIG, content=content, mode=0o644)))


def agent_skills(
    bottle: ManifestBottle, agent: ManifestAgent, *, env: Mapping[str, str]
) -> tuple[ProvisionFile, ...]:
    """Read an agent's skills from the operator's home; raises ``ManifestError`` for one that may not."""
    if not agent.skills:
        return ()
    template = bottle.agent_provider.template
    folder = skills_folder(template)
    if not folder:
        message = (
            f"the bottle {bottle.name} runs template {template}, which has no skills; "
            "remove them or name another bottle"
        )
        raise _skills_error(agent, message)
    try:
        return skill_files(agent.skills, folder, Path(env.get("HOME") or Path.home()))
    except UsageError as error:
        raise _skills_error(agent, str(error)) from error


def _skills_error(agent: ManifestAgent, message: str) -> ManifestFileError:
    source = agent.sources.get("skills")
    line, column = (source.line, source.column) if source else (0, 0)
    problem = Problem(file=str(agent.path), line=line, column=column, key="skills", message=message)
    return ManifestFileError([problem])


def gitconfig(user: ManifestGitUser) -> bytes:
    """Write ``[user]`` in git's own syntax; both values are printable lines (see ``values.git_text``)."""
    lines = ["[user]"]
    for key, value in (("name", user.name), ("email", user.email)):
        if value:
            # git-config(1), Syntax: inside quotes only these two need an escape.
            quoted = value.replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'\t{key} = "{quoted}"')
    return ("\n".join(lines) + "\n").encode()
