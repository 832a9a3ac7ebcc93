"""Credentials taken out of a stream: in every form, however it is cut, and nothing else."""

from __future__ import annotations

import base64
import html
import json
import secrets
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.egress.redact import Needles, Redactor, forms

TOKEN = b"sk-live-" + secrets.token_urlsafe(60).encode()
SHORT = b'p"w/d&<+ 7z\\q'
NEEDLES = Needles([TOKEN, SHORT])


def streamed(data: bytes, cuts: list[int]) -> bytes:
    redactor, out, start = Redactor(NEEDLES), [], 0
    for end in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        out.append(redactor.feed(data[start:end]))
        start = end
    return b"".join((*out, redactor.finish()))


def _text(form: str, value: bytes) -> bytes:
    text = value.decode()
    writers = {
        "raw": value,
        "upper case": value.upper(),
        "backwards": value[::-1],
        "hex": value.hex().encode(),
        "HEX": value.hex().upper().encode(),
        "json": json.dumps(text).encode(),
        "json with slashes": json.dumps(text).replace("/", "\\/").encode(),
        "html": html.escape(text).encode(),
        "percent": quote(text, safe="").encode(),
        "percent twice": quote(quote(text, safe=""), safe="").encode(),
        "form": quote_plus(text).encode(),
        "percent all": "".join(f"%{byte:02X}" for byte in value).encode(),
        "unicode escapes": "".join(f"\\u{byte:04x}" for byte in value).encode(),
        "hex dump": value.hex(" ").encode(),
        "hex colons": value.hex(":").encode(),
        "list": json.dumps(list(value)).encode(),
        "list packed": json.dumps(list(value), separators=(",", ":")).encode(),
        "html all": "".join(f"&#{byte};" for byte in value).encode(),
        "html all hex": "".join(f"&#x{byte:X};" for byte in value).encode(),
        "octal": "".join(f"\\{byte:03o}" for byte in value).encode(),
        "utf-16": text.encode("utf-16-le"),
        "utf-16 big": text.encode("utf-16-be"),
    }
    return writers[form]


FORMS = ["raw", "upper case", "backwards", "hex", "HEX", "json", "json with slashes", "html", "percent",
         "percent twice", "form", "percent all", "unicode escapes", "utf-16", "utf-16 big", "hex dump",
         "hex colons", "list", "list packed", "html all", "html all hex", "octal"]  # fmt: skip


@pytest.mark.parametrize("value", [TOKEN, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_overwritten_in_place_at_every_cut(form: str, value: bytes) -> None:
    written = _text(form, value)
    data = b'{"echo": "' + written + b'", "more": 1}'
    whole = streamed(data, [])
    assert len(whole) == len(data)
    assert whole.startswith(b'{"echo": "')
    assert whole.endswith(b'", "more": 1}')
    seen = whole[10 : 10 + len(written)]
    assert not any(written[at : at + 12] in whole for at in range(len(written) - 12)), seen
    for cut in range(len(data)):
        assert streamed(data, [cut]) == whole
    assert streamed(data, list(range(len(data)))) == whole


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.b32encode])
@pytest.mark.parametrize("before", range(6))
def test_encoded_at_any_offset_no_part_of_it_can_be_decoded(encode: object, before: int) -> None:
    assert callable(encode)
    data = encode(b"x" * before + TOKEN + b"yz")
    out = streamed(data, [7, 40])
    assert len(out) == len(data)
    left = sum(byte != ord("*") for byte in out)
    assert left < 30, out  # what the neighbours have a part in, and a digit between two blocks


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([TOKEN, TOKEN[:20], TOKEN[-9:], SHORT, b"sk-live", b" and ", b"\n\n", b"x" * 40]),
        max_size=12,
    ),
    st.lists(st.integers(0, 2000), max_size=8),
)
def test_chunking_changes_nothing(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    out = streamed(data, cuts)
    assert out == streamed(data, [])
    assert len(out) == len(data)
    assert TOKEN[:16] not in out
    assert SHORT not in out


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=500), st.lists(st.integers(0, 500), max_size=5))
def test_what_holds_no_credential_is_untouched(data: bytes, cuts: list[int]) -> None:
    out = streamed(data, cuts)
    if not any(form.lower() in data.lower() for form, _telling in (*forms(TOKEN), *forms(SHORT))):
        assert out == data or NEEDLES.begun(data)


def test_nothing_of_a_whole_line_waits() -> None:
    redactor = Redactor(NEEDLES)
    for number in range(100):
        event = b"data: %d\n\n" % number
        assert redactor.feed(event) is event
    assert not redactor.waiting
    assert redactor.feed(b"data: sk-live-") == b""
    assert redactor.feed(b" no\n\n") == b"data: sk-live- no\n\n"
    assert not redactor.found


def guesses(value: bytes) -> list[bytes]:
    """Give a value's beginnings in every form, right up to so many characters that nobody guesses them."""
    found = []
    for form, _telling in forms(value):
        for length in range(1, len(form)):
            if length * len(value[:16]) / len(form) < 10:
                found.append(form[:length])
    return found


@pytest.mark.parametrize("value", [b"ghp_" + secrets.token_urlsafe(27).encode(), TOKEN, b"k" + SHORT])
def test_what_comes_when_and_how_does_not_tell_a_right_guess_from_a_wrong_one(value: bytes) -> None:
    """A server gives back what was sent; of each guess is seen what comes at once, and what at last."""
    needles = Needles([value])
    for guess in guesses(value):
        wrong = guess[:-1] + bytes((guess[-1] ^ 1 or 2,))
        for before in (b"", b"x" * 300, b"line\n"):
            seen = []
            for text in (guess, wrong):
                redactor = Redactor(needles)
                at_once, later = redactor.feed(before + text), redactor.linger(long=True)
                at_last = redactor.feed(b"!") + redactor.finish()
                assert at_once + later + at_last == before + text + b"!"
                other = Redactor(needles)
                whole = other.feed(before + text) + other.finish()
                assert whole == before + text
                seen.append((len(at_once), len(later), len(at_last), redactor.found, other.found))
            if b"\n" not in text and wrong.count(b"\r") == guess.count(b"\r"):
                assert seen[0] == seen[1], (guess, before)


def test_in_a_moment_of_silence_all_but_the_last_word_goes_on() -> None:
    redactor = Redactor(NEEDLES)
    assert redactor.feed(b'{"a": 1, "b": "' + TOKEN[:7]) == b""
    assert redactor.linger() == b'{"a": 1, "b": "'
    assert redactor.linger() == b""
    assert redactor.waiting
    assert redactor.feed(TOKEN[7:] + b'"}') == b""
    assert redactor.linger() == b"*" * len(TOKEN) + b'"}'
    assert not redactor.waiting


def test_what_went_on_early_takes_nothing_from_what_is_found() -> None:
    for cut in range(1, len(TOKEN)):
        redactor = Redactor(NEEDLES)
        out = redactor.feed(b"a " + TOKEN[:cut]) + redactor.linger(long=True)
        out += redactor.feed(TOKEN[cut:] + b" b") + redactor.linger() + redactor.finish()
        assert len(out) == len(TOKEN) + 4
        shown = [at for at in range(len(TOKEN)) if out[2 + at : 3 + at] == TOKEN[at : at + 1] != b"*"]
        # Of the block that the server's silence cut, no more than can be guessed; the last block overlaps.
        assert len(shown) <= 24, (cut, out)
        assert TOKEN[:16] not in out


@pytest.mark.parametrize(
    "echo",
    [
        b"q83&#x2F;+7Zk1mWv+H0&#x2F;pY2xRg&#x3D;&#x3D;",
        b"q83/\\u002B7Zk1mWv\\u002BH0/pY2xRg==",
        b"q83/%2B7Zk1mWv%2BH0/pY2xRg%3D%3D",
        b"q83/&#43;7Zk1mWv&#43;H0/pY2xRg",
        b"q83\\/+7Zk1mWv+H0\\/pY2xRg",
        b"q83%252F+7Zk1mWv%2bH0&#47;pY2xRg",
        "q83/+7Zk1mWv+H0/pY2xRg==".encode("utf-32-be"),
        "q83/+7Zk1mWv+H0/pY2xRg==".encode("cp500"),
    ],
)
def test_a_value_is_known_however_a_server_escapes_its_characters(echo: bytes) -> None:
    value = b"q83/+7Zk1mWv+H0/pY2xRg=="
    out = Needles([value]).masked(b"said: " + echo + b".")
    assert out.strip(b".")[:7] == b"said: *"
    assert b"7Zk1mWv" not in out.replace(b"\0", b"")
    longer = value[:-2] + value[:-2]
    twice = Needles([longer]).masked(b"said: " + echo[:40] + b".")
    assert len(twice) == len(echo[:40]) + 7


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([TOKEN[:15], TOKEN[:40], SHORT[:9], b"sk-", b"73", b"%7"]), max_size=20))
def test_no_more_is_held_back_than_the_longest_needle(parts: list[bytes]) -> None:
    redactor, given_, got = Redactor(NEEDLES), 0, 0
    for part in parts:
        given_ += len(part)
        got += len(redactor.feed(part))
        assert 0 <= given_ - got <= NEEDLES.longest
    assert len(redactor.finish()) == given_ - got


def test_an_echo_that_is_cut_short_loses_its_blocks_and_its_end() -> None:
    out = streamed(b"error: " + TOKEN[:44], [])
    assert out == b"error: " + b"*" * 44
    # Less of a block is what a guess could be.
    assert streamed(b"error: " + TOKEN[:40], []) == b"error: " + b"*" * 32 + TOKEN[32:40]
    assert streamed(b"error: " + TOKEN[:40] + b"...", [])[:39] == b"error: " + b"*" * 32


def test_of_a_signed_token_the_signature_is_what_is_searched() -> None:
    head = base64.urlsafe_b64encode(b'{"alg": "RS256", "typ": "JWT"}').rstrip(b"=")
    mine, other = (head + b"." + head + b"." + secrets.token_urlsafe(64).encode() for _ in range(2))
    needles = Needles([mine])
    assert needles.masked(other) is other
    signature = mine.rpartition(b".")[2]
    assert needles.masked(mine) == mine.replace(signature, b"*" * len(signature))


def test_values_too_short_to_be_told_from_text_are_not_searched() -> None:
    assert not Needles([b"short"])
    assert Needles([b"short"]).masked(b"a short word") == b"a short word"
    assert "6" not in repr(Needles([b"longer-6"]))
