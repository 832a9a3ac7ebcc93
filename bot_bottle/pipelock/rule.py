"""What a rule is: a form of credential, an expression for it, and a judge with the last word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.pipelock import numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.pipelock.finding import Context, Kind

BEFORE = rb"(?:^|[^A-Za-z0-9])"
AFTER = rb"(?:$|[^A-Za-z0-9])"
ASSIGN = rb"[\w .-]{0,20}['\"\s]{0,3}(?:=|:|:=|=>|,)[\s'\"`=]{0,5}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a rule's judge gets: the ``value``, and up to 96 bytes ``before`` and ``after`` it."""

    value: bytes
    before: bytes
    after: bytes
    context: Context
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One form of credential. The value is group 1 of ``pattern``, which RE2, PCRE and ``re`` read alike.

    ``reach`` is how many bytes its match can be long. ``judge`` has the last word. ``strict`` and ``egress``
    say in which profile it counts; ``places`` limits it to some places. A ``number`` is a form without any
    word of its own; in large content it is looked for only where a word like those of
    :data:`NUMBER_WORDS` stands too. A ``hidden`` one is looked for only under a layer of encoding.
    ``trigger`` is a shorter one that matches wherever ``pattern`` does, where that is faster to search.
    """

    id: str
    pattern: bytes
    kind: Kind = "credential"
    judge: Callable[[Match], bool] | None = None
    strict: bool = True
    egress: bool = True
    places: frozenset[str] = frozenset()
    reach: int = 320
    number: bool = False
    hidden: bool = False
    trigger: bytes = b""


_PLACEHOLDER = re.compile(
    rb"(?i)example|sample|dummy|placeholder|changeme|redacted|your[_-]|x{4}|\*{3}|\.{3}|"
    rb"0123456|1234567|abcdefgh|bcdefghi|(\w{4})[-_]\1[-_]\1"
)
_REPEATED = re.compile(rb"(.)\1{5,}", re.DOTALL)


def is_placeholder(value: bytes) -> bool:
    """Tell a value that documentation shows instead of a real one."""
    if _PLACEHOLDER.search(value) or numbers.entropy(value) < 2.5:
        return True
    # A long encoded value may well hold a few zeros; a placeholder is made of its repetition.
    return any(4 * len(match[0]) >= len(value) for match in _REPEATED.finditer(value))
