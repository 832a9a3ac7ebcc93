"""Values overwritten before they leave: all of them, nothing else; in doubt nothing leaves."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot_bottle.pipelock.finding import Context
from bot_bottle.pipelock.redaction import can_redact, redacted
from bot_bottle.pipelock.request import RequestScanner
from bot_bottle.pipelock.selection import Selection
from bot_bottle.pipelock.stream import BLOCK, HOLD, StreamScanner
from tests.support.pipelock import FORMS, SECRETS, letters, own_secrets, scanner

SCANNER = scanner(own=own_secrets())
TEXT = Context(content_type="text/plain")
JSON = Context(content_type="application/json")
KEY = "ghp_" + letters(36)
OTHER = "glpat-" + letters(20)
PEM = "\n".join([
    "-----BEGIN RSA PRIVATE KEY-----",
    *(letters(64) for _ in range(12)),
    "-----END RSA PRIVATE KEY-----",
])  # fmt: skip


def test_a_mark_of_the_same_length_takes_the_place_of_each_value() -> None:
    data = json.dumps({"a": KEY, "b": f"{OTHER} and {KEY}", "c": "plain"}).encode()
    done = redacted(SCANNER, data, JSON)
    assert done is not None
    assert len(done.data) == len(data)
    read = json.loads(done.data)
    mark = "REDACTED" + "*" * (len(KEY) - 8)
    assert read == {"a": mark, "b": f"REDACTED{'*' * (len(OTHER) - 8)} and {mark}", "c": "plain"}
    assert {(finding.rule, count) for finding, count in done.taken} == {
        ("github-token", 2),
        ("gitlab-token", 1),
    }
    assert KEY not in repr(done.taken)


def test_all_of_a_value_goes_though_a_rule_knows_its_beginning() -> None:
    for value in (PEM, KEY + "_" + letters(30), "github_pat_" + letters(140)):
        data = f"before\n{value}\nbehind".encode()
        done = redacted(SCANNER, data, TEXT)
        assert done is not None
        assert done.data.startswith(b"before\nREDACTED*")
        assert done.data.endswith(b"*\nbehind")
        assert not set(done.data[15:-7]) - {ord("*")}


def test_what_goes_is_safe_in_every_place() -> None:
    mark = redacted(SCANNER, f"k={KEY}".encode(), TEXT)
    assert mark is not None
    # RFC 3986, 3.3: letters and "*" need no escaping in a query; nor in JSON, a header or a form.
    assert set(mark.data[2:]) <= set(b"REDACTED*")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(base64.b64encode(f"key={KEY}".encode()), id="base64"),
        pytest.param(f"{KEY} {base64.b64encode(KEY.encode()).decode()}".encode(), id="also in base64"),
        pytest.param(KEY.encode().hex().encode(), id="hex"),
        pytest.param("".join(f"%{byte:02x}" for byte in KEY.encode()).encode(), id="percent"),
        pytest.param(json.dumps({"a": KEY[:12], "b": KEY[12:]}).encode(), id="divided"),
        pytest.param(PEM.rpartition("\n")[0].encode(), id="a private key without end"),
        pytest.param("\u200b".join(KEY).encode(), id="zero-width characters"),
    ],
)
def test_what_stands_in_disguise_is_refused(data: bytes) -> None:
    assert SCANNER.scan(data, JSON)
    assert redacted(SCANNER, data, JSON) is None


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_guarded_value_is_never_merely_overwritten(name: str) -> None:
    for form in FORMS.values():
        data = form(SECRETS[name].encode()) + b" " + KEY.encode()
        stream = StreamScanner(SCANNER, TEXT, redact=True)
        step = stream.feed(data)
        assert step.refusals or stream.finish().refusals, form
        assert step.release == b""


def test_what_a_route_does_not_look_for_stays() -> None:
    card = "card 4111 1111 1111 1111"
    data = f"{card} {KEY}".encode()
    done = redacted(SCANNER, data, TEXT, Selection(detectors=frozenset(("credential",))))
    assert done is not None
    assert done.data.startswith(card.encode())
    assert KEY.encode() not in done.data


@given(
    st.lists(st.tuples(st.sampled_from([KEY, OTHER, PEM]), st.integers(0, BLOCK)), max_size=6),
    st.lists(st.integers(1, 2 * BLOCK), min_size=1, max_size=4),
)
@settings(max_examples=25)
def test_a_body_flows_on_without_what_was_found(values: list[tuple[str, int]], sizes: list[int]) -> None:
    """However it is cut, the whole goes on, as long as it came, with every value overwritten once."""
    data = b"start "
    expected = b"start "
    for value, gap in values:
        fill = b"word " * (gap // 5)
        data += fill + b"\n" + value.encode() + b"\n"
        expected += fill + b"\nREDACTED" + b"*" * (len(value) - 8) + b"\n"
    stream = StreamScanner(SCANNER, TEXT, redact=True)
    out, at, index, counted = b"", 0, 0, 0
    while at < len(data):
        step = stream.feed(data[at : at + sizes[index % len(sizes)]])
        assert not step.refusals
        out += step.release
        counted += sum(count for _finding, count in step.redacted)
        at += sizes[index % len(sizes)]
        index += 1
    step = stream.finish()
    assert not step.refusals
    counted += sum(count for _finding, count in step.redacted)
    assert out + step.release == expected
    assert counted == len(values)


def test_a_value_that_would_reach_over_what_is_held_back_is_refused() -> None:
    stream = StreamScanner(SCANNER, TEXT, redact=True)
    head = b"word " * ((BLOCK - HOLD) // 5 - 10)
    step = stream.feed(head + KEY.encode() + b"a" * (HOLD + 4096))
    assert step.refusals
    assert step.release == b""


def test_only_text_that_nothing_was_done_to_is_changed() -> None:
    assert can_redact(JSON)
    assert can_redact(Context(content_type="multipart/form-data; boundary=x"))
    assert can_redact(Context())
    assert not can_redact(Context(content_type="application/json", encoding="gzip"))
    assert not can_redact(Context(content_type="application/octet-stream"))
    assert not can_redact(Context(content_type="application/grpc"))


def test_of_a_head_the_query_and_the_values_of_headers_change() -> None:
    requests = RequestScanner(SCANNER)
    headers = [(b"X-Note", KEY.encode()), (b"Accept", b"*/*"), (b"Cookie", f"a=b; t={OTHER}".encode())]
    done = requests.redacted(query=f"a=1&t={KEY}".encode(), headers=headers)
    assert done is not None
    mark, other = b"REDACTED" + b"*" * (len(KEY) - 8), b"REDACTED" + b"*" * (len(OTHER) - 8)
    assert done.query == b"a=1&t=" + mark
    assert done.headers == ((b"X-Note", mark), (b"Accept", b"*/*"), (b"Cookie", b"a=b; t=" + other))
    assert [str(finding.where) for finding, _count in done.taken] == [
        "query",
        "header 'X-Note'",
        "cookie 'Cookie'",
    ]
    assert requests.redacted(query=b"", headers=[(b"X-" + KEY.encode(), b"1")]) is None
    assert requests.redacted(query=base64.b64encode(f"key={KEY}".encode()), headers=[]) is None
