"""Keys in plain sight of a human alone: pulled apart, backwards, shifted, as numbers. For small content.

What gives such a key away is a few letters that hardly ever stand by chance, so that looking for them costs
next to nothing. What comes of it is looked at by the rules as any other content; nothing is decided here.
"""

from __future__ import annotations

import binascii
import functools
import re
from typing import TYPE_CHECKING, Final

from bot_bottle.pipelock.decode import Shape
from bot_bottle.pipelock.digits import runs
from bot_bottle.pipelock.patterns import PatternSet

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

#: Larger content is what somebody works on; a message fits into less.
LARGEST: Final = 16 * 1024
#: A target, header lines, a short text: what a value stands in by itself. Code also pulls keys apart.
_LARGEST_MESSAGE = 2048

#: How keys begin, and what they are when nothing stands between their letters any more.
_BEGINNINGS: Final[dict[bytes, bytes]] = {
    **dict.fromkeys((b"AKIA", b"ASIA"), rb"(?=[A-Z]{0,15}\d)[A-Z0-9]{16}"),
    **dict.fromkeys((b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"), rb"[A-Za-z0-9]{34,36}"),
    **dict.fromkeys((b"sk_live_", b"sk_test_", b"rk_live_"), rb"[A-Za-z0-9]{24}"),
    b"npm_": rb"[A-Za-z0-9]{36}",
    b"AIza": rb"[A-Za-z0-9_]{35}",
    b"hf_": rb"[A-Za-z]{34}",
}
_NOT_OF_A_KEY = bytes(
    sorted(set(range(256)) - set(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"))
)
#: ``AKIA`` and 16 more.
_SHORTEST_KEY = 20
_KEYS: Final = tuple(re.compile(re.escape(start) + body) for start, body in _BEGINNINGS.items())
_GAP = rb"[^A-Za-z0-9_]{0,16}"
#: A word that somebody wrote; of a text about keys there are more of them than anything else.
_WORD = re.compile(rb"[A-Za-z][a-z]{3,}")

_UPPER, _LOWER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz"
_ROT13 = bytes.maketrans(_UPPER + _LOWER, _UPPER[13:] + _UPPER[:13] + _LOWER[13:] + _LOWER[:13])

#: Letters by their numbers, as lists in programs and messages have them.
_CODES = re.compile(
    rb"(?:(?:1[01]\d|12[0-6]|[3-9]\d)[, ]{1,2}){12,}(?:1[01]\d|12[0-6]|[3-9]\d)?"
    rb"|(?:0[xX][2-7][0-9A-Fa-f][, ]{1,2}){8,}(?:0[xX][2-7][0-9A-Fa-f])?|(?:0[01]{7} ?){8,}"
)
_BINARY = re.compile(rb"[01 ]+")
_BITS = re.compile(rb"[01]{8}")
_NUMBER_MAP = bytes(33 if byte in b"0123456789abcdefABCDEFxX, []" else 32 for byte in range(256))
_SHORTEST_NUMBERS = 30
#: Below this a few searches are faster than one for all.
_SHORT = 200
_NUMBERS = b"!" * _SHORTEST_NUMBERS
#: What :func:`undisguised` looks for as numbers stands in such a run.
CODES: Final = rb"[0-9a-fA-FxX, \[\]]{%d}" % _SHORTEST_NUMBERS

#: Groups of base64 digits with one sign between them, again and again.
_DIGITS, _SEPARATOR = rb"[A-Za-z0-9/+]", rb"(?:[ .,:|~-]|%20|%0[AaDd]|\+){1,2}"
_GROUPS = re.compile(rb"(?:%b{2,40}%b){3,}%b{2,40}={0,2}" % (_DIGITS, _SEPARATOR, _DIGITS))
#: Found where :data:`_GROUPS` is, and much faster where it is not: of the first group its end will do.
_GROUPED = re.compile(rb"%b{2}%b(?:%b{2,40}%b){2}%b{2}" % (_DIGITS, _SEPARATOR, _DIGITS, _SEPARATOR, _DIGITS))
_NO_SEPARATOR = bytes(sorted(set(range(256)) - set(b" .,:|~-%+")))
_BETWEEN = re.compile(rb"%20|%0[AaDd]|[ .,:|~+-]")
_READABLE = re.compile(rb"[\x20-\x7e]{16,}")


def holds_none(data: bytes) -> bool:
    """Tell content in which :func:`undisguised` would find nothing but numbers and what has a sign."""
    if len(data) > _LARGEST_MESSAGE or _is_small_letters(data):
        return True
    return not _begun(data.translate(None, _NOT_OF_A_KEY)) and not _may_be_grouped(data)


def _has_numbers(data: bytes) -> bool:
    return len(data) >= _SHORTEST_NUMBERS and data.translate(_NUMBER_MAP).find(_NUMBERS) >= 0


def _is_small_letters(data: bytes) -> bool:
    """Tell content, behind a method, in which no key begins and no base64 has all its kinds of letters."""
    return b"_" not in data and data.lstrip(_UPPER).islower()


def _begun(letters: bytes) -> list[int]:
    """Give which keys could begin in ``letters``; nearly always none, which their rarest ones tell."""
    if len(letters) < _SHORTEST_KEY or (b"A" not in letters and b"_" not in letters):
        return []
    if len(letters) > _SHORT:
        return [index for index, _end in _beginnings().hits(letters)]
    return [index for index, start in enumerate(_BEGINNINGS) if start in letters]


@functools.cache
def _beginnings() -> PatternSet:
    return PatternSet.expressions([re.escape(start) for start in _BEGINNINGS])


def undisguised(data: bytes, shapes: Collection[Shape], *, codes: bool = True) -> Iterator[tuple[str, bytes]]:
    """Give (layer, content) for everything in small content that may be a key in such a form.

    ``shapes`` are the signs that were seen in it; without ``codes`` no :data:`CODES` were.
    """
    if len(data) > LARGEST:
        return
    if Shape.MIRRORED in shapes:
        yield "reversed", data[::-1]
        yield "rot13", data.translate(_ROT13)
    numbers = runs(data, _NUMBER_MAP, _SHORTEST_NUMBERS) if codes and _has_numbers(data) else ()
    if texts := [
        text
        for start, end in numbers
        if (text := _CODES.sub(_from_codes, data[start:end])) != data[start:end]
    ]:
        yield "numbers", b"\n".join(texts)
    if len(data) > _LARGEST_MESSAGE:
        return
    letters = data.translate(None, _NOT_OF_A_KEY)
    keys = [match[0] for index in _begun(letters) for match in _KEYS[index].finditer(letters)]
    if keys := [key for key in keys if not _is_prose(key) and _is_pulled_apart(key, data)]:
        yield "pulled apart", b"\n".join(keys)
    if _may_be_grouped(data):
        for match in _GROUPS.finditer(data):
            yield from (("base64", text) for text in _read(_BETWEEN.sub(b"", match[0])))


def _may_be_grouped(data: bytes) -> bool:
    """Tell digits in groups; JSON has its values between quotes, and no groups of them."""
    if b'"' in data or len(data.translate(None, _NO_SEPARATOR)) < 3:
        return False
    return _GROUPED.search(data) is not None


def _from_codes(match: re.Match[bytes]) -> bytes:
    """Write letters in place of their numbers: decimal, hexadecimal or binary ones."""
    text = match[0]
    base = 16 if text[:2] in {b"0x", b"0X"} else 2 if _BINARY.fullmatch(text) else 10
    found = _BITS.findall(text) if base == 2 else re.split(rb"[, ]+", text.strip(b", "))
    return bytes(number for number in (int(one, base) for one in found) if 0 < number < 256)


def _is_pulled_apart(key: bytes, data: bytes) -> bool:
    """Tell a key that stands there in two pieces or in pieces of one size, as no words of a text do."""
    apart = re.search(_GAP.join(re.escape(key[at : at + 1]) for at in range(len(key))), data)
    if apart is None:
        return False
    pieces = [piece for piece in re.split(rb"[^A-Za-z0-9_]+", apart[0]) if piece]
    return len(pieces) == 2 or (len(pieces) > 2 and len({len(piece) for piece in pieces[:-1]}) == 1)


def _is_prose(key: bytes) -> bool:
    return 2 * sum(map(len, _WORD.findall(key))) > len(key)


def _read(digits: bytes) -> Iterator[bytes]:
    digits = digits.rstrip(b"=")
    for shift in range(4):
        part = digits[shift:]
        part = part[: len(part) - (len(part) % 4 == 1)]
        text = binascii.a2b_base64(part + b"=" * (-len(part) % 4))
        if match := _READABLE.search(text):
            yield match[0]
