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


@functools.lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern == "**":
        return re.compile(r".*", re.DOTALL)
    parts = pattern.split("/")
    text = ""
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            text += ".*" if last else "(?:.*/)?"
        else:
            text += "[^/]*".join(re.escape(piece) for piece in part.split("*")) + ("" if last else "/")
    return re.compile(text, re.DOTALL)
