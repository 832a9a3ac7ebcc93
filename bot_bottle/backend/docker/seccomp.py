"""The system-call filter of an agent's container, in the engine's own form.

What it refuses stands in :mod:`bot_bottle.backend.syscalls`. Calls of another architecture than the machine's
own (32-bit, x32) end the process: the profile names none, and libseccomp kills what it has no rules for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bot_bottle.backend.syscalls import RULES

if TYPE_CHECKING:
    from bot_bottle.backend.syscalls import Condition, Rule

_TESTS = {"eq": "SCMP_CMP_EQ", "ne": "SCMP_CMP_NE", "ge": "SCMP_CMP_GE", "masked": "SCMP_CMP_MASKED_EQ"}
#: Where ``clone`` takes its flags as second argument (clone(2), "C library/kernel differences").
_SWAPPED_CLONE = ["s390", "s390x"]


def profile() -> str:
    """Give the profile as the JSON text that the engine's ``seccomp=`` option takes."""
    rules: list[dict[str, object]] = []
    for rule in RULES:
        if rule.names == ("clone",):
            rules.append({**_rule(rule), "excludes": {"arches": _SWAPPED_CLONE}})
            rules.append({**_rule(rule, shift=1), "includes": {"arches": _SWAPPED_CLONE}})
        else:
            rules.append(_rule(rule))
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}, separators=(",", ":"))


def _rule(rule: Rule, shift: int = 0) -> dict[str, object]:
    return {
        "names": list(rule.names),
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": rule.errno,
        "args": [_argument(condition, shift) for condition in rule.conditions],
    }


def _argument(condition: Condition, shift: int) -> dict[str, object]:
    masked = condition.test == "masked"
    return {
        "index": condition.index + shift,
        "value": condition.mask if masked else condition.value,
        "valueTwo": condition.value if masked else 0,
        "op": _TESTS[condition.test],
    }
