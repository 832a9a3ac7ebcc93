"""Lengths of time, read alike wherever an operator writes one."""

from __future__ import annotations

import pytest

from bot_bottle.duration import DAY, read_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("7d", 7 * DAY), ("0s", 0), ("0.001s", 0.001)],
)
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    assert read_duration(text, longest=7 * DAY) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "-1s",
        "+1s",
        "1 s",
        "1w",
        "1S",
        "1.s",
        ".5s",
        "1.2345s",
        "12345678s",
        "٣s",
        "8d",
        "1m30s",
        "nan",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no length|longer than 7 days"):
        read_duration(text, longest=7 * DAY)


def test_a_number_alone_is_one_of_seconds_only_where_that_is_said() -> None:
    assert read_duration("90", longest=DAY, bare=True) == 90
    with pytest.raises(ValueError, match="no length"):
        read_duration("90", longest=DAY)
