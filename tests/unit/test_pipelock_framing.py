"""What stands beside the content of a compressed body leaves as little as what stands in it."""

from __future__ import annotations

import base64
import gzip
import struct
import zlib

import brotli
import pytest
import zstandard

from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.stream import BLOCK, StreamScanner
from tests.support.pipelock import SECRETS, letters, own_secrets, scanner

SCANNER = scanner(own=own_secrets())
OWN = SECRETS["PREFIXED"].encode()
KEY = b"ghp_" + letters(36).encode()
PLAIN = b'{"note": "nothing to see"}'


def _member(data: bytes = PLAIN, *, flags: int = 0, fields: bytes = b"", mtime: int = 0) -> bytes:
    head = b"\x1f\x8b\x08" + bytes([flags]) + struct.pack("<I", mtime) + b"\0\xff" + fields
    return head + gzip.compress(data, mtime=0)[10:]


def _extra(value: bytes) -> bytes:
    return struct.pack("<H", len(value)) + value


def _skipped(value: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A53, len(value)) + value


def _with_dictionary(value: bytes) -> bytes:
    engine = zlib.compressobj(zdict=value)
    return engine.compress(PLAIN + value) + engine.flush()


def _brotli_metadata(value: bytes) -> bytes:
    # A window of 16 bits (0), then ISLAST 0, MNIBBLES 11, reserved 0, MSKIPBYTES 01, MSKIPLEN in a byte, and
    # zeros to the next one (RFC 7932, 9.2); behind it a last and empty meta-block.
    bits = 0b01_0_11_0_0 | (len(value) - 1) << 7
    return bits.to_bytes(2, "little") + value + b"\x03"


def _judged(coding: str, data: bytes, *, on_opaque: str = "allow", size: int = 1 << 20) -> tuple[bytes, str]:
    """Give what went on, and the first rule that refused the rest."""
    stream = StreamScanner(SCANNER, Context(encoding=coding), on_opaque=on_opaque)  # type: ignore[arg-type]
    out = b""
    for step in (*(stream.feed(data[at : at + size]) for at in range(0, len(data), size)), stream.finish()):
        out += step.release
        if step.refusals:
            return out, step.refusals[0].rule
    return out, ""


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("value", [OWN, b"x"], ids=["secret", "harmless"])
@pytest.mark.parametrize(
    ("coding", "data"),
    [
        ("gzip", lambda value: _member(flags=16, fields=value + b"\0")),
        ("gzip", lambda value: _member(flags=4, fields=_extra(value))),
        ("gzip", lambda value: _member(flags=2, fields=b"ab")),
        ("gzip", lambda value: _member(flags=8, fields=b"n" * 1100 + value + b"\0")),
        ("gzip", lambda value: _member() + value),
        ("gzip", lambda value: _member() + _member(b"", flags=8, fields=value + b"\0")),
        ("gzip", lambda _value: _member() * 2),
        ("deflate", lambda value: zlib.compress(PLAIN) + value),
        ("deflate", _with_dictionary),
        ("zstd", lambda value: zstandard.compress(PLAIN) + _skipped(value)),
        ("zstd", lambda value: _skipped(value) + zstandard.compress(PLAIN)),
        ("zstd", lambda value: zstandard.compress(PLAIN) + value),
        ("zstd", lambda _value: zstandard.compress(PLAIN) * 2),
        ("gzip, br", lambda value: brotli.compress(_member(flags=16, fields=value + b"\0"))),
    ],
    ids=[
        "comment", "extra", "header crc", "long name", "behind gzip", "second member", "two members",
        "behind zlib", "dictionary", "skipped frame", "skipped frame first", "behind zstd", "two frames",
        "twice",
    ],
)  # fmt: skip
def test_a_frame_that_holds_more_than_content_is_refused_whatever_the_route_says(
    coding: str, data: object, value: bytes, size: int
) -> None:
    assert callable(data)
    body = data(value)
    released, rule = _judged(coding, body, size=size)
    assert rule == "opaque-content"
    assert released == b""


def test_what_ordinary_programs_write_goes_on_as_it_came() -> None:
    text = b" ".join(letters(8).encode() for _ in range(3000))
    raw = zlib.compressobj(wbits=-15)
    for coding, body in (
        ("gzip", gzip.compress(text)),  # with the time
        ("gzip", _member(text, flags=8, fields=b"report.json\0", mtime=1_790_000_000)),
        ("x-gzip", _member(b"", flags=8, fields=b"\0")),
        ("deflate", zlib.compress(text)),
        ("deflate", raw.compress(text) + raw.flush()),
        ("br", brotli.compress(text)),
        ("zstd", zstandard.compress(text)),
        ("zstd", zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(text)),
        ("gzip", b""),
    ):
        for size in (5000, 1 << 20, 1) if len(body) < 2000 else (5000, 1 << 20):
            assert _judged(coding, body, size=size, on_opaque="deny") == (body, ""), coding


@pytest.mark.parametrize("written", [bytes, base64.b64encode, lambda value: value.hex().encode()])
def test_the_coded_bytes_are_searched_as_they_are(written: object) -> None:
    assert callable(written)
    for value, rule in ((OWN, "own-secret:PREFIXED"), (KEY, "github-token")):
        named = _member(flags=8, fields=written(value) + b"\0")
        assert _judged("gzip", named) == (b"", rule)
        hidden = _brotli_metadata(written(value))
        assert brotli.decompress(hidden) == b""
        assert _judged("br", hidden, on_opaque="deny") == (b"", rule)


def test_a_value_in_stored_blocks_is_seen_by_what_it_unpacks_to() -> None:
    def stored(piece: bytes, *, last: bool) -> bytes:
        return bytes([last]) + struct.pack("<HH", len(piece), len(piece) ^ 0xFFFF) + piece

    half = len(OWN) // 2
    blocks = stored(PLAIN + OWN[:half], last=False) + stored(OWN[half:], last=True)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    whole = PLAIN + OWN
    body = head + blocks + struct.pack("<II", zlib.crc32(whole), len(whole))
    assert gzip.decompress(body) == whole
    assert _judged("gzip", body) == (b"", "own-secret:PREFIXED")


def test_nothing_of_a_value_in_the_coded_bytes_is_released_at_a_seam() -> None:
    """Metadata between blocks of brotli, far into a body whose content is harmless."""
    noise = b"".join(
        zlib.crc32(bytes([n % 251, n // 251 % 251])).to_bytes(4, "big").hex().encode() for n in range(60_000)
    )
    engine = brotli.Compressor(quality=1)
    begun = engine.process(noise) + engine.flush()  # ends on a byte
    assert len(begun) > BLOCK
    value = KEY
    bits = 0b01_0_11_0 | (len(value) - 1) << 6
    body = begun + bits.to_bytes(2, "little") + value + engine.process(noise[:1000]) + engine.finish()
    assert brotli.decompress(body) == noise + noise[:1000]
    for size in (10_000, 1 << 20):
        released, rule = _judged("br", body, size=size)
        assert rule == "github-token"
        assert body.startswith(released)
        assert len(released) <= body.index(value)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("content", [PLAIN, letters(90_000).encode()], ids=["small", "large"])
def test_what_stands_behind_brotli_is_refused_whatever_the_route_says(content: bytes, size: int) -> None:
    whole = brotli.compress(content, quality=1)
    size = max(size, len(whole) // 5)
    for tail in (b"\0", OWN, brotli.compress(KEY), gzip.compress(OWN)):
        for on_opaque in ("allow", "deny"):
            released, rule = _judged("br", whole + tail, on_opaque=on_opaque, size=size)
            assert rule == "opaque-content"
            assert tail not in released
    assert _judged("br", whole, size=size) == (whole, "")


def test_broken_brotli_is_left_to_the_route() -> None:
    broken = b"\xff" + letters(40).encode()
    assert _judged("br", broken) == (broken, "")
    assert _judged("br", broken, on_opaque="deny") == (b"", "opaque-content")
