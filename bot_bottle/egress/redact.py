"""Credentials taken out of what a server says: found by value in their usual forms, in any chunking.

What is found is overwritten byte for byte, so that lengths, and with them the framing, stay what they were.
A value is searched in short blocks: an echo that was cut still loses every whole block, and the window that
has to be held back stays small. No I/O happens here.
"""

from __future__ import annotations

import base64
import html
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bot_bottle.pipelock.patterns import PatternSet

#: Values shorter than this cannot be told from ordinary text and are not searched.
SHORTEST = 6
_LONGEST_WHOLE = 24
_BLOCK = 16
#: At the end of a message this much of a needle's beginning is taken for a credential that was cut.
_TELLING = 8
#: RFC 7519: header and claims say who it is for; it is the signature that makes a token of them.
_SIGNED = re.compile(rb"eyJ[\w-]+\.[\w-]+\.([\w-]{20,})")
_MASK = b"*"
#: How many of a needle's first bytes are looked at before all of them are; no needle is shorter.
_START = 4


class Needles:
    """What is looked for, compiled once."""

    __slots__ = ("_lengths", "_longest", "_prefixes", "_search", "_start")

    def __init__(self, values: Iterable[bytes]) -> None:
        """Compile the forms of ``values``; raises where the matching library cannot be loaded."""
        from bot_bottle.pipelock.patterns import PatternSet  # noqa: PLC0415 - loaded for the first that needs it

        needles = sorted({form.lower() for value in values for form in forms(value)})
        self._lengths = tuple(map(len, needles))
        self._longest = max(self._lengths, default=1)
        # What the first bytes of all needles have in common passes over nearly every place in other text.
        beginnings = [{needle[at] for needle in needles} for at in range(_START)]
        self._start = re.compile(b"".join(_one_of(bytes(sorted(some))) for some in beginnings))
        self._prefixes = frozenset(needle[:length] for needle in needles for length in range(1, len(needle)))
        # Every byte by its number: literals of this library end at a NUL, and UTF-16 is full of them.
        written = [b"(?i)" + b"".join(b"\\x%02x" % byte for byte in needle) for needle in needles]
        self._search: PatternSet | None = PatternSet.expressions(written, once=False) if written else None

    def __repr__(self) -> str:
        return f"Needles({len(self._lengths)})"

    def __bool__(self) -> bool:
        return self._search is not None

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Give where in ``data`` needles stand, as (start, end); they may overlap."""
        if self._search is None:
            return []
        lengths = self._lengths
        return [(end - lengths[index], end) for index, end in self._search.hits(data)]

    def begun(self, data: bytes) -> int:
        """Tell how many bytes at the end of ``data`` are the beginning of a needle."""
        if self._search is None:
            return 0
        end = data[1 - self._longest :].lower()
        search, prefixes, size = self._start.search, self._prefixes, len(end)
        match = search(end)
        while match:
            start = match.start()
            if end[start:] in prefixes:
                return size - start
            match = search(end, start + 1)
        for start in range(max(0, size + 1 - _START), size):
            if end[start:] in prefixes:
                return size - start
        return 0

    def masked(self, data: bytes) -> bytes:
        """Give ``data``, a whole text, without its credentials; the same object where it holds none."""
        spans = self.spans(data)
        return _masked(data, spans) if spans else data


class Redactor:
    """One stream: gives back what it is fed, late by no more than the beginning of a needle.

    ``found`` says whether anything was taken out so far.
    """

    __slots__ = ("_covered", "_held", "_needles", "found")

    def __init__(self, needles: Needles) -> None:
        self.found = False
        self._needles = needles
        self._held = b""
        #: How much of the start of what is held belongs to a needle that began before it.
        self._covered = 0

    def feed(self, data: bytes) -> bytes:
        """Take a piece; gives what may go on of it and of what was held."""
        if self._held:
            data = self._held + data
        spans = self._needles.spans(data)
        cut = len(data) - self._needles.begun(data)
        self._held = data[cut:]
        if not (spans or self._covered):
            return data[:cut] if self._held else data
        self.found = True
        spans.append((0, self._covered))
        self._covered = max(0, max(end for _start, end in spans) - cut)
        return _masked(data, spans)[:cut]

    def finish(self) -> bytes:
        """Give what is still held, at the end of the stream or of a message in it."""
        held, self._held = self._held, b""
        covered, self._covered = self._covered, 0
        if len(held) >= _TELLING:
            self.found = True
            covered = len(held)
        return _masked(held, [(0, covered)]) if covered else held


def _one_of(some: bytes) -> bytes:
    return b"[" + re.escape(some) + b"]" if some else b""


def _masked(data: bytes, spans: Iterable[tuple[int, int]]) -> bytes:
    text = bytearray(data)
    for start, end in spans:
        text[start:end] = _MASK * (end - start)
    return bytes(text)


def forms(value: bytes) -> Iterator[bytes]:
    """Give how ``value`` may be written: in clear, escaped, and encoded, whole or as its blocks."""
    if len(value) < SHORTEST:
        return
    for block in _blocks(value):
        for form in _written(block):
            if len(form) >= SHORTEST:
                yield form


def _blocks(value: bytes) -> list[bytes]:
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
    for offset in range(3):
        core = _core(base64.b64encode(b"\0" * offset + block), offset, len(block), 6)
        yield core
        yield core.translate(_URL_SAFE)
    for offset in range(5):
        yield _core(base64.b32encode(b"\0" * offset + block), offset, len(block), 5)
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _core(digits: bytes, offset: int, length: int, bits: int) -> bytes:
    """Leave out of ``digits`` those that what stands before or behind the block has a part in."""
    return digits[-(-8 * offset // bits) : 8 * (offset + length) // bits]
