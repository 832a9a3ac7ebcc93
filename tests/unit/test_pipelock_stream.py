"""Bodies as they flow: nothing of a match goes on, everything else does, byte for byte, in flat memory."""

from __future__ import annotations

import functools
import gzip
import json
import random
import tracemalloc
import zlib

import brotli
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.stream import BLOCK, HOLD, StreamScanner
from bot_bottle.pipelock.unpack import FREE_BYTES, MAX_RATIO, BombError, OpaqueError, unpacker
from tests.support.pipelock import CODINGS, FORMS, SECRETS, letters, own_secrets, scanner

OWN = own_secrets()
SCANNER = scanner(own=OWN)
WORDS = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma " * 40
).split()
KEY = "ghp_" + letters(36)


def _prose(size: int, seed: int = 1) -> bytes:
    choose = random.Random(seed)
    text = " ".join(choose.choices(WORDS, k=size // 5))
    return text.encode()[:size].ljust(size, b".")


def _run(stream: StreamScanner, data: bytes, sizes: list[int]) -> tuple[bytes, bool]:
    """Feed ``data`` in pieces; give what was released and whether it was refused."""
    released, at, index = b"", 0, 0
    while at < len(data):
        size = sizes[index % len(sizes)]
        step = stream.feed(data[at : at + size])
        released += step.release
        if step.refusals:
            assert stream.feed(b"more").release == stream.finish().release == b""
            return released, True
        at, index = at + size, index + 1
    step = stream.finish()
    return released + step.release, bool(step.refusals)


def _held(released: bytes, data: bytes, secret: bytes) -> None:
    """Check that what went on is a true beginning of the data with nothing of the secret."""
    assert data.startswith(released)
    assert len(released) <= data.index(secret)


@given(st.integers(0, 3 * BLOCK), st.lists(st.integers(1, 2 * BLOCK), min_size=1, max_size=5), st.booleans())
@settings(max_examples=25)
def test_nothing_of_a_match_is_released(offset: int, sizes: list[int], own: bool) -> None:
    secret = (SECRETS["PREFIXED"] if own else KEY).encode()
    data = _prose(offset) + b" " + secret + b" " + _prose(1000, 2)
    if len(data) // min(sizes) > 2000:
        sizes = [BLOCK // 7]
    released, refused = _run(StreamScanner(SCANNER, Context(content_type="text/plain")), data, sizes)
    assert refused
    _held(released, data, secret)


@pytest.mark.parametrize("offset", [BLOCK - 50, BLOCK - HOLD - 20, BLOCK - HOLD, BLOCK, 2 * BLOCK - HOLD - 5])
@pytest.mark.parametrize(
    "form", ["percent, three times", "unicode escapes", "hex, 0x list", "gzip in base64", "raw"]
)
def test_nor_of_a_disguised_one_at_a_seam(offset: int, form: str) -> None:
    secret = FORMS[form](SECRETS["LONG"].encode())
    data = _prose(offset) + b" " + secret + b" " + _prose(BLOCK, 2)
    released, refused = _run(StreamScanner(SCANNER, Context(content_type="text/plain")), data, [10_000])
    assert refused
    _held(released, data, secret)


@given(st.binary(max_size=3000), st.lists(st.integers(1, 700), min_size=1, max_size=5))
def test_what_is_harmless_goes_on_unchanged(data: bytes, sizes: list[int]) -> None:
    stream = StreamScanner(SCANNER, Context(content_type="application/octet-stream"))
    assert _run(stream, data, sizes) == (data, False)


@pytest.mark.parametrize("size", [0, 1, HOLD, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
@pytest.mark.parametrize("coding", ["", *CODINGS])
def test_sizes_and_codings(size: int, coding: str) -> None:
    plain = _prose(size)
    pack = functools.partial(brotli.compress, quality=4) if coding == "br" else CODINGS.get(coding, bytes)
    data = pack(plain)
    stream = StreamScanner(SCANNER, Context(content_type="text/plain", encoding=coding))
    assert _run(stream, data, [4096]) == (data, False)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_secret_deep_in_a_compressed_body(coding: str) -> None:
    noise = random.Random(5)
    plain = b"".join(b"%d %d\n" % (noise.getrandbits(60), n) for n in range(40_000))
    pack = functools.partial(brotli.compress, quality=4) if coding == "br" else CODINGS[coding]
    for secret in (KEY.encode(), SECRETS["HEX"].encode()):
        packed = pack(plain + secret + b"\n" + plain)
        before = len(pack(plain))
        stream = StreamScanner(SCANNER, Context(content_type="text/plain", encoding=coding))
        released, refused = _run(stream, packed, [5000])
        assert refused
        assert packed.startswith(released)
        assert len(released) < before + 1000


def test_codings_one_upon_another() -> None:
    data = gzip.compress(CODINGS["br"](KEY.encode()))
    assert _run(StreamScanner(SCANNER, Context(encoding="br, gzip")), data, [7])[1]
    assert _run(StreamScanner(SCANNER, Context(encoding="gzip, br")), data, [7])[
        1
    ]  # not what it says: refused


def test_raw_deflate_goes_by_the_same_name() -> None:
    engine = zlib.compressobj(wbits=-15)
    data = engine.compress(b"hello " * 50 + KEY.encode()) + engine.flush()
    assert _run(StreamScanner(SCANNER, Context(encoding="deflate")), data, [11])[1]


class TestOpaque:
    """What cannot be read: refused where it claims to be text, and as the route says."""

    NOISE = random.Random(3).randbytes(5000)

    def test_text_that_is_none(self) -> None:
        for kind in (
            "text/plain",
            "application/json",
            "application/x-www-form-urlencoded",
            "application/ld+json",
        ):
            assert _run(StreamScanner(SCANNER, Context(content_type=kind)), self.NOISE, [999])[1]

    def test_declared_binary(self) -> None:
        for kind in ("application/octet-stream", "image/png", "application/zip", ""):
            assert _run(StreamScanner(SCANNER, Context(content_type=kind)), self.NOISE, [999]) == (
                self.NOISE,
                False,
            )

    def test_the_route_decides(self) -> None:
        context = Context(content_type="text/plain")
        stream = StreamScanner(SCANNER, context, on_opaque="allow")
        assert stream.feed(self.NOISE).refusals == ()
        step = stream.finish()
        assert step.release == self.NOISE
        assert [note.kind for note in step.notes] == ["opaque"]

    @pytest.mark.parametrize("encoding", ["aes128gcm", "compress", "gzip, x-own", "gzip, gzip, gzip, gzip"])
    def test_an_unknown_coding(self, encoding: str) -> None:
        assert _run(StreamScanner(SCANNER, Context(encoding=encoding)), b"data", [9])[1]
        let = StreamScanner(SCANNER, Context(encoding=encoding), on_opaque="allow")
        assert _run(let, b"data", [9]) == (b"data", False)

    @pytest.mark.parametrize("coding", CODINGS)
    def test_a_broken_or_cut_coding(self, coding: str) -> None:
        whole = CODINGS[coding](_prose(3000))
        for data in (b"not at all", whole[:-9], whole[:50] + b"\xff" * 50 + whole[100:]):
            assert _run(StreamScanner(SCANNER, Context(encoding=coding)), data, [100])[1]
            let = StreamScanner(SCANNER, Context(encoding=coding), on_opaque="allow")
            assert _run(let, data, [100]) == (data, False)

    def test_what_is_let_pass_is_searched_all_the_same(self) -> None:
        data = b"garbage " + SECRETS["LONG"].encode()
        let = StreamScanner(SCANNER, Context(encoding="gzip"), on_opaque="allow")
        assert _run(let, data, [5])[1]

    def test_a_bomb(self) -> None:
        bomb = zlib.compress(b"\0" * 200_000_000, 9)
        tracemalloc.start()
        assert _run(StreamScanner(SCANNER, Context(encoding="deflate")), bomb, [8192])[1]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20 * BLOCK + 4 * FREE_BYTES

    @pytest.mark.parametrize("coding", CODINGS)
    def test_bombs_of_every_coding(self, coding: str) -> None:
        bomb = CODINGS[coding](b"\0" * (4 * FREE_BYTES + 5_000_000))
        opened = unpacker(coding)
        assert opened is not None
        if len(bomb) * MAX_RATIO < 5_000_000:
            with pytest.raises(BombError):
                opened.feed(bomb)

    def test_a_bomb_inside_of_a_body(self) -> None:
        bomb = gzip.compress(b"\0" * 300_000_000, 9)
        found = SCANNER.scan(b"x" * 10 + bomb, Context(content_type="application/octet-stream"))
        assert [entry.kind for entry in found] == ["opaque"]

    def test_no_coding(self) -> None:
        assert unpacker("") is None
        assert unpacker("identity") is None
        with pytest.raises(OpaqueError):
            unpacker("bogus")


def test_memory_stays_flat() -> None:
    choose = random.Random(9)
    piece = _prose(50_000)
    stream = StreamScanner(SCANNER, Context(content_type="text/plain"))
    tracemalloc.start()
    given_bytes = released = 0
    for _ in range(200):
        size = choose.randrange(1, len(piece))
        given_bytes += size
        released += len(stream.feed(piece[:size]).release)
        assert given_bytes - released <= HOLD + 2 * BLOCK
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    released += len(stream.finish().release)
    assert released == given_bytes
    assert peak < 12 * BLOCK


def test_a_larger_body_with_its_key_divided_over_fields() -> None:
    value = SECRETS["LONG"]
    body = {"text": _prose(60_000).decode(), "a": value[:40], "b": 1, "c": {"d": value[40:]}}
    stream = StreamScanner(SCANNER, Context(content_type="application/json", rules=False))
    assert _run(stream, json.dumps(body).encode(), [9000])[1]
