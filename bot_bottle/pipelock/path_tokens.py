"""Tokens that were made to be unreadable, where a readable name belongs: in a path."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from bot_bottle.pipelock.numbers import entropy

#: Ids of documents, videos, builds and objects stay below this, and most hashes.
_LONGEST_ID = 64
_TOKEN = re.compile(rb"[A-Za-z0-9+_=~-]{65,}")
_HEX = re.compile(rb"[0-9a-fA-F-]+")
_WORD = re.compile(rb"[A-Za-z][a-z]{3,}|[A-Z]{4,}")


@lru_cache(maxsize=1024)
def opaque_segment(path: bytes) -> bytes:
    """Give the first segment of ``path`` that is a long opaque token; empty where there is none.

    Hashes in hex, names made of words with their versions, and anything of at most 64 characters are taken as
    names: package files, objects of a registry and build outputs have such.
    """
    if len(path) <= _LONGEST_ID:
        return b""
    for match in _TOKEN.finditer(unquote_to_bytes(path) if b"%" in path else path):
        if is_opaque(match[0]):
            return match[0]
    return b""


def is_opaque(token: bytes) -> bool:
    """Tell a token that is random by its letters: many of them, evenly used, and hardly a word among them."""
    if _HEX.fullmatch(token) or entropy(token) < 4.4:
        return False
    if not (re.search(rb"[a-z]", token) and re.search(rb"[A-Z]", token) and re.search(rb"\d", token)):
        return False
    return sum(map(len, _WORD.findall(token))) * 3 < len(token)
