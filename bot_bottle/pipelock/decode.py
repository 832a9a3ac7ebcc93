"""One layer of disguise taken off: what is written in ``data`` under percent signs, escapes, digits.

:class:`Shape` names the patterns that say which decodings are worth trying; they ride along in the rules'
own pass. What is decoded is given back in its surroundings (``token=`` before, a quote behind),
because rules look at those too.
"""

from __future__ import annotations

import binascii
import functools
import re
import unicodedata
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote_to_bytes

from bot_bottle.pipelock.deadline import OverBudgetError
from bot_bottle.pipelock.patterns import PatternSet
from bot_bottle.pipelock.unpack import PACK_MARKS, packed_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

#: (start, end) of a stretch of bytes.
Span: TypeAlias = tuple[int, int]

_BASE64_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
_STANDARD_DIGITS = _BASE64_DIGITS[:64]
_LINE_ENDS = (rb"\\n", rb"\\r", rb"\n", rb"\r")
_RUN_MAP = bytes(33 if byte in _BASE64_DIGITS else 32 for byte in range(256))
_TEXT_MAP = bytes(33 if 32 <= byte < 127 or byte in {9, 10, 13} else 32 for byte in range(256))
_HEX_MAP = bytes(33 if byte in b"0123456789abcdefABCDEF" else 32 for byte in range(256))

#: The least that is taken for encoded: 20 base64 digits hold 15 bytes.
SHORTEST_RUN = 20
RUN = b"[A-Za-z0-9+/_-]{%d}" % SHORTEST_RUN
_SHORTEST_HEX = 24
_HEX_RUN = b"!" * _SHORTEST_HEX
_SHORTEST_TEXT = 16
#: In less than this nothing is faster than finding the runs themselves.
_WORTH_A_LOOK = 4096
#: A run from this on may be a line of something that was wrapped.
_SHORTEST_LINE = 40
_BEFORE, _BEHIND = 96, 32
_REACH = 256
#: How long a run may be to be tried at every alignment, since a name may stand before it (``path/to/QUJD``).
_LONGEST_NAMED = 4096
_MANY = 4
#: What stands between pieces that are looked at together: no rule and no line reaches over it.
_BETWEEN = b"\n\0\n"
_HEX_DIGITS = b"0123456789abcdefABCDEF"
#: With more signs than this the whole is decoded at once.
MOST_SPOTS = 20_000

_WRAP = re.compile(rb"(?:\\r|\\n|[ \t\r\n]){1,6}([A-Za-z0-9+/_-]+={0,2})")
#: Lines of digits shorter than are taken for a run by themselves, and a rest.
_LINES = re.compile(rb"(?<![\w+/-])(?:[\w+/-]{8,39}(?:\\r|\\n|\r|\n){1,2})+[\w+/-]{1,39}={0,2}")
_CHANGE = re.compile(rb"[a-z][A-Z0-9]|[0-9][A-Za-z]")
_CAPITALS = re.compile(rb"[A-Z]{2}")
_LINE_END = re.compile(rb"\\r|\\n|\r|\n")
_ESCAPE = re.compile(
    rb"\\+u(?:([0-9A-Fa-f]{4})|\{([0-9A-Fa-f]{1,6})\})|\\+(?:x|0000)([0-9A-Fa-f]{2})|\\([0-3][0-7]{2})|"
    rb"[Uu]\+([0-9A-Fa-f]{4}) ?|&#[xX]([0-9A-Fa-f]{2,6});?|&#(\d{2,7});?|\\(/)"
)
#: How a stream with one of zlib's four usual headers begins when encoded, at the start of a run or a name.
_ZLIB_IN_BASE64 = re.compile(rb"e(?<![^/_-]e)(?:J[w-z]|A[E-H]|N[o-r]|F[4-7])")
#: Hex by itself or behind names: a hash, mostly (``sha1-…``). Read as base64 it would make many letters.
_NAMED_HEX = re.compile(rb"(?:[A-Za-z0-9]{1,24}[-_/+])*([0-9A-Fa-f]{20,})")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_BASE32 = re.compile(rb"[A-Z2-7]+|[a-z2-7]+")
_BASE32_DIGITS = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHIJKLMNOPQRSTUV")
#: Letters of other scripts that look like Latin ones; NFKC leaves them (Unicode TR 39, confusables).
_LOOKALIKES = zip(
    "АВЕКМНОРСТХУІЈЅаеорсухіјѕԁԛԝһοΟΑΒΕΗΙΚΜΝΡΤΥΧΖνυѵѡɡƖԌԛՕՏՍՑօսոցᎪᏴᏟᎠᎬᎻᏦᏞᎷᏢᎡᏚᎢᏙᏃ",
    "ABEKMHOPCTXYIJSaeopcyxijsdqwhoOABEHIKMNPTYXZvuvwgIGqOSUGounGABCDEHKLMPRSTVZ",
    strict=True,
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


#: What has no width goes (general category Cf, and the joiner U+034F).
_WIDTHLESS = [
    0xAD,
    0x34F,
    0x61C,
    0x180E,
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0x300, 0x370),
    *range(0xFE00, 0xFE10),
    0xFEFF,
]
_FOLDED = {**dict(_LOOKALIKES), **dict.fromkeys(map(chr, _WIDTHLESS), "")}
#: Invisible twins of ASCII's characters (block Tags), and squared and circled capitals that no form folds.
_TAGS = {0xE0000 + code: code for code in range(0x20, 0x7F)} | {
    start + index: 65 + index for start in (0x1F150, 0x1F170) for index in range(26)
}
_CONTROLS = bytes([*range(9), *range(14, 27), *range(28, 32), 127])
_ODD = re.compile("[" + "".join(map(re.escape, _FOLDED)) + "]")

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


def runs(data: bytes, table: bytes, least: int) -> Iterator[Span]:
    """Give the (start, end) of every stretch of at least ``least`` bytes that ``table`` maps to ``!``."""
    mapped = data.translate(table)
    wanted = b"!" * least
    start = mapped.find(wanted)
    while start >= 0:
        end = mapped.find(b" ", start + least)
        if end < 0:
            end = len(data)
        yield start, end
        start = mapped.find(wanted, end)


def decoded(
    data: bytes, shapes: Collection[Shape], spans: Sequence[Span], plain: bytes | None
) -> Iterator[tuple[str, bytes]]:
    """Give (layer, content) for every decoding of ``data`` that yields something to look at.

    ``spans`` are the data's :func:`digit_runs`, ``plain`` its skeleton where the caller has it. Raises
    :class:`~bot_bottle.pipelock.unpack.OpaqueError` for content that grows beyond all bounds.
    """
    if Shape.PERCENT in shapes:
        yield "percent", _around(data, Shape.PERCENT, unquote_to_bytes)
    if Shape.ESCAPE in shapes:
        yield "escapes", _around(data, Shape.ESCAPE, lambda part: _ESCAPE.sub(_unescape, part))
    if Shape.UNICODE in shapes:
        yield "unicode", _around(data, Shape.UNICODE, _fold, reach=_REACH // 2)
    if Shape.WRAPPED in shapes:
        yield "wrapped", _around(data, Shape.WRAPPED, lambda part: _LINES.sub(_one_line, part))
    if Shape.PACKED in shapes:
        for part in packed_parts(data, anywhere=True):
            yield "compressed", part
    gathered: dict[str, list[bytes]] = {}
    for layer, text in _decoded_runs(data, spans):
        gathered.setdefault(layer, []).append(text)
    if plain is not None:
        for run in _apart(plain, data):
            gathered.setdefault("hex", []).extend(_hex_texts(run))
    for layer, texts in gathered.items():
        yield layer, _BETWEEN.join(texts)


def hides_nothing(data: bytes, plain: bytes, spans: Sequence[Span]) -> bool:
    """Tell of content without the sign of any :class:`Shape` that :func:`decoded` would give nothing for it.

    ``spans`` are its :func:`digit_runs`, ``plain`` is its skeleton. A ``False`` means no more than that it
    was not found out so quickly.
    """
    if spans:
        if any(end - start >= _SHORTEST_LINE and _WRAP.match(data, end) for start, end in spans):
            return False
        if _any_readable([data[start:end] for start, end in spans]):
            return False
    return plain.translate(_HEX_MAP).find(_HEX_RUN) < 0


def _apart(plain: bytes, data: bytes) -> Iterator[bytes]:
    """Give the runs of hex digits that make text and that something else kept apart (``41-4b-49``)."""
    if len(plain) > _WORTH_A_LOOK and not _any_run(rb"[0-9A-Fa-f]", _SHORTEST_HEX).hits(plain):
        return
    found = [plain[start:end] for start, end in runs(plain, _HEX_MAP, _SHORTEST_HEX)]
    yield from (found[index] for index in _readable_runs(found) if found[index] not in data)


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


def digit_runs(data: bytes) -> list[Span]:
    """Give every stretch of base64 digits that could be something encoded."""
    if len(data) > _WORTH_A_LOOK and not _any_run(rb"[A-Za-z0-9+/_-]", SHORTEST_RUN).hits(data):
        return []
    return list(runs(data, _RUN_MAP, SHORTEST_RUN))


@functools.cache
def _any_run(letters: bytes, least: int) -> PatternSet:
    """Give what tells four times as fast as :func:`runs` that there is none."""
    return PatternSet.expressions([b"%b{%d}" % (letters, least)])


def _decoded_runs(data: bytes, spans: Sequence[Span]) -> Iterator[tuple[str, bytes]]:
    """Decode every long run of digits of some base, each with what stands around it."""
    places: list[Span] = []
    found: list[bytes] = []
    done = 0
    for start, stop in spans:
        if start >= done:
            run, end = data[start:stop], stop
            if end - start >= _SHORTEST_LINE:
                end, run = _unwrapped(data, end, run)
            places.append((start, end))
            found.append(run)
            done = end
    for index in _readable_runs(found):
        start, end = places[index]
        head, tail = data[max(0, start - _BEFORE) : start], data[end : end + _BEHIND].lstrip(b"=")
        for layer, inner in _bases(found[index]):
            yield layer, head + inner + tail


def _readable_runs(found: Sequence[bytes], first: int = 0) -> Iterator[int]:
    """Give the indexes of the runs that hide something, halving what is asked about: most hide nothing."""
    if not found or not _any_readable(found):
        return
    if len(found) == 1:
        yield first
        return
    half = len(found) // 2
    yield from _readable_runs(found[:half], first)
    yield from _readable_runs(found[half:], first + half)


def _any_readable(found: Sequence[bytes]) -> bool:
    """Decode all runs in one go and see whether anything comes out; lock files are full of hashes."""
    hexes: list[bytes] = []
    short: list[bytes] = []
    long: list[bytes] = []
    for run in found:
        if digits := _hex_digits(run):
            hexes.append(digits[: len(digits) & ~1])
            hexes.append(digits[1 : (len(digits) - 1) | 1])
        elif _BASE32.fullmatch(run):
            if run.strip(run[:1]):
                return True
        else:
            (short if len(run) < _LONGEST_NAMED else long).append(run)
    if hexes and _readable(bytes.fromhex("00".join([digits.decode("ascii") for digits in hexes]))):
        return True
    if _ZLIB_IN_BASE64.search(b"/".join([*short, *long])):
        return True
    # Shifting the whole shifts every run in it: what begins behind a name has one of four alignments.
    return any(
        _readable(_from_base64(joined[shift:]))
        for joined, shifts in ((_joined(short), range(4)), (_joined(long), range(1)))
        if joined
        for shift in shifts
    )


def _hex_digits(run: bytes) -> bytes:
    """Give the hex digits that ``run`` is made of, or ends in behind names; empty where it is not."""
    if run[-8:].translate(None, _HEX_DIGITS):
        return b""
    match = _NAMED_HEX.fullmatch(run)
    return match[1] if match else b""


def _joined(found: Sequence[bytes]) -> bytes:
    return b"AAAA".join([run + b"A" * (-len(run) % 4) for run in found])


def _from_base64(digits: bytes) -> bytes:
    digits = digits.translate(_STANDARD, b"=")
    usable = len(digits) - (len(digits) % 4 == 1)
    return binascii.a2b_base64(digits[:usable] + b"=" * (-usable % 4))


def _readable(raw: bytes) -> bool:
    """Tell bytes with text in them, or a compressed stream."""
    if _is_wide(raw):
        raw = raw.replace(b"\0", b"")
    if _has_odd_letters(raw) or raw.translate(_TEXT_MAP).find(b"!" * _SHORTEST_TEXT) >= 0:
        return True
    return any(mark in raw for mark in PACK_MARKS)


def _unwrapped(data: bytes, end: int, run: bytes) -> tuple[int, bytes]:
    """Join the lines of an encoded text that was wrapped, plainly or with escaped line ends."""
    width = len(run)
    lines = [run]
    is_hex = bool(_hex_digits(run))
    while (match := _WRAP.match(data, end)) and len(match[1]) <= width + 2:
        if is_hex and match[1].translate(None, _HEX_DIGITS):
            break  # the next word, not the next line
        line = match[1].rstrip(b"=")
        lines.append(line)
        end = match.end()
        if len(line) < width:
            break
    return end, b"".join(lines)


def _bases(run: bytes) -> Iterator[tuple[str, bytes]]:
    if digits := _hex_digits(run):
        yield from (("hex", text) for text in _hex_texts(digits))
        return
    for match in _ZLIB_IN_BASE64.finditer(run):
        # Its mark is too short to be looked for in the midst of what is decoded.
        yield from (
            ("base64", text) for text in packed_parts(_from_base64(run[match.end() - 3 :]), anywhere=False)
        )
    for shift in range(4 if len(run) < _LONGEST_NAMED else 1):
        yield from (("base64", text) for text in _texts(_from_base64(run[shift:])))
    if len(run) >= 24 and _BASE32.fullmatch(run):
        yield from (("base32", text) for text in _texts(_from_base32(run)))


def _from_base32(run: bytes) -> bytes:
    """Decode base32 digits of either case; the library's own decoder is a slow loop in Python."""
    bits = 5 * len(run)
    value = int(run.upper().translate(_BASE32_DIGITS), 32) << (-bits % 8)
    return value.to_bytes((bits + 7) // 8, "big")[: bits // 8]


def _hex_texts(run: bytes) -> Iterator[bytes]:
    """Read hex digits at both alignments; something may stand before the first pair."""
    text = run.decode("ascii")
    for shift in (0, 1):
        yield from _texts(bytes.fromhex(text[shift : len(text) - (len(text) - shift) % 2]))


def _texts(plain: bytes) -> Iterator[bytes]:
    """Give what of decoded bytes can be read: stretches of text, or the inside of a compressed stream."""
    yield from packed_parts(plain, anywhere=True)
    if _is_wide(plain):
        plain = plain.replace(b"\0", b"")
    if _has_odd_letters(plain):
        yield plain
        return
    for start, end in runs(plain, _TEXT_MAP, _SHORTEST_TEXT):
        yield plain[start:end]


def _is_wide(raw: bytes) -> bool:
    """Tell text in UTF-16 that is Latin: every other byte of it is none."""
    return 5 * raw.count(b"\0") >= 2 * len(raw) > 0


def _has_odd_letters(raw: bytes) -> bool:
    """Tell text in full-width letters or with zero-width characters, which has no stretch of ASCII."""
    return raw.count(b"\xef\xbc") + raw.count(b"\xef\xbd") >= _MANY or raw.count(b"\xe2\x80\x8b") >= _MANY


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
        or (len(joined) >= SHORTEST_RUN and _CAPITALS.search(joined) and _decodes(joined))
    ):
        return joined
    return bytes(match[0])


def _decodes(run: bytes) -> bool:
    return any(_readable(_from_base64(run[shift:])) for shift in range(4))


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


def _fold(data: bytes) -> bytes:
    """Bring look-alike and full-width letters to ASCII and drop what has no width."""
    text = unicodedata.normalize("NFKD", data.decode("utf-8", "replace")).translate(_TAGS)
    return _ODD.sub(lambda match: _FOLDED[match[0]], text).encode("utf-8")
