"""What everything of ours on an engine bears, so that nothing else is ever touched.

An engine may be shared by several users and several installations; the random id in
``~/.bot-bottle/installation`` tells whose a container, volume or image is.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from typing import TYPE_CHECKING, Literal

from bot_bottle import paths
from bot_bottle.errors import UsageError
from bot_bottle.files import make_private_dir, write_new

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = "bot-bottle.identity"
ROLE = "bot-bottle.role"
INSTALLATION = "bot-bottle.installation"

Role = Literal["agent", "sidecar", "doorkeeper", "home", "audit", "image", "probe"]

_ID = re.compile(r"[0-9a-f]{32}")


def installation_id() -> str:
    """Give this installation's id, made at its first use; raises ``UsageError`` where the file is spoilt."""
    path = _file()
    found = _read(path)
    if found is None:
        make_private_dir(path.parent)
        with contextlib.suppress(FileExistsError):  # another launch was first; its id is as good
            write_new(path, f"{secrets.token_hex(16)}\n".encode())
        found = _read(path)
    if found is None or not _ID.fullmatch(found):
        raise UsageError(
            f"{path} does not hold an installation's id (32 hex digits); restore it, or remove it, after "
            "which what earlier launches left on an engine is no longer known as ours"
        )
    return found


def has_installation() -> bool:
    """Tell whether this installation has ever put anything on an engine."""
    return _file().exists()


def make_labels(role: Role, identity: str = "") -> dict[str, str]:
    """Give the labels of one thing of ours; ``identity`` is empty for what several bottles share."""
    labels = {INSTALLATION: installation_id(), ROLE: role}
    if identity:
        labels[IDENTITY] = identity
    return labels


def label_filter(role: Role | None = None, identity: str = "") -> dict[str, list[str]]:
    """Give the engine's filter for things of this installation, optionally of one role or identity."""
    wanted = [f"{INSTALLATION}={installation_id()}"]
    if role is not None:
        wanted.append(f"{ROLE}={role}")
    if identity:
        wanted.append(f"{IDENTITY}={identity}")
    return {"label": wanted}


def _file() -> Path:
    return paths.home_dir() / "installation"


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
