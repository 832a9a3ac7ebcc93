"""Where the operator's files live; one place knows, everything else asks.

``BOT_BOTTLE_HOME`` replaces ``~/.bot-bottle`` (tests, several installations). It is read from the
operator's environment only; nothing inside a bottle can set it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_OVERRIDE = "BOT_BOTTLE_HOME"


def home_dir() -> Path:
    """Give the operator's bot-bottle folder, absolute, whether or not it exists."""
    override = os.environ.get(_OVERRIDE)
    if override:
        return Path(override).expanduser().absolute()
    try:
        return Path.home() / ".bot-bottle"
    except RuntimeError as error:
        raise UsageError("this account has no home folder; set HOME or BOT_BOTTLE_HOME") from error


@contextlib.contextmanager
def home_at(folder: Path) -> Iterator[None]:
    """Have ``folder`` in the place of the operator's, for this process and what it starts meanwhile."""
    before = os.environ.get(_OVERRIDE)
    os.environ[_OVERRIDE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_OVERRIDE]
        else:
            os.environ[_OVERRIDE] = before


def bottles_dir() -> Path:
    """Give the folder of bottle manifests."""
    return home_dir() / "bottles"


def agents_dir() -> Path:
    """Give the folder of the operator's agent manifests."""
    return home_dir() / "agents"


def providers_dir() -> Path:
    """Give the folder of the providers that the operator added, a folder each."""
    return home_dir() / "providers"


def state_root() -> Path:
    """Give the folder that holds one folder an identity."""
    return home_dir() / "state"


def state_dir(identity: str) -> Path:
    """Give one identity's state folder."""
    return state_root() / identity


def audit_path(identity: str) -> Path:
    """Give one identity's audit log; it outlives the state folder."""
    return home_dir() / "audit" / f"{identity}.jsonl"


def config_file() -> Path:
    """Give the operator's config file."""
    return home_dir() / "config.toml"


def cache_dir() -> Path:
    """Give the folder for what can be made again (probe results, built images)."""
    return home_dir() / "cache"
