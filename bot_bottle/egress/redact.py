"""Credentials taken out of what a server says: found by value in their usual forms, in any chunking.

What is found is overwritten byte for byte, so that lengths, and with them the framing, stay what they were.
A value is searched in short blocks: an echo that was cut still loses every whole block, and the window that
has to be held back stays small. No I/O happens here.

The bottle may say what the server answers, so it can guess: nothing that it sees, neither a mask nor when
something comes, may tell a guess that is right for a few characters from one that is wrong. So what is held
back does not depend on any value, and only what can be no guess is masked (``_TELLING`` characters at once).
"""

from __future__ import annotations

import base64
import html
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bot_bottle.pipelock.patterns import PatternSet

#: Values shorter than this cannot be told from ordinary text and are not searched.
SHORTEST = 6
_LONGEST_WHOLE = 24
_BLOCK = 16
#: At the end of a message so many of a block's first characters, behind what anybody may know of them, are
#: taken for a credential that was cut: more than can be guessed (64 ** 10 tries).
_TELLING = 10
#: What vendors begin their keys with, which is no secret: up to the last of these in a value's first part.
_MARKS = b"-_"
#: No form of a value that may stand in a header has one of these in it: behind it nothing can have begun.
_BREAKS = (b"\n", b"\r")
#: RFC 7519: header and claims say who it is for; it is the signature that makes a token of them.
_SIGNED = re.compile(rb"eyJ[\w-]+\.[\w-]+\.([\w-]{20,})")
#: How many of a needle's first bytes are looked at before all of them; no beginning that counts is shorter.
_START = 4
_MASK = b"*"
#: What credentials and their codings are written with; a server that stops for a moment rarely stops in it.
_LAST_WORD = re.compile(rb"[^\x01-\x20\"'<>{}()\[\],`]+\Z")


class Needles:
    """What is looked for, compiled once."""

    __slots__ = ("_breaks", "_flexible", "_lengths", "_prefixes", "_search", "_start", "longest")

    def __init__(self, values: Iterable[bytes]) -> None:
        """Compile the forms of ``values``; raises where the matching library cannot be loaded."""
        from bot_bottle.pipelock.patterns import PatternSet  # noqa: PLC0415 - loaded for the first that needs it

        values = list(values)
        tellings: dict[bytes, int] = {}
        for value in values:
            for form, telling in forms(value):
                low = form.lower()
                tellings[low] = min(telling, tellings.get(low, telling))
        needles = sorted(tellings)
        escaped = sorted({one for value in values for one in escapes(value)})
        self._lengths = tuple(map(len, needles))
        #: Bytes that may be the beginning of a needle, at most.
        self.longest = max([*self._lengths, *(one.longest for one in escaped)], default=1) - 1
        self._flexible = tuple(re.compile(b"(?is:" + one.expression + rb")\Z") for one in escaped)
        # What the first bytes of all needles have in common passes over nearly every place in other text.
        beginnings = [{needle[at] for needle in needles} for at in range(_START)]
        self._start = re.compile(
            b"".join(b"[" + re.escape(bytes(sorted(some))) + b"]" for some in beginnings if some)
        )
        self._prefixes = frozenset(
            needle[:length] for needle in needles for length in range(tellings[needle], len(needle))
        )
        self._breaks = tuple(one for one in _BREAKS if not any(one in needle for needle in needles))
        # Every byte by its number: literals of this library end at a NUL, and UTF-16 is full of them.
        written = [b"(?i)" + b"".join(b"\\x%02x" % byte for byte in needle) for needle in needles]
        written += [b"(?i)" + one.expression for one in escaped]
        self._search: PatternSet | None = PatternSet.expressions(written, once=False) if written else None

    def __repr__(self) -> str:
        return f"Needles({len(self._lengths)})"

    def __bool__(self) -> bool:
        return self._search is not None

    def stand_in(self, data: bytes) -> bool:
        """Tell whether any needle stands in ``data``."""
        return self._search is not None and bool(self._search.hits(data))

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Give where in ``data`` needles stand, as (start, end); they may overlap."""
        if self._search is None:
            return []
        lengths = self._lengths
        return [
            (end - lengths[index] if index < len(lengths) else self._start_of(data, index, end), end)
            for index, end in self._search.hits(data)
        ]

    def _start_of(self, data: bytes, index: int, end: int) -> int:
        """Find where an escaped form that ends at ``end`` begins; only its end is told."""
        first = max(0, end - self.longest - 1)
        match = self._flexible[index - len(self._lengths)].search(data[first:end])
        return first + match.start() if match else first

    def settled(self, data: bytes) -> int:
        """Tell how much of ``data`` no needle can begin in that is not whole yet, whatever the values are."""
        if self._search is None:
            return len(data)
        behind = (data.rfind(one) + 1 for one in self._breaks)
        return max(0, len(data) - self.longest, *behind)

    def begun(self, data: bytes) -> int:
        """Tell how many bytes at the end of ``data`` are so much of a needle that nobody guessed it."""
        if not self._prefixes:
            return 0
        end = data[-self.longest :].lower()
        match = self._start.search(end)
        while match:
            start = match.start()
            if end[start:] in self._prefixes:
                return len(end) - start
            match = self._start.search(end, start + 1)
        return 0

    def masked(self, data: bytes) -> bytes:
        """Give ``data``, a whole text, without its credentials; the same object where it holds none."""
        spans = self.spans(data)
        return _masked(data, spans) if spans else data


class Redactor:
    """One stream: gives back what it is fed, late by no more than the longest needle.

    What is late does not depend on what it says. ``found`` says whether anything was taken out so far.
    """

    __slots__ = ("_covered", "_held", "_needles", "_shown", "found")

    def __init__(self, needles: Needles) -> None:
        self.found = False
        self._needles = needles
        self._held = b""
        #: How much of the start of what is held belongs to a needle that began before it.
        self._covered = 0
        #: The end of what went on early (``linger``): a needle may have begun in it.
        self._shown = b""

    @property
    def waiting(self) -> bool:
        """Whether anything is held back."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Take a piece; gives what may go on of it and of what was held."""
        shown = len(self._shown)
        if self._held or shown:
            data = self._shown + self._held + data
        settled = self._needles.settled(data)
        cut = max(settled, shown)
        out = self._let_on(data, shown, cut)
        self._shown = data[settled:cut]
        return out

    def linger(self, *, long: bool = False) -> bytes:
        """Give what is held up to the last word, since the server says no more for now.

        After a ``long`` silence the word as well, but for what nobody can have guessed.
        """
        data, shown = self._shown + self._held, len(self._shown)
        ends = len(data) - self._needles.begun(data) if long else _words_end(data)
        cut = max(ends, shown)
        out = self._let_on(data, shown, cut)
        self._shown = data[:cut][-self._needles.longest :]
        return out

    def finish(self) -> bytes:
        """Give what is still held, at the end of the stream or of a message in it."""
        data, shown = self._shown + self._held, len(self._shown)
        begun = self._needles.begun(data)
        out = self._let_on(data, shown, len(data), also=(len(data) - begun, len(data)) if begun else None)
        self._held = self._shown = b""
        self._covered = 0
        return out

    def _let_on(self, data: bytes, shown: int, cut: int, *, also: tuple[int, int] | None = None) -> bytes:
        """Give ``data`` from ``shown`` to ``cut``, masked; the rest is held, and searched again."""
        spans = [span for span in self._needles.spans(data) if span[0] < cut]
        if self._covered:
            spans.append((shown, shown + self._covered))
        if also is not None:
            spans.append(also)
        self._held = data[cut:]
        if not spans:
            return data[shown:cut] if shown or self._held else data
        self.found = True
        self._covered = max(0, max(end for _start, end in spans) - cut)
        return _masked(data, spans)[shown:cut]


def _words_end(data: bytes) -> int:
    """Give where the last word of ``data`` begins: letters, digits and the signs of codings."""
    match = _LAST_WORD.search(data)
    return match.start() if match else len(data)


def _masked(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    text = bytearray(data)
    for start, end in spans:
        text[start:end] = _MASK * (end - start)
    return bytes(text)


def forms(value: bytes) -> Iterator[tuple[bytes, int]]:
    """Give how ``value`` may be written: in clear, escaped, and encoded, whole or as its blocks.

    With each goes how many of its first bytes nobody can have guessed.
    """
    value = _bare(value)
    known = max((value[:_BLOCK].rfind(mark) + 1 for mark in (_MARKS[:1], _MARKS[1:])), default=0)
    for number, block in enumerate(_blocks(value)):
        telling = _TELLING + (known if number == 0 else 0)
        for form in _written(block):
            if len(form) >= SHORTEST:
                # As many characters of the form as those of the value take, one more for what is split.
                yield form, max(SHORTEST, -(-telling * len(form) // len(block)) + 1)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Escaped:
    """A block whose special characters may each be written in any usual way; ``longest`` in bytes."""

    expression: bytes
    longest: int


def escapes(value: bytes) -> Iterator[Escaped]:
    """Give how ``value`` may be written by servers that escape some of its characters and others not.

    Templates, JSON writers and URL libraries differ in which they take for special (HTML: 13.1.4 "character
    references"; RFC 8259, 7; RFC 3986, 2.1).
    """
    for block in _blocks(_bare(value)):
        if block.isalnum():
            continue  # nobody escapes these
        ways = [_ways(byte) for byte in block]
        expression = b"".join(
            b"(?:" + b"|".join(re.escape(way) for way in some) + b")" if len(some) > 1 else re.escape(some[0])
            for some in ways
        )
        yield Escaped(expression=expression, longest=sum(max(map(len, some)) for some in ways))


def _ways(byte: int) -> list[bytes]:
    char = bytes((byte,))
    if char.isalnum() or byte > 0x7E or byte < 0x20:
        return [char]
    named = html.escape(char.decode("ascii")).encode("ascii")
    numbers = (b"%%%02x", b"%%25%02x", b"\\u00%02x", b"\\x%02x", b"&#x%x;", b"&#x%02x;", b"&#%d;", b"&#%03d;")
    others = (b"+",) if char == b" " else (b"\\" + char,)
    return list(dict.fromkeys((char, *others, named, *(number % byte for number in numbers))))


def _bare(value: bytes) -> bytes:
    """Leave out base64's padding, which an echo may lack and which is no secret."""
    bare = value.rstrip(b"=")
    return bare if len(bare) >= SHORTEST else value


def _blocks(value: bytes) -> list[bytes]:
    if len(value) < SHORTEST:
        return []
    signed = _SIGNED.fullmatch(value)
    if signed:
        value = signed[1]
    if len(value) <= _LONGEST_WHOLE:
        return [value]
    starts = [*range(0, len(value) - _BLOCK, _BLOCK), len(value) - _BLOCK]
    blocks = [value[start : start + _BLOCK] for start in starts]
    return [block for block in blocks if len(set(block)) >= 4] or [value[:_BLOCK]]


def _written(block: bytes) -> Iterator[bytes]:
    yield block
    yield block[::-1]
    text = block.decode("latin-1")
    escaped = json.dumps(text)[1:-1]
    once = quote(text, safe="")
    for spelling in (
        escaped,
        escaped.replace("/", "\\/"),
        html.escape(text),
        once,
        quote_plus(text),
        quote(once, safe=""),
    ):
        yield spelling.encode("ascii", "backslashreplace")
    yield block.hex().encode("ascii")
    for before in (b"%", b"%25", b"\\x", b"\\u00"):
        yield b"".join(before + b"%02x" % byte for byte in block)
    for between in (b" ", b":", b"-"):  # dumps of bytes
        yield block.hex(between.decode("ascii")).encode("ascii")
    for between in (b",", b", ", b" "):  # JSON writers' and languages' lists of them
        yield between.join(b"%d" % byte for byte in block)
    for template in (b"&#%d;", b"&#x%x;", b"\\%03o"):
        yield b"".join(template % byte for byte in block)
    for offset in range(3):
        core = _core(base64.b64encode(b"\0" * offset + block), offset, len(block), 6)
        yield core
        yield core.translate(_URL_SAFE)
    for offset in range(5):
        yield _core(base64.b32encode(b"\0" * offset + block), offset, len(block), 5)
    for charset in _CHARSETS:
        yield text.encode(charset, "ignore")


#: Those in which ASCII is not ASCII; a server may be asked for any. The last is EBCDIC.
_CHARSETS = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "cp037")

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _core(digits: bytes, offset: int, length: int, bits: int) -> bytes:
    """Leave out of ``digits`` those that what stands before or behind the block has a part in."""
    return digits[-(-8 * offset // bits) : 8 * (offset + length) // bits]
