"""What attack scripts have at hand inside a bottle: raw sockets to the sidecar and little else.

The same text runs outside as a control, where it must succeed, so an attack that fails for a reason of its
own does not pass for one that was held.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bot_bottle.verify.inside import PRELUDE

if TYPE_CHECKING:
    from tests.support.lab import RunningBottle


def run(bottle: RunningBottle, code: str, **values: object) -> dict[str, Any]:
    """Run Python in the bottle after :data:`PRELUDE`; gives what it passed to ``tell``.

    ``values`` become variables of the script.
    """
    assignments = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    result: dict[str, Any] = bottle.py(PRELUDE + assignments + code).json()
    return result


def refusal(answer: str) -> dict[str, str]:
    """Read the structured refusal from a response's text; empty where it is none."""
    body = answer.partition("\r\n\r\n")[2]
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) and parsed.get("error") == "bot_bottle_denied" else {}


def status(answer: str) -> int:
    """Give a response's status code, 0 where there was none."""
    parts = answer.split(" ", 2)
    return int(parts[1]) if len(parts) > 2 and parts[0].startswith("HTTP/") else 0


__all__ = ["PRELUDE", "refusal", "run", "status"]
