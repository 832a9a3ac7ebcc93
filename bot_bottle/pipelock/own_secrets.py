"""The values the sidecar guards, found in whatever form they are written.

A value is never searched as it is. It is brought, and so is the content, into one plain shape: ASCII letters
and digits alone, without regard to case (:func:`skeleton`). Line wraps, separators, quotes, zero-width
characters, percent signs and the difference between base64's alphabets vanish in it. What a value looks like
under each encoding is worked out once (:func:`forms`), and all of it is one literal multi-pattern search.

Nothing is ever looked for, or looked at more closely, by a part of a value that could be guessed: who waits
for the verdict would learn from the time it takes which guesses were right (docs/decisions/0032).
"""

from __future__ import annotations

import base64
import codecs
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.pipelock.numbers import entropy
from bot_bottle.pipelock.patterns import PatternSet
from bot_bottle.pipelock.selection import SHORTEST_GUARDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from bot_bottle.secret import Secret

#: The least number of letters and digits that makes a needle by itself.
_SHORTEST_NEEDLE = 8
#: Longer values are searched in pieces, any of which is a leak.
_LONGEST_WHOLE = 96
_PIECE = 48
_MOST_PIECES = 256
#: Runs this long inside a structured value (JSON, a key file, a URL) are secrets of their own.
_SHORTEST_TOKEN = 20

_NOT_ALNUM = bytes(
    sorted(set(range(256)) - set(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
)
_TOKEN = re.compile(rb"[^\s\"'`,;:={}\[\]()<>|&?/@]+")
_BASE32HEX = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789ABCDEFGHIJKLMNOPQRSTUV")


def skeleton(data: bytes) -> bytes:
    """Keep the ASCII letters and digits of ``data``."""
    return data.translate(None, _NOT_ALNUM)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnHit:
    """A guarded value was seen: its ``name`` (a variable's), and the ``form`` it was written in."""

    name: str
    form: str

    @property
    def layers(self) -> tuple[str, ...]:
        """The form as a layer of encoding; none for the value itself."""
        return () if self.form == "raw" else (self.form,)


class OwnSecrets:
    """The needles of all guarded values.

    ``values`` maps names to values. ``unsearchable`` lists the names whose value is too short to be found
    without stopping ordinary traffic; the operator is told.
    """

    __slots__ = ("_exact", "_hits", "_needles", "_search", "unsearchable")

    def __init__(self, values: Mapping[str, Secret]) -> None:
        needles: dict[bytes, OwnHit] = {}
        self._exact: list[tuple[bytes, str]] = []
        unsearchable: list[str] = []
        for name, secret in values.items():
            value = secret.reveal().encode("utf-8", "surrogateescape").strip()
            if len(value) < SHORTEST_GUARDED:
                unsearchable.append(name)
                continue
            for index, part in enumerate(_parts(value)):
                for form, needle in forms(part, common=index >= 8):
                    needles.setdefault(needle.lower(), OwnHit(name=name, form=form))
            if len(skeleton(value)) < _SHORTEST_NEEDLE or entropy(value) < 2.0:
                self._exact.append((value, name))
        self.unsearchable = tuple(unsearchable)
        self._needles = tuple(needles)
        self._hits = tuple(needles.values())
        self._search = PatternSet.literals(self._needles) if needles else None

    def __bool__(self) -> bool:
        return self._search is not None or bool(self._exact)

    def __repr__(self) -> str:
        return f"OwnSecrets({len(self._needles)} needles)"

    def search(self, data: bytes, plain: bytes | None = None) -> OwnHit | None:
        """Find the first guarded value in ``data``, in any single form.

        ``plain`` is its skeleton where the caller has it already.
        """
        for value, name in self._exact:
            if value in data:
                return OwnHit(name=name, form="raw")
        if self._search is None:
            return None
        return self.search_skeleton(skeleton(data) if plain is None else plain)

    def search_skeleton(self, plain: bytes) -> OwnHit | None:
        """Find the first guarded value in what :func:`skeleton` gave."""
        if self._search is None:
            return None
        hits = self._search.hits(plain)
        return self._hits[hits[0][0]] if hits else None


def _parts(value: bytes) -> Iterator[bytes]:
    """Give what of ``value`` is searched: itself where it is short, and the unguessable runs inside it."""
    seen = set()
    if len(value) <= _LONGEST_WHOLE:
        seen.add(value)
        yield value
    tokens = [token for token in _TOKEN.findall(value) if len(token) >= _SHORTEST_TOKEN]
    if len(value) > _LONGEST_WHOLE and not tokens:
        tokens = [value]
    for token in tokens:
        if len(token) < len(value) and (entropy(token) < 3.2 or not re.search(rb"\d", token)):
            continue
        pieces = [token] if len(token) <= _LONGEST_WHOLE else _pieces(token)
        for piece in pieces:
            if piece not in seen and len(seen) < _MOST_PIECES:
                seen.add(piece)
                yield piece


def _pieces(token: bytes) -> list[bytes]:
    starts = [*range(0, len(token) - _PIECE, _PIECE), len(token) - _PIECE]
    return [token[start : start + _PIECE] for start in starts]


def forms(value: bytes, *, common: bool = False) -> Iterator[tuple[str, bytes]]:
    """Give every needle for ``value`` as (form, skeleton); with ``common`` only the usual encodings.

    Each is also given backwards. Needles too short to be sure of are left out.
    """
    for form, needle in _forward(value, common=common):
        plain = skeleton(needle)
        if len(plain) >= _SHORTEST_NEEDLE and len(set(plain)) > 2:
            yield form, plain
            yield f"{form} reversed", plain[::-1]


def _forward(value: bytes, *, common: bool) -> Iterable[tuple[str, bytes]]:
    yield "raw", value
    # Backwards before it is encoded; backwards after, forms() adds.
    for text, how in ((value, ""), (value[::-1], " of it reversed")):
        for offset in range(3):
            yield f"base64{how}", _core(base64.b64encode, text, offset, 6)
        yield f"hex{how}", text.hex().encode("ascii")
    if common:
        return
    yield "rot13", codecs.encode(value.decode("latin-1"), "rot13").encode("latin-1")
    wide = value.decode("utf-8", "replace").encode("utf-16-le")
    for offset in range(3):
        yield "base64 of UTF-16", _core(base64.b64encode, wide, offset, 6)
    yield "hex of UTF-16", wide.hex().encode("ascii")
    for offset in range(5):
        core = _core(base64.b32encode, value, offset, 5)
        yield "base32", core
        yield "base32hex", core.translate(_BASE32HEX)
    pairs = [b"%02x" % byte for byte in value]
    for form, before in (
        ("escaped hex", b"x"),  # \x41, &#x41;
        ("hex list", b"0x"),
        ("unicode escapes", b"u00"),  # \u0041, U+0041
        ("percent-encoded twice", b"25"),
        ("percent-encoded three times", b"2525"),
    ):
        yield form, b"".join(before + pair for pair in pairs)
    yield "octal escapes", b"".join(b"%03o" % byte for byte in value)
    yield "decimal list", b"".join(b"%d" % byte for byte in value)


def _core(encode: Callable[[bytes], bytes], value: bytes, offset: int, bits: int) -> bytes:
    """Encode ``value`` standing ``offset`` bytes into a text, without the digits its neighbours shape too."""
    text = encode(b"\0" * offset + value)
    return text[-(-8 * offset // bits) : 8 * (offset + len(value)) // bits]
