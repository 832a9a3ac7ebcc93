"""The one value that egress, the git gate and supervise speak, the audit log stores and the CLI prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """The action may proceed; ``rule`` is the manifest place that permits it (``egress.routes[0]``)."""

    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """The action is refused.

    ``reason`` is a stable snake_case code, ``rule`` names the policy or manifest key that decided,
    ``message`` says what happened in one sentence and ``next_step`` what the agent or its operator can do.
    None of them may contain a credential.
    """

    reason: str
    rule: str
    message: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A human decides; until then the action is refused with this request's ``id``."""

    id: str
    rule: str
    message: str


Decision: TypeAlias = Allow | Deny | Ask
