"""``token_file``: a file of the operator's that holds a credential and is read again while a bottle runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import files
from bot_bottle.agent_provider.token_command import MAX_CHARS, fresh_from
from bot_bottle.errors import UsageError
from bot_bottle.renewal import Fresh, Renewal

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Names the credential between ``provisioned_env`` and its route.
TOKEN_FILE_REF = "TOKEN_FILE"  # noqa: S105 - a name
#: A look at a file costs nothing, and whoever writes it anew tells nobody.
EVERY = 5.0


def token_in(path: Path) -> Fresh:
    """Read the credential, on one line; raises ``UsageError``, never with what the file holds."""
    name = f"agent_provider.token_file ({path})"
    try:
        found = files.read_plain(path, limit=MAX_CHARS + 1)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}; write the credential there") from error
    if found.content is None:
        raise UsageError(f"{name} is no file; write the credential there, on one line")
    # Whoever can write there chooses the account that hears all the agent says.
    if not found.own:
        raise UsageError(f"{name} can be written by other users; try: chmod 600 {path}")
    return fresh_from(found.content, name, "holds")


def renewal(path: str, env: Mapping[str, str]) -> Renewal:
    """Read the file now, and say how it is read again; raises as :func:`token_in`."""
    place = Path(path)
    if path.startswith("~/"):
        place = Path(env.get("HOME") or Path.home()) / path[2:]
    return Renewal(token_ref=TOKEN_FILE_REF, first=token_in(place), read=lambda: token_in(place), every=EVERY)
