"""Parts for tests of content scanning: made-up credentials, their disguises, scanners without engine."""

from __future__ import annotations

import base64
import codecs
import gzip
import random
import string
import time
import zlib
from typing import TYPE_CHECKING
from urllib.parse import quote_from_bytes

import brotli
import zstandard

from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.own_secrets import OwnSecrets
from bot_bottle.pipelock.scanner import Limits, Scanner
from bot_bottle.pipelock.selection import EVERYTHING, Selection
from bot_bottle.pipelock.stream import StreamScanner
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bot_bottle.pipelock.engine import EngineHit
    from bot_bottle.pipelock.finding import Finding
    from bot_bottle.pipelock.patterns import PatternSet
    from bot_bottle.pipelock.ruleset import Profile
    from bot_bottle.pipelock.session import Session

_RANDOM = random.Random(20260723)
ALNUM = string.ascii_letters + string.digits


def letters(count: int, alphabet: str = ALNUM) -> str:
    """Give random letters, the same in every run."""
    return "".join(_RANDOM.choices(alphabet, k=count))


#: Values as a sidecar holds them: a token with a prefix, a JWT, a password, base64, hex, a database URL.
SECRETS: dict[str, str] = {
    "PREFIXED": "ghx_" + letters(36),
    "LONG": "sk-own-" + letters(96, ALNUM + "-_"),
    "PASSWORD": "K9$vQ!" + letters(4, string.punctuation.replace("\\", "")) + letters(10),
    "BASE64": base64.b64encode(_RANDOM.randbytes(30)).decode(),
    "HEX": _RANDOM.randbytes(20).hex(),
    "URL": f"postgresql://svc:{letters(24)}@db.internal:5432/app",
    "JWT": ".".join(
        base64.urlsafe_b64encode(_RANDOM.randbytes(n)).decode().rstrip("=") for n in (27, 60, 32)
    ),
}


class NoEngine:
    """An engine without rules, for tests of everything else."""

    def combined(self) -> PatternSet | None:
        """Have no expressions."""
        return None

    def find(self, data: bytes, *, sure: bool, passed: bool = False) -> tuple[EngineHit, ...]:
        """Find nothing."""
        return ()


def own_secrets(values: Mapping[str, str] = SECRETS) -> OwnSecrets:
    """Guard ``values``."""
    return OwnSecrets({name: Secret(value) for name, value in values.items()})


def scanner(
    profile: Profile = "egress",
    *,
    own: OwnSecrets | None = None,
    placeholders: Iterable[bytes] = (),
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Scanner:
    """Make a scanner with our own rules alone."""
    return Scanner(
        profile=profile,
        engine=NoEngine(),
        own=own if own is not None else own_secrets(),
        clock=clock,
        placeholders=placeholders,
        # Generous: this machine may be busy, and no test here is about time.
        limits=limits or Limits(seconds=60.0),
    )


def judge_message(
    judge: Scanner, session: Session, data: bytes, *, text: bool = True, selection: Selection = EVERYTHING
) -> tuple[Finding, ...]:
    """Judge one whole WebSocket message, by itself and together with those before it."""
    context = Context(place="websocket", content_type="text/plain" if text else "", rules=selection.rules)
    stream = StreamScanner(judge, context, selection=selection)
    return stream.feed(data).refusals or stream.finish().refusals or session.message(stream.small)


def _percent(data: bytes, times: int) -> bytes:
    for _ in range(times):
        data = b"".join(b"%%%02X" % byte for byte in data)
    return data


def _wrapped(data: bytes, width: int, end: bytes) -> bytes:
    return end.join(data[at : at + width] for at in range(0, len(data), width))


#: Every disguise of a value, by name. What comes out may hold any byte.
FORMS: dict[str, Callable[[bytes], bytes]] = {
    "raw": lambda v: v,
    "raw, upper case": bytes.upper,
    "base64": base64.b64encode,
    "base64, unpadded": lambda v: base64.b64encode(v).rstrip(b"="),
    "base64, URL alphabet": base64.urlsafe_b64encode,
    "base64, one byte in": lambda v: base64.b64encode(b"!" + v + b"#$%"),
    "base64, two bytes in": lambda v: base64.b64encode(b"!?" + v + b"#"),
    "base64, wrapped": lambda v: _wrapped(base64.b64encode(b"x" * 40 + v), 76, b"\r\n"),
    "base64, wrapped short": lambda v: _wrapped(base64.b64encode(v), 12, b"\n"),
    "base64, wrapped in JSON": lambda v: _wrapped(base64.b64encode(v), 16, b"\\n"),
    "base64 of base64": lambda v: base64.b64encode(base64.b64encode(b"-" + v)),
    "base64, three times": lambda v: base64.b64encode(base64.b64encode(base64.b64encode(v))),
    "base64 of hex": lambda v: base64.b64encode(v.hex().encode()),
    "base64 of reversed": lambda v: base64.b64encode(v[::-1]),
    "base64 of UTF-16": lambda v: base64.b64encode(v.decode().encode("utf-16-le")),
    "hex": lambda v: v.hex().encode(),
    "hex, upper case": lambda v: v.hex().upper().encode(),
    "hex, colons": lambda v: v.hex(":").encode(),
    "hex, dashes": lambda v: v.hex("-").upper().encode(),
    "hex, spaces": lambda v: v.hex(" ").encode(),
    "hex, 0x list": lambda v: b", ".join(b"0x%02x" % byte for byte in v),
    "hex, backslash x": lambda v: b"".join(b"\\x%02x" % byte for byte in v),
    "hex of base64": lambda v: base64.b64encode(v).hex().encode(),
    "hex, reversed digits": lambda v: v.hex()[::-1].encode(),
    "decimal list": lambda v: b",".join(b"%d" % byte for byte in v),
    "octal escapes": lambda v: b"".join(b"\\%03o" % byte for byte in v),
    "base32": base64.b32encode,
    "base32, lower case, in the middle": lambda v: base64.b32encode(b"zz" + v + b"z").lower().rstrip(b"="),
    "percent": lambda v: quote_from_bytes(v, safe="").encode(),
    "percent, every byte": lambda v: _percent(v, 1),
    "percent, twice": lambda v: _percent(v, 2),
    "percent, three times": lambda v: _percent(v, 3),
    "percent, every other byte": lambda v: b"".join(
        b"%%%02x" % b if i % 2 else bytes([b]) for i, b in enumerate(v)
    ),
    "unicode escapes": lambda v: b"".join(b"\\u%04x" % byte for byte in v),
    "unicode escapes, every other": lambda v: b"".join(
        b"\\u%04x" % b if i % 2 else bytes([b]) for i, b in enumerate(v)
    ),
    "character references": lambda v: b"".join(b"&#%d;" % byte for byte in v),
    "character references, hex": lambda v: b"".join(b"&#x%x;" % byte for byte in v),
    "reversed": lambda v: v[::-1],
    "rot13": lambda v: codecs.encode(v.decode(), "rot13").encode(),
    "zero-width characters": lambda v: "\u200b".join(v.decode()).encode(),
    "full-width letters": lambda v: "".join(chr(ord(c) + 0xFEE0) for c in v.decode()).encode(),
    "spaced out": lambda v: b" ".join(bytes([byte]) for byte in v),
    "gzip": lambda v: gzip.compress(b"data: " + v),
    "zlib": zlib.compress,
    "zstd": lambda v: zstandard.compress(b"data: " + v),
    "gzip in base64": lambda v: base64.b64encode(gzip.compress(v)),
    "gzip in hex": lambda v: gzip.compress(v).hex().encode(),
    "base64 in percent": lambda v: _percent(base64.b64encode(v), 1),
    "gzip in base64 in percent": lambda v: quote_from_bytes(
        base64.b64encode(gzip.compress(v)), safe=""
    ).encode(),
}

#: Undone only at the start of a piece of content: two bytes are too little of a mark in the midst of others.
AT_START = frozenset({"zlib"})

CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}
