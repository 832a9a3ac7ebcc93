"""Whose work is wanted: from an identity to a workspace that can be read, and what guards its scan."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import bottle_state
from bot_bottle.backend.registry import LEGACY_BACKEND, get_bottle_backend
from bot_bottle.env import entry_kind
from bot_bottle.errors import BotBottleError
from bot_bottle.retrieval.archive import ArchiveTree
from bot_bottle.retrieval.arrival import Source
from bot_bottle.retrieval.tree import FolderTree
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.bottle_state import BottleMetadata

_TOP = "workspace"


@contextlib.contextmanager
def open_source(metadata: BottleMetadata, inside: str) -> Iterator[Source]:
    """Open the workspace of a bottle, or the folder ``inside`` it, to be read as data.

    Raises ``UsageError``, and what the backend raises where its bottles cannot be read now.
    """
    backend = get_bottle_backend(metadata.backend or LEGACY_BACKEND)
    started_in = Path(metadata.cwd, inside) if metadata.copy_cwd and metadata.cwd else None
    identity = metadata.identity
    kept = bottle_state.is_preserved(identity)
    opened = partial(
        Source,
        identity=identity,
        started_in=started_in,
        inside=inside,
        # The mark goes first, and then the work (backend.launch.remove_bottle).
        removed=lambda: kept and not bottle_state.is_preserved(identity),
    )
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(backend.open_workspace(metadata.identity))
        if isinstance(place, Path):
            tree = stack.enter_context(FolderTree(place, inside))
            yield opened(tree=tree)
        else:
            yield opened(tree=ArchiveTree(place, _TOP, inside))


def guarded_secrets(metadata: BottleMetadata, cwd: Path) -> dict[str, Secret]:
    """Give the values of the bottle's credentials, and of what it guards, that this environment holds.

    None of them was ever inside; a manifest that cannot be read any more guards nothing and stops nothing.
    """
    from bot_bottle.manifest.model import Manifest  # noqa: PLC0415 - brings the libraries that check it

    try:
        bottle = Manifest.resolve(cwd).bottle_for(metadata.agent_name)
    except BotBottleError:
        return {}
    provider = bottle.agent_provider
    names = {provider.auth_token, provider.api_key}
    names |= {route.auth.token_ref for route in bottle.egress.routes if route.auth}
    names |= {remote.token_ref for remote in bottle.git.remotes}
    values = {name: os.environ.get(name, "") for name in names}
    # What env has of it is a literal, a variable of the host by another name, or was asked for then.
    values |= {name: _value_of(bottle.env.get(name, f"${{{name}}}")) for name in bottle.guard}
    return {name: Secret(value) for name, value in sorted(values.items()) if value}


def _value_of(entry: str) -> str:
    kind = entry_kind(entry)
    if kind == "literal":
        return entry
    return os.environ.get(kind.removeprefix("host:"), "") if kind != "asked" else ""
