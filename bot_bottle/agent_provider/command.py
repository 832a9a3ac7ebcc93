"""Provider ``command``: any program, run as the manifest writes it.

Inside the elements of ``argv``, ``{prompt_file}`` stands for a file that holds the agent's prompt followed by
the task of a headless run, and ``{prompt}`` for that text itself.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bot_bottle.agent_account import AGENT_HOME
from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionFile
from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.agent_provider.plan import ProvisionRequest

TEMPLATE = "command"
MANIFEST_KEYS = frozenset({"argv"})
REQUIRED_KEYS: Mapping[str, str] = MappingProxyType({"argv": "[my-agent, --run]"})
ALTERNATIVES: frozenset[str] = frozenset()
INSTALL = ""
SKILLS_FOLDER = ""
ASKS: Mapping[str, str] = MappingProxyType({"argv": "my-agent --run"})

_FOLDER = f"{AGENT_HOME}/.bot-bottle"
_PROMPT_FILE = f"{_FOLDER}/prompt.md"

#: execve(2): one argument may not be longer (MAX_ARG_STRLEN, 32 pages).
_MAX_ARGUMENT = 128 * 1024 - 1


def provision(request: ProvisionRequest) -> AgentProvisionPlan:
    """Say what the command needs; raises ``UsageError`` where its prompt does not fit into an argument."""
    prompt = "\n\n".join(part for part in (request.agent_prompt, request.prompt) if part)
    program, *arguments = request.provider.argv
    needs_file = bool(prompt) or any("{prompt_file}" in argument for argument in arguments)
    argv = (program, *(_filled(argument, prompt) for argument in arguments))
    if not needs_file:
        return AgentProvisionPlan(template=TEMPLATE, program=program, argv=argv)
    return AgentProvisionPlan(
        template=TEMPLATE,
        program=program,
        argv=argv,
        dirs=(_FOLDER,),
        files=(ProvisionFile(path=_PROMPT_FILE, content=f"{prompt}\n".encode()),),
        guest_env={"BOT_BOTTLE_PROMPT_FILE": _PROMPT_FILE},
        hidden_env_names=frozenset({"BOT_BOTTLE_PROMPT_FILE"}),
    )


def _filled(argument: str, prompt: str) -> str:
    # The prompt goes in last, so that a placeholder written inside a prompt stays as it is.
    parts = [part.replace("{prompt_file}", _PROMPT_FILE) for part in argument.split("{prompt}")]
    filled = prompt.join(parts)
    if len(filled.encode()) > _MAX_ARGUMENT:
        raise UsageError(
            "agent_provider.argv: the prompt is too long for {prompt}; write {prompt_file} instead"
        )
    return filled
