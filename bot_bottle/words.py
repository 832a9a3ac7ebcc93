"""How numbers of things are written in sentences."""

from __future__ import annotations


def counted(count: int, thing: str, things: str = "") -> str:
    """Write a number with what it counts: ``1 bottle``, ``2 bottles``; ``things`` for another plural."""
    return f"{count} {thing if count == 1 else things or f'{thing}s'}"
