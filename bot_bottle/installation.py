"""Which installation this is: engines are shared, and each installation touches its own things only.

The random id lies in ``~/.bot-bottle/installation``.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.errors import UsageError
from bot_bottle.files import make_private_dir, write_new

if TYPE_CHECKING:
    from pathlib import Path

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


def _file() -> Path:
    return paths.home_dir() / "installation"


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
