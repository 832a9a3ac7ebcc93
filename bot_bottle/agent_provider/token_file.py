"""``token_file``: a file of the operator's that holds a credential and is read again while a bottle runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

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
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            content = file.read(MAX_CHARS + 1) if stat.S_ISREG(info.st_mode) else None
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}; write the credential there") from error
    if content is None:
        raise UsageError(f"{name} is no file; write the credential there, on one line")
    # Whoever can write there chooses the account that hears all the agent says.
    if info.st_uid not in {0, os.geteuid()} or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"{name} can be written by other users; try: chmod 600 {path}")
    return fresh_from(content, name, "holds")


def renewal(path: str, env: Mapping[str, str]) -> Renewal:
    """Read the file now, and say how it is read again; raises as :func:`token_in`."""
    place = Path(path)
    if path.startswith("~/"):
        place = Path(env.get("HOME") or Path.home()) / path[2:]
    return Renewal(token_ref=TOKEN_FILE_REF, first=token_in(place), read=lambda: token_in(place), every=EVERY)
