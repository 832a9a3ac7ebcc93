"""Provider ``codex``: declared and checked; this version does not launch it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.agent_provider.plan import AgentProvisionPlan, ProvisionRequest

TEMPLATE = "codex"
MANIFEST_KEYS = frozenset({"forward_host_credentials"})
REQUIRED_KEYS: Mapping[str, str] = MappingProxyType({})
INSTALL = ""
SKILLS_FOLDER = ""
NOT_YET = (
    "agent_provider.template: this version cannot launch codex; until a later one does, run the program with "
    "template: command and argv: [codex, exec, --skip-git-repo-check, '{prompt}']"
)

ASKS: Mapping[str, str] = MappingProxyType({})


def provision(request: ProvisionRequest) -> AgentProvisionPlan:
    """Refuse: raises ``UsageError``, always."""
    del request
    raise UsageError(NOT_YET)
