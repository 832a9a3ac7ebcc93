"""Patterns for branch names and paths: ``*`` within one part, ``**`` for any number of parts."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def matches(name: str, patterns: Iterable[str], *, fold: bool = False) -> bool:
    """Tell whether one of the patterns covers all of ``name``; ``fold`` ignores case."""
    wanted = name.casefold() if fold else name
    return any(_compiled(pattern.casefold() if fold else pattern).fullmatch(wanted) for pattern in patterns)


def union(patterns: Iterable[str]) -> re.Pattern[str]:
    """Make one expression that fully matches what any of the patterns covers, for a list asked often."""
    return re.compile("|".join(f"(?:{_expression(pattern)})" for pattern in patterns), re.DOTALL)


@functools.lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_expression(pattern), re.DOTALL)


def _expression(pattern: str) -> str:
    if pattern == "**":
        return ".*"
    parts = pattern.split("/")
    text = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            text += ".*" if last else "(?:.*/)?"
        else:
            text += "[^/]*".join(re.escape(piece) for piece in part.split("*")) + ("" if last else "/")
    return text
