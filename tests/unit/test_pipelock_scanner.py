"""The scanner's own failures are refusals: broken parts, time, size; and its findings show nothing."""

from __future__ import annotations

import base64
import itertools
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.pipelock import decode, ruleset
from bot_bottle.pipelock import scanner as scanner_module
from bot_bottle.pipelock.deadline import Deadline, OverBudgetError
from bot_bottle.pipelock.engine import EngineHit
from bot_bottle.pipelock.finding import Context, Finding, Where, mask
from bot_bottle.pipelock.patterns import PatternSet
from bot_bottle.pipelock.scanner import Limits, Scanner, refusals
from bot_bottle.pipelock.stream import StreamScanner
from bot_bottle.pipelock.text import claims_text, looks_opaque
from tests.support.pipelock import SECRETS, NoEngine, letters, own_secrets, scanner

BODY = json.dumps({"text": "hello", "pad": letters(2000), "q": "%41%42 \\u0041"}).encode()
CONTEXT = Context(content_type="application/json")


class Broken(NoEngine):
    """An engine that fails."""

    def find(self, data: bytes, *, sure: bool, passed: bool = False) -> tuple[EngineHit, ...]:
        """Fail."""
        raise RuntimeError("the library is gone, and so is hunter2")


class Fixed(NoEngine):
    """An engine that reports what it was told to."""

    def __init__(self, *hits: EngineHit) -> None:
        self._hits = hits

    def find(self, data: bytes, *, sure: bool, passed: bool = False) -> tuple[EngineHit, ...]:
        """Report."""
        return tuple(hit for hit in self._hits if hit.value in data)


def _with_engine(engine: NoEngine) -> Scanner:
    return Scanner(profile="egress", engine=engine, own=own_secrets({}), clock=lambda: 0.0)


def test_a_broken_engine_is_a_refusal() -> None:
    (found,) = _with_engine(Broken()).scan(BODY, CONTEXT)
    assert (found.kind, found.rule, found.message) == ("error", "scanner-error", "RuntimeError")
    assert "hunter2" not in repr(found)
    step = StreamScanner(_with_engine(Broken()), CONTEXT)
    assert step.feed(BODY).release == b""
    assert step.finish().refusals
    assert step.finish().release == b""


@pytest.mark.parametrize(
    "step",
    [
        "skeleton",
        "digit_runs",
        "decoded",
        "looks_opaque",
        "claims_text",
        "divided_keys",
        "unpacker",
        "file_secrets",
    ],
)
def test_whatever_breaks_is_a_refusal(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(scanner_module, step, fail)
    context = Context(content_type="application/json", encoding="identity", path="a.yaml")
    found = scanner(own=own_secrets({})).scan(
        b'{"a": "AKIA", "b": "x%41", "c": "a/long/run/of/digits"}', context
    )
    assert [entry.kind for entry in found] == ["error"]
    assert refusals(found)


def test_broken_rules_are_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    own = scanner()
    monkeypatch.setattr(ruleset.RuleSet, "look", fail)
    assert [entry.kind for entry in own.scan(BODY, CONTEXT)] == ["error"]


def test_a_busy_machine_is_no_reason_to_refuse() -> None:
    wall, worked = [0.0], [5.0]
    deadline = Deadline(lambda: wall[0], 2.0, lambda: worked[0])
    wall[0] = 60.0
    deadline.check()
    worked[0] = 7.1
    with pytest.raises(OverBudgetError):
        deadline.check()


def test_time_is_up() -> None:
    ticks = itertools.count()
    slow = scanner(limits=Limits(seconds=3), clock=lambda: float(next(ticks)))
    deep = base64.b64encode(base64.b64encode(base64.b64encode(BODY)))
    (found,) = slow.scan(deep, CONTEXT)
    assert (found.kind, found.rule) == ("error", "over-budget")
    deadline = Deadline(lambda: float(next(ticks)), 0)
    with pytest.raises(OverBudgetError):
        deadline.check()


def test_too_much_is_encoded() -> None:
    small = scanner(limits=Limits(seconds=60, decoded_bytes=1000))
    found = small.scan(base64.b64encode(BODY), CONTEXT)
    assert [entry.rule for entry in found] == ["over-budget"]


def test_too_many_suspicious_spots() -> None:
    with pytest.raises(OverBudgetError):
        PatternSet.expressions([rb"a"], once=False).hits(b"a" * 300_000)
    assert len(PatternSet.expressions([rb"a"]).hits(b"a" * 300_000)) == 1


def test_patterns_come_back_from_their_image() -> None:
    patterns = PatternSet.expressions([rb"ab+c", rb"x{3}"], once=[False, True])
    restored = PatternSet.restored(patterns.image())
    assert restored.hits(b"abc xxxx abbc") == patterns.hits(b"abc xxxx abbc") == [(0, 3), (1, 7), (0, 13)]


def test_threads_share_a_scanner() -> None:
    shared = scanner()
    bodies = [BODY, json.dumps({"k": SECRETS["LONG"]}).encode()] * 30
    results: list[list[bool]] = []

    def work() -> None:
        results.append([bool(shared.scan(body, CONTEXT)) for body in bodies])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[False, True] * 30] * 4


@given(
    st.binary(max_size=2000),
    st.sampled_from(["", "application/json", "text/plain", "multipart/form-data; boundary=x"]),
)
def test_no_input_breaks_it(data: bytes, kind: str) -> None:
    found = SCANNER.scan(data, Context(content_type=kind))
    assert all(entry.kind == "opaque" for entry in found)


SCANNER = scanner(own=own_secrets({}))


@given(st.text(alphabet="abcdefABC0123456789+/-_=\n\\ ", min_size=30, max_size=400))
def test_no_run_of_digits_breaks_it(text: str) -> None:
    assert all(entry.kind != "error" for entry in SCANNER.scan(text.encode(), Context()))


@given(st.text(alphabet='%\\u0041xAKIeyJ{}"=+/-_ \n&#;0123456789abcdefQUtJ', max_size=400))
def test_no_tangle_of_encodings_breaks_it(text: str) -> None:
    assert all(
        entry.kind != "error" for entry in SCANNER.scan(text.encode(), Context(content_type="text/plain"))
    )


def test_an_engines_finding_is_located_and_masked() -> None:
    value = b"vendor-" + letters(30).encode()
    body = json.dumps({"a": "b", "key": value.decode()}).encode()
    (found,) = _with_engine(Fixed(EngineHit(rule="vendor-key", value=value))).scan(body, CONTEXT)
    assert (found.rule, found.where.offset, found.excerpt) == (
        "vendor-key",
        body.index(value),
        "vend… 37 bytes",
    )


def test_under_fewest_layers() -> None:
    key = "ghp_" + letters(36)
    both = f"{key} {base64.b64encode(key.encode()).decode()}".encode()
    (found,) = SCANNER.scan(both, Context())
    assert found.where.layers == ()
    assert str(found) == f"github-token in body (ghp_… {len(key)} bytes)"


def test_findings_read_well() -> None:
    where = Where(place="header", field="X-Id", layers=("percent", "base64"))
    assert str(where) == "header 'X-Id' under percent and base64"
    assert str(Finding(kind="error", rule="r", where=Where(place="body"))) == "r in body"
    assert mask(b"short") == "… 5 bytes"
    assert mask(b"\x01\x02\x03\x04" * 5) == ".... … 20 bytes".replace(" …", "…")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text/html", True),
        ("application/json; charset=utf-8", True),
        ("application/vnd.api+json", True),
        ("application/xml", True),
        ("image/svg+xml", False),
        ("application/octet-stream", False),
        ("", False),
        ("application/x-ndjson", True),
        ("application/pdf", False),
    ],
)
def test_what_claims_to_be_text(kind: str, text: bool) -> None:
    assert claims_text(kind) is text


@pytest.mark.parametrize(
    ("data", "opaque"),
    [
        (b"", False),
        (b"plain", False),
        ("žluťoučký kůň".encode(), False),
        ("日本語".encode() * 900, False),
        (b"caf\xe9 au lait\n" * 50, False),
        (bytes(range(256)) * 4, True),
        (b"\x1b[31mred\x1b[0m\n" * 10, False),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), True),
    ],
)
def test_what_is_no_text(data: bytes, opaque: bool) -> None:
    assert looks_opaque(data) is opaque


def test_wide_text() -> None:
    assert not looks_opaque("hello".encode("utf-16"), "text/plain; charset=utf-16")
    assert looks_opaque(b"\x00\xd8\x00\xd8" * 10, "text/plain; charset=utf-16")


@pytest.mark.parametrize(
    ("text", "inner"),
    [
        ("percent%41%42", "percentAB"),
        ("x\\u0041\\u{42}\\x43\\104\\/", "xABCD/"),
        ("&#65;&#x42;U+0043 ", "ABC"),
    ],
)
def test_one_layer(text: str, inner: str) -> None:
    assert inner.encode() in [
        content for _layer, content in decode.decoded(text.encode(), decode.SHAPES, (), None)
    ]


def test_absurd_character_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict(decode.decoded(b"&#x999999; &#65;", decode.SHAPES, (), None))
    assert found["escapes"] == b"&#x999999; A"
