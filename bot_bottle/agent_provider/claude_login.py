"""What Claude Code takes for a login: a file without a credential, and the plan that goes with the real one.

The program tells a subscription by ``.credentials.json``; a token in its environment it takes for an API
account, with other models and limits. The token in the file is a placeholder that egress replaces.
"""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Claude Code takes an OAuth token only in this form; egress strips it and adds the real one.
PLACEHOLDER_TOKEN = "sk-ant-oat01-egress-placeholder"  # noqa: S105 - it opens nothing, which is its purpose
#: The same for an API key.
PLACEHOLDER_KEY = "sk-ant-api03-egress-placeholder"

#: Names the folder of the program's settings, on the host and in a bottle.
CONFIG_DIR = "CLAUDE_CONFIG_DIR"

_CREDENTIALS = ".credentials.json"
_LOGIN = "claudeAiOauth"
_MAX_BYTES = 1 << 20
_PLAN = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
# Milliseconds, as the program counts: 2100. It renews what is nearly over, and has nothing to do it with.
_NEVER = 4_102_444_800_000


def host_config_dir(env: Mapping[str, str]) -> Path:
    """Give the folder of the program's settings for the operator whose environment is ``env``."""
    return Path(env.get(CONFIG_DIR) or f"{env.get('HOME') or Path.home()}/.claude")


def host_plan(env: Mapping[str, str]) -> tuple[str, str]:
    """Give the plan of the login on this host and its tier, ``""`` for what is not known.

    Both are words, no secrets; nothing else of that login is looked at, and a host without one is no error.
    """
    data: object = _read(host_config_dir(env) / _CREDENTIALS)
    login = data.get(_LOGIN) if isinstance(data, dict) else None
    if not isinstance(login, dict):
        return "", ""
    plan, tier = _word(login.get("subscriptionType")), _word(login.get("rateLimitTier"))
    return plan, tier if plan else ""


def stand_in(plan: str, tier: str) -> bytes:
    """Give the content of ``.credentials.json`` for a bottle.

    It claims to be good for inference and nothing else, so that the program asks for no account's profile,
    connectors or files, and holds nothing to renew itself with.
    """
    login = {
        "accessToken": PLACEHOLDER_TOKEN,
        "refreshToken": None,
        "expiresAt": _NEVER,
        "scopes": ["user:inference"],
        "subscriptionType": plan or None,
        "rateLimitTier": tier or None,
    }
    return f"{json.dumps({_LOGIN: login}, indent=2)}\n".encode()


def credentials_path(folder: str) -> str:
    """Give where the program looks for its login, for the folder of its settings."""
    return f"{folder}/{_CREDENTIALS}"


def _read(path: Path) -> object:
    # Neither an exception nor anything else of the content leaves: it holds the real login.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None


def _word(value: object) -> str:
    return value if isinstance(value, str) and _PLAN.fullmatch(value) else ""
