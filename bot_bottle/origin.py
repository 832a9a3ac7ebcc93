"""The ``origin`` of a repository's copy: where the operator's leads to a declared remote, so does the copy's.

Without it an agent that was told to push would have to guess a URL.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bot_bottle.git_gate.spellings import is_spelling
from bot_bottle.repository import run_git

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bot_bottle.git_gate.remote import GateRemote
    from bot_bottle.repository import Repository

_HTTPS = "https://"
_FETCHED = "+refs/heads/*:refs/remotes/origin/*"


def own_origin(repository: Repository, remotes: Sequence[GateRemote]) -> str:
    """Give the URL, as declared, of the one of ``remotes`` that the repository's origin is; else ``""``.

    What stands in the repository is compared and never handed on: its URL may hold a token.
    """
    if not remotes:
        return ""
    place = str(repository.common / "config")
    asked = ["config", "--file", place, "--no-includes", "--get", "remote.origin.url"]
    url = os.fsdecode(run_git(asked, cwd=repository.folder, check=False).stdout).strip()
    if url.startswith(_HTTPS):
        authority, slash, path = url.removeprefix(_HTTPS).partition("/")
        url = f"{_HTTPS}{authority.rpartition('@')[2]}{slash}{path}"
    return next((remote.upstream for remote in remotes if is_spelling((remote,), url)), "")


def add_origin(git_dir: Path, url: str) -> None:
    """Let the repository of ``git_dir`` have an origin; raises ``LaunchError``."""
    for key, value in (("url", url), ("fetch", _FETCHED)):
        run_git(["config", "--file", str(git_dir / "config"), f"remote.origin.{key}", value], cwd=git_dir)
