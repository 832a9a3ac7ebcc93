"""Long runs of the digits of some base, and what they are once they are read: base64, base32, hex.

Most of them hide nothing (a hash, a path, a name), so all are read at once before any is by itself.
"""

from __future__ import annotations

import binascii
import functools
import re
from typing import TYPE_CHECKING, TypeAlias

from bot_bottle.pipelock.patterns import PatternSet
from bot_bottle.pipelock.unpack import PACK_MARKS, packed_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: (start, end) of a stretch of bytes.
Span: TypeAlias = tuple[int, int]

_BASE64_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
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
#: How long a run may be to be tried at every alignment, since a name may stand before it (``path/to/QUJD``).
_LONGEST_NAMED = 4096
_MANY = 4
_HEX_DIGITS = b"0123456789abcdefABCDEF"

_WRAP = re.compile(rb"(?:\\r|\\n|[ \t\r\n]){1,6}([A-Za-z0-9+/_-]+={0,2})")
#: How a stream with one of zlib's four usual headers begins when encoded, at the start of a run or a name.
_ZLIB_IN_BASE64 = re.compile(rb"e(?<![^/_-]e)(?:J[w-z]|A[E-H]|N[o-r]|F[4-7])")
#: Hex by itself or behind names: a hash, mostly (``sha1-…``). Read as base64 it would make many letters.
_NAMED_HEX = re.compile(rb"(?:[A-Za-z0-9]{1,24}[-_/+])*([0-9A-Fa-f]{20,})")
_STANDARD = bytes.maketrans(b"-_", b"+/")
_BASE32 = re.compile(rb"[A-Z2-7]+|[a-z2-7]+")
_BASE32_DIGITS = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHIJKLMNOPQRSTUV")


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


def digit_runs(data: bytes) -> list[Span]:
    """Give every stretch of base64 digits that could be something encoded."""
    if len(data) > _WORTH_A_LOOK and not _any_run(rb"[A-Za-z0-9+/_-]", SHORTEST_RUN).hits(data):
        return []
    return list(runs(data, _RUN_MAP, SHORTEST_RUN))


def hides_nothing(data: bytes, plain: bytes, spans: Sequence[Span]) -> bool:
    """Tell of content without the sign of any shape that nothing could be decoded of it.

    ``spans`` are its :func:`digit_runs`, ``plain`` is its skeleton. A ``False`` means no more than that it
    was not found out so quickly.
    """
    if spans:
        if any(end - start >= _SHORTEST_LINE and _WRAP.match(data, end) for start, end in spans):
            return False
        if _any_readable([data[start:end] for start, end in spans]):
            return False
    return plain.translate(_HEX_MAP).find(_HEX_RUN) < 0


@functools.cache
def _any_run(letters: bytes, least: int) -> PatternSet:
    """Give what tells four times as fast as :func:`runs` that there is none."""
    return PatternSet.expressions([b"%b{%d}" % (letters, least)])


def decoded_runs(data: bytes, spans: Sequence[Span]) -> Iterator[tuple[str, bytes]]:
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


def hex_apart(plain: bytes, data: bytes) -> Iterator[bytes]:
    """Give the runs of hex digits that make text and that something else kept apart (``41-4b-49``)."""
    if len(plain) > _WORTH_A_LOOK and not _any_run(rb"[0-9A-Fa-f]", _SHORTEST_HEX).hits(plain):
        return
    found = [plain[start:end] for start, end in runs(plain, _HEX_MAP, _SHORTEST_HEX)]
    yield from (found[index] for index in _readable_runs(found) if found[index] not in data)


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
        yield from (("hex", text) for text in hex_texts(digits))
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


def hex_texts(run: bytes) -> Iterator[bytes]:
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


def is_readable(run: bytes) -> bool:
    """Tell a run of base64 digits that hides something, at any alignment."""
    return any(_readable(_from_base64(run[shift:])) for shift in range(4))
