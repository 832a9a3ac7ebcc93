"""How numbers of things are written in sentences."""

from __future__ import annotations


def counted(count: int, thing: str) -> str:
    """Write a number with what it counts: ``1 bottle``, ``2 bottles``."""
    return f"{count} {thing}{'s' * (count != 1)}"
