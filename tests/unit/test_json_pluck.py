"""Values out of JSON that flows by: what the whole text would give, however it is cut, and nothing more."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.egress.json_pluck import KIND, Pluck, Wanted

if TYPE_CHECKING:
    from bot_bottle.egress.json_pluck import Path

NAMES = ["a", "b", "type", 'q"\\', "é", ""]
PATHS: tuple[Path, ...] = (("a",), ("b", "a"), ("a", "b", 'q"\\'), ("b", "b", "b", "a"), ("é",), ("", "a"))
SCALARS = (
    st.integers(-5, 10**18) | st.text(max_size=12) | st.none() | st.booleans() | st.floats(allow_nan=False)
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


def plucked(text: bytes, wanted: Wanted, step: int) -> dict[Path, str | int]:
    pluck = Pluck(wanted)
    for at in range(0, len(text), step):
        pluck.feed(text[at : at + step])
    return pluck.found


def at(value: object, path: Path) -> str | int | None:
    """Find what stands at ``path`` the plain way."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    if isinstance(value, str):
        return value
    return value if type(value) is int and 0 <= value < 10**15 else None


@given(value=JSON, step=st.integers(1, 9), ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_what_is_found_is_what_a_parser_of_the_whole_text_finds(
    value: object, step: int, ascii_only: bool, indent: int | None
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    expected = {path: found for path in PATHS if (found := at(value, path)) is not None}
    assert plucked(text, Wanted(PATHS), step) == expected


@given(data=st.binary(max_size=200), step=st.integers(1, 50))
def test_what_is_no_json_is_read_over(data: bytes, step: int) -> None:
    for text in (data, b'{"a":' + data, b'{"a":"' + data, b"[[[{" + data, b"}" + data):
        found = plucked(text, Wanted(PATHS), step)
        assert set(found) <= set(PATHS)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_what_only_looks_like_a_value_is_none(step: int) -> None:
    inner = json.dumps({"a": 1, "b": {"a": 2}})
    for value in ({"c": inner}, [{"a": 1}], {"b": [{"a": 1}]}, {"c": {"a": 1}}, {"aa": 1}, {"a": {"x": 1}}):
        assert plucked(json.dumps(value).encode(), Wanted(PATHS), step) == {}
    for text in (b'{"a":1.5}', b'{"a":-1}', b'{"a":1e3}', b'{"a":1234567890123456}', b'{"a":1', b'{"a":"x'):
        assert plucked(text, Wanted(PATHS), step) == {}
    assert plucked(b'{"a":"' + b"x" * 257 + b'","b":{"a":5}}', Wanted(PATHS), step) == {("b", "a"): 5}
    assert plucked(b'{"' + b"a" * 257 + b'":1,"a":5}', Wanted(PATHS), step) == {("a",): 5}


def test_of_a_text_of_another_kind_nothing_is_found_wherever_its_kind_stands() -> None:
    wanted = Wanted([("a",)], kinds=frozenset({"end"}))
    assert plucked(b'{"type":"end","a":1}', wanted, 3) == {KIND: "end", ("a",): 1}
    for text in (b'{"type":"delta","a":1}', b'{"a":1,"type":"delta"}'):
        assert plucked(text, wanted, 3) == {}
    assert plucked(b'{"x":{"type":"delta"},"a":1,"type":"end"}', wanted, 3) == {("a",): 1, KIND: "end"}


def test_memory_is_bounded_whatever_comes() -> None:
    piece = 16 * 1024
    torrents = (
        (b'{"x":"', b"y" * piece),
        (b'{"a":"', b"y" * piece),
        (b'{"', b"y" * piece),
        (b'{"a":', b"1" * piece),
        (b"", b"[" * piece),
        (b"", b'{"a":' * (piece // 5)),
        (b'{"x":"', b"\\" * piece),
    )
    tracemalloc.start()
    try:
        for begin, more in torrents:
            pluck = Pluck(Wanted(PATHS))
            pluck.feed(begin)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(8):
                pluck.feed(more)
            after, peak = tracemalloc.get_traced_memory()
            assert after - before < 4096, begin
            assert peak - before < 8 * piece, begin
    finally:
        tracemalloc.stop()
