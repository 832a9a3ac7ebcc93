"""What a shell completes: names found in folders, without reading a single file. Never raises."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click


def agents(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the agents of the operator and of the repository in the current folder."""
    del ctx, param
    return _items(_agent_names(), incomplete)


def agents_and_bottles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete what ``edit`` takes: the operator's own agents and bottles."""
    del ctx, param
    from bot_bottle import paths  # noqa: PLC0415

    return _items({*_stems(str(paths.agents_dir())), *_stems(str(paths.bottles_dir()))}, incomplete)


def agents_and_identities(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete what ``info`` takes."""
    del ctx, param
    return _items({*_agent_names(), *_identities()}, incomplete)


def identities(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the identities that have a state."""
    del ctx, param
    return _items(_identities(), incomplete)


def recorded(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete what ``audit`` takes: the word ``verify`` and the identities that have a record."""
    del param
    from bot_bottle import paths  # noqa: PLC0415

    logs = _stems(str(paths.home_dir() / "audit"), ".jsonl")
    return _items([*logs, *([] if ctx.params.get("words") else ["verify"])], incomplete)


def logged(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the identities that have a record."""
    del ctx, param
    from bot_bottle import paths  # noqa: PLC0415

    return _items(_stems(str(paths.home_dir() / "audit"), ".jsonl"), incomplete)


def backends(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the backends of this version."""
    del ctx, param
    from bot_bottle.backend.registry import known_backend_names  # noqa: PLC0415

    return _items(known_backend_names(), incomplete)


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _agent_names() -> set[str]:
    from bot_bottle import paths  # noqa: PLC0415

    return {*_stems(str(paths.agents_dir())), *_stems(".bot-bottle/agents")}


def _identities() -> list[str]:
    from bot_bottle import paths  # noqa: PLC0415

    return [name for name in _entries(str(paths.state_root())) if name.isascii() and name.isprintable()]


def _stems(folder: str, suffix: str = ".md") -> list[str]:
    found = (name.removesuffix(suffix) for name in _entries(folder) if name.endswith(suffix))
    # Files of a repository are named by strangers, and a shell reads what comes back.
    return [name for name in found if name.replace("-", "").isalnum() and name.isascii()]


def _entries(folder: str) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(folder)]
    except OSError:
        return []
