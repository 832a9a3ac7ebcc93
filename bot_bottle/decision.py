"""What egress and the git gate decide, the audit log stores and the CLI prints.

What a human is still to say yes to is a ``Deny`` until then, and its ``next_step`` says so.
"""

from __future__ import annotations

from dataclasses import dataclass


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
