"""What a bottle's credentials come from on this machine and cannot be had from now: told before a start is.

Variables are not looked at: they belong to the shell that starts, and a start tells of all that are not set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.agent_provider.registry import token_source_problem
from bot_bottle.git_gate.preparation import key_problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bot_bottle.manifest.model import ManifestBottle, ManifestSource


def source_notes(
    bottle: ManifestBottle, host_env: Mapping[str, str]
) -> Iterator[tuple[str, ManifestSource | None]]:
    """Say which keys, files and commands cannot be used, each with its place; nothing of what they hold.

    Files are read as a start reads them; no command is run.
    """
    for remote in bottle.git.remotes:
        if said := key_problem(remote, host_env):
            yield said, bottle.sources.get(f"git.remotes.{remote.host}")
    if said := token_source_problem(bottle.agent_provider, host_env):
        yield said, bottle.sources.get("agent_provider")
