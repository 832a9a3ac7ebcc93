"""Lengths of time as operators write them: ``90``, ``90s``, ``30m``, ``1.5h``, ``7d``. Pure."""

from __future__ import annotations

import re

_DURATION = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,3})?)([smhd])?", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DAY = 86_400.0


def read_duration(text: str, *, longest: float, bare: bool = False) -> float:
    """Read a length of time, in seconds; with ``bare`` a number without a unit is one of seconds.

    Raises ``ValueError`` for anything else, and for more than ``longest`` seconds.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not (match[2] or bare):
        raise ValueError("no length of time")
    length = float(match[1]) * _SECONDS[match[2] or "s"]
    if length > longest:
        raise ValueError(f"longer than {longest / DAY:g} days")
    return length
