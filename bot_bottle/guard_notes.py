"""Which guarded values have so little in them that refusals tell them to who guesses."""

from __future__ import annotations

import math
import string
from typing import TYPE_CHECKING

from bot_bottle.env import entry_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.manifest.model import ManifestBottle, ManifestSource

#: A bottle can have a guess judged with every request; so many bits are beyond what it can send in years.
_BITS = 50
_KINDS = (string.digits, string.ascii_lowercase, string.ascii_uppercase)
_OTHERS = 32  # punctuation, and whatever else


def guard_notes(
    bottle: ManifestBottle, host_env: Mapping[str, str]
) -> tuple[tuple[str, ManifestSource | None], ...]:
    """Name the guarded variables whose values could be guessed, never the values; each with its place.

    Values that are asked for at a start are not known here and not judged.
    """
    said = (
        "its value has so little in it that refusals tell it to who guesses; "
        "guard long random values, and keep short ones out of what a bottle could ask for"
    )
    notes: list[tuple[str, ManifestSource | None]] = []
    for name in bottle.guard:
        entry = bottle.env.get(name, f"${{{name}}}")
        kind = entry_kind(entry)
        value = host_env.get(kind.removeprefix("host:"), "") if kind.startswith("host:") else entry
        if kind != "asked" and value and _bits(value) < _BITS:
            notes.append((f"guard: {name}: {said}", bottle.sources.get(f"guard.{name}")))
    return tuple(notes)


def _bits(value: str) -> float:
    """Estimate from above what a value holds: its length, and the kinds and number of its characters."""
    characters = set(value)
    kinds = sum(len(kind) for kind in _KINDS if characters & set(kind))
    if characters - set("".join(_KINDS)):
        kinds += _OTHERS
    return len(value) * math.log2(min(kinds, 2 * len(characters)))
