"""Values taken out of content before it leaves (``on_match: redact``), where that is as safe as refusing.

A mark takes the place of each value, byte for byte as long as it was: lengths that stand elsewhere (a
``Content-Length``, a frame, a message's own) stay true and nothing has to be framed anew. What is left is
judged once more as a whole, and where anything is still found in it, it is refused. So is a value that stands
in an encoded or divided form alone, and everything that no detector may let pass (guarded values, content
that could not be judged).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bot_bottle.pipelock.extent import extent
from bot_bottle.pipelock.selection import EVERYTHING, Selection
from bot_bottle.pipelock.text import claims_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bot_bottle.pipelock.finding import Context, Finding, Kind
    from bot_bottle.pipelock.scanner import Scanner

#: What may be taken out. An opaque token names what is asked for; without it something else would be.
_KINDS: Final[frozenset[Kind]] = frozenset(("credential", "financial"))
_MARK = b"REDACTED"
#: With more different values than this it is no text in which one slipped in.
_MOST_VALUES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """Content without what was found in it; ``taken`` says what, with how often it stood there."""

    data: bytes
    taken: tuple[tuple[Finding, int], ...]


def can_redact(context: Context) -> bool:
    """Tell content in which values may be replaced: text that nothing was done to, or that says nothing."""
    kind = context.content_type
    return not context.encoding and (not kind or claims_text(kind) or kind.lower().startswith("multipart/"))


def redacted(
    scanner: Scanner, data: bytes, context: Context, selection: Selection = EVERYTHING, *, until: int = -1
) -> Redaction | None:
    """Take out what of ``data`` counts in ``selection``; ``None`` where only a refusal is safe.

    With ``until`` what follows there comes again with more behind it: a value that begins behind it is left
    for then, and one that begins before it must not reach the end of ``data``.
    """
    found = {
        key: finding for key, finding in scanner.found(data, context).items() if selection.counts(finding)
    }
    spots = _spots(data, found)
    if not spots:
        return None
    whole = bytearray(data)
    for start, end, _finding in spots:
        whole[start:end] = _mark(end - start)
    if any(selection.counts(one) for one in scanner.scan(bytes(whole), context)):
        return None
    if until >= 0:
        spots = [spot for spot in spots if spot[0] < until]
        if any(end == len(data) for _start, end, _finding in spots):
            return None
        whole = bytearray(data)
        for start, end, _finding in spots:
            whole[start:end] = _mark(end - start)
    return Redaction(data=bytes(whole), taken=_counted(finding for _start, _end, finding in spots))


def _mark(length: int) -> bytes:
    return (_MARK + b"*" * length)[:length]


def _counted(findings: Iterable[Finding]) -> tuple[tuple[Finding, int], ...]:
    counts: dict[Finding, int] = {}
    for finding in findings:
        counts[finding] = counts.get(finding, 0) + 1
    return tuple(counts.items())


def _spots(data: bytes, found: Mapping[tuple[str, bytes], Finding]) -> list[tuple[int, int, Finding]]:
    """Give (start, end, finding) of all that goes, in order, apart; empty where something must not go."""
    if len(found) > _MOST_VALUES:
        return []
    spots: list[tuple[int, int, Finding]] = []
    for (_rule, value), finding in found.items():
        if finding.kind not in _KINDS or not value:
            return []
        if finding.where.layers:
            continue  # what is left without the plain ones is judged again
        start = data.find(value)
        while start >= 0:
            span = extent(data, start, start + len(value))
            if span is None:
                return []
            spots.append((*span, finding))
            start = data.find(value, max(span[1], start + 1))
    apart: list[tuple[int, int, Finding]] = []
    for spot in sorted(spots, key=lambda one: (one[0], -one[1])):
        if not apart or spot[0] >= apart[-1][1]:
            apart.append(spot)
        elif spot[1] > apart[-1][1]:
            apart[-1] = (apart[-1][0], spot[1], apart[-1][2])
    return apart
