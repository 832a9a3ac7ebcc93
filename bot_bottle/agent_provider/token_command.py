"""``token_command``: a command of the operator's that prints a credential, run on this host only."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING

from bot_bottle import process
from bot_bottle.errors import UsageError
from bot_bottle.renewal import Fresh, Renewal
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Names the credential between ``provisioned_env`` and its route.
TOKEN_COMMAND_REF = "TOKEN_COMMAND"  # noqa: S105 - a name

_SECONDS = 60.0
MAX_CHARS = 64 * 1024


def token_of(argv: Sequence[str], env: Mapping[str, str]) -> Fresh:
    """Run ``argv`` without a shell and take what it prints, on one line, for the credential.

    Raises ``UsageError`` for a command that fails or prints something else, never with what it printed, and
    ``UnavailableError`` where it is missing or hangs.
    """
    done = process.run(argv, env=dict(env), timeout=_SECONDS)
    name = f"agent_provider.token_command ({argv[0]})"
    if done.returncode != 0:
        raise UsageError(f"{name} ended with exit code {done.returncode}; run it by hand to see why")
    return fresh_from(done.stdout, name, "printed")


def fresh_from(content: bytes, name: str, verb: str) -> Fresh:
    """Take ``content`` for a credential on one line; raises ``UsageError`` without a word of it."""
    text = content.decode("utf-8", "replace").strip()
    if not text:
        raise UsageError(f"{name} {verb} nothing; it is to give the credential, on one line")
    if len(text) > MAX_CHARS or not text.isascii() or not text.isprintable():
        raise UsageError(f"{name} {verb} more than one line, or what no HTTP header may carry")
    return Fresh(value=Secret(text), ends_at=end_of(text))


def renewal(argv: Sequence[str], env: Mapping[str, str]) -> Renewal:
    """Run the command now, and say how it is run again; raises as :func:`token_of`."""
    return Renewal(token_ref=TOKEN_COMMAND_REF, first=token_of(argv, env), read=lambda: token_of(argv, env))


def end_of(token: str) -> float | None:
    """Give when a JWT ends (RFC 7519, 4.1.4), in seconds since the epoch; None for what does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
    ends = claims.get("exp") if isinstance(claims, dict) else None
    return (
        float(ends) if isinstance(ends, int) and not isinstance(ends, bool) and 0 <= ends < 1 << 40 else None
    )
