"""One layer of disguise taken off: what is written in ``data`` under percent signs, escapes, digits.

:class:`Shape` names the patterns that say which decodings are worth trying; they ride along in the rules'
own pass. What is decoded is given back in its surroundings (``token=`` before, a quote behind),
because rules look at those too.
"""

from __future__ import annotations

import functools
import re
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from bot_bottle.pipelock.deadline import OverBudgetError
from bot_bottle.pipelock.digits import SHORTEST_RUN, decoded_runs, hex_apart, hex_texts, is_readable
from bot_bottle.pipelock.lookalikes import fold
from bot_bottle.pipelock.patterns import PatternSet
from bot_bottle.pipelock.unpack import packed_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from bot_bottle.pipelock.digits import Span


_STANDARD_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LINE_ENDS = (rb"\\n", rb"\\r", rb"\n", rb"\r")

_REACH = 256
#: What stands between pieces that are looked at together: no rule and no line reaches over it.
_BETWEEN = b"\n\0\n"
_MANY = 4
#: With more signs than this the whole is decoded at once.
MOST_SPOTS = 20_000

#: Lines of digits shorter than are taken for a run by themselves, and a rest.
_LINES = re.compile(rb"(?<![\w+/-])(?:[\w+/-]{8,39}(?:\\r|\\n|\r|\n){1,2})+[\w+/-]{1,39}={0,2}")
_CHANGE = re.compile(rb"[a-z][A-Z0-9]|[0-9][A-Za-z]")
_CAPITALS = re.compile(rb"[A-Z]{2}")
_LINE_END = re.compile(rb"\\r|\\n|\r|\n")
_ESCAPE = re.compile(
    rb"\\+u(?:([0-9A-Fa-f]{4})|\{([0-9A-Fa-f]{1,6})\})|\\+(?:x|0000)([0-9A-Fa-f]{2})|\\([0-3][0-7]{2})|"
    rb"[Uu]\+([0-9A-Fa-f]{4}) ?|&#[xX]([0-9A-Fa-f]{2,6});?|&#(\d{2,7});?|\\(/)"
)


class Shape(Enum):
    """A sign that a decoding is worth trying, with the expression that finds it."""

    PERCENT = rb"%[0-9A-Fa-f]{2}"
    ESCAPE = (
        rb"\\(?:u\{?[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[0-3][0-7]{2}|/)"
        rb"|&#[xX]?[0-9A-Fa-f]{2}|[Uu]\+[0-9A-Fa-f]{4}"
    )
    UNICODE = (
        rb"\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xa4]|\xef\xbb\xbf|\xc2\xad|\xcd\x8f|\xef[\xbc\xbd]"
        rb"|\xf0\x9d[\x90-\x9f]|[A-Za-z0-9][\xce-\xd6][\x80-\xbf]|[\xce-\xd6][\x80-\xbf][A-Za-z0-9]"
        rb"|\xcc[\x80-\xbf]|\xef\xb8[\x80-\x8f]|\xf3\xa0[\x80-\x87]|\xe2\x92[\xb6-\xbf]|\xe2\x93[\x80-\xa9]"
        rb"|\xe1[\x8e\x8f][\x80-\xbf]|\xf0\x9f[\x84\x85][\x80-\xbf]"
    )
    #: Lines of digits, their ends plain or written as escapes, as base64 stands in a JSON string.
    WRAPPED = rb"[A-Za-z0-9+/]{6}(?:\\[nr]|[\r\n]){1,2}[A-Za-z0-9+/]{6}"
    #: How keys begin, backwards and in rot13.
    MIRRORED = (
        rb"AIKA|AISA|_[oprsu]hg|_evil_k[sr]|_tset_ks|_mpn|aZIA"
        rb"|NXVN|NFVN|tu[bcehf]_|[fe]x_yvir_|fx_grfg_|acz_|NVmn"
    )
    PACKED = rb"\x1f\x8b\x08|\x28\xb5\x2f\xfd|^\x78[\x01\x5e\x9c\xda]"


_CONTROLS = bytes([*range(9), *range(14, 27), *range(28, 32), 127])

SHAPES: tuple[Shape, ...] = tuple(Shape)


def _sign(shape: Shape) -> bytes:
    """Give what is searched for in all content: the expression, or one that is faster and sees as much.

    A digit and a line's end as pairs of letters spare the search to stop at every line's end by itself.
    """
    if shape is not Shape.WRAPPED:
        return bytes(shape.value)
    pairs = (re.escape(bytes([digit])) + end for digit in _STANDARD_DIGITS for end in _LINE_ENDS)
    return b"|".join(pairs)


SIGNS: tuple[bytes, ...] = tuple(map(_sign, SHAPES))


def decoded(
    data: bytes, shapes: Collection[Shape], spans: Sequence[Span], plain: bytes | None
) -> Iterator[tuple[str, bytes]]:
    """Give (layer, content) for every decoding of ``data`` that yields something to look at.

    ``spans`` are the data's runs of digits, ``plain`` its skeleton where the caller has it. Raises
    :class:`~bot_bottle.pipelock.unpack.OpaqueError` for content that grows beyond all bounds.
    """
    if Shape.PERCENT in shapes:
        yield "percent", _around(data, Shape.PERCENT, unquote_to_bytes)
    if Shape.ESCAPE in shapes:
        yield "escapes", _around(data, Shape.ESCAPE, lambda part: _ESCAPE.sub(_unescape, part))
    if Shape.UNICODE in shapes:
        yield "unicode", _around(data, Shape.UNICODE, fold, reach=_REACH // 2)
    if Shape.WRAPPED in shapes:
        yield "wrapped", _around(data, Shape.WRAPPED, lambda part: _LINES.sub(_one_line, part))
    if Shape.PACKED in shapes:
        for part in packed_parts(data, anywhere=True):
            yield "compressed", part
    gathered: dict[str, list[bytes]] = {}
    for layer, text in decoded_runs(data, spans):
        gathered.setdefault(layer, []).append(text)
    if plain is not None:
        for run in hex_apart(plain, data):
            gathered.setdefault("hex", []).extend(hex_texts(run))
    for layer, texts in gathered.items():
        yield layer, _BETWEEN.join(texts)


def _around(data: bytes, shape: Shape, undo: Callable[[bytes], bytes], *, reach: int = _REACH) -> bytes:
    """Undo an encoding where its sign stands, each place with enough around it to hold a long key."""
    try:
        hits = spots(shape).hits(data, most=MOST_SPOTS)
    except OverBudgetError:
        return undo(data)
    places: list[tuple[int, int, int]] = []
    start = stop = -1
    signs = 0
    for _index, end in hits:
        if stop < 0 or end - reach > stop:
            if stop >= 0:
                places.append((start, stop, signs))
            start, signs = max(0, end - reach), 0
        stop = end + reach
        signs += 1
    if stop >= 0:
        places.append((start, stop, signs))
    if shape is Shape.UNICODE:
        places = [place for place in places if place[2] >= _MANY or not _is_binary(data[place[0] : place[1]])]
    changed = [(undo(data[start:stop]), data[start:stop]) for start, stop, _signs in places]
    return _BETWEEN.join([after for after, before in changed if after != before])


def _is_binary(part: bytes) -> bool:
    """Tell a stretch that is no text, where two bytes that make a letter now and then mean nothing."""
    return 20 * (len(part) - len(part.translate(None, _CONTROLS))) > len(part)


@functools.cache
def spots(shape: Shape) -> PatternSet:
    """Give what finds every sign of ``shape``, compiled once."""
    return PatternSet.expressions([shape.value], once=False)


def _one_line(match: re.Match[bytes]) -> bytes:
    """Join lines of one width (something may stand before the first) whose letters keep changing kind.

    Text is wrapped at words, and words seldom go from small letters to digits and capitals and back; where
    these are few, what they would decode to tells.
    """
    lines = [line for line in _LINE_END.split(match[0]) if line]
    joined = b"".join(lines)
    even = len({len(line) for line in lines[1:-1]}) <= 1
    if even and (
        8 * len(_CHANGE.findall(joined)) >= len(joined)
        or (len(joined) >= SHORTEST_RUN and _CAPITALS.search(joined) and is_readable(joined))
    ):
        return joined
    return bytes(match[0])


def _unescape(match: re.Match[bytes]) -> bytes:
    point, long_point, byte, octal, named, entity_hex, entity, slash = match.groups()
    if slash is not None:
        return bytes(slash)
    if byte is not None:
        return bytes([int(byte, 16)])
    if octal is not None:
        return bytes([int(octal, 8)])
    text = point or long_point or named or entity_hex
    number = int(text, 16) if text is not None else int(entity)
    if number > 0x10FFFF:
        return bytes(match[0])
    return chr(number).encode("utf-8", "surrogatepass")
