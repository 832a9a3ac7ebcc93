"""Which records `logs` shows, and how."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pytest

from bot_bottle.errors import UsageError
from bot_bottle.record_lines import RecordFilter, read_events_wanted, read_since, record_line

Records: TypeAlias = tuple[dict[str, str], ...]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALLOWED = {
    "event": "request",
    "decision": "allow",
    "host": "api.test",
    "time": "2026-03-01T11:59:00.000000+00:00",
}
DENIED = {**ALLOWED, "decision": "deny", "host": "evil.test", "time": "2026-03-01T10:00:00.000000+00:00"}
FAILED = {**ALLOWED, "decision": "error"}
NAME = {"event": "dns", "name": "Asked.test", "decision": "answered", "time": ALLOWED["time"]}
PUSH = {"event": "git_push", "remote": "origin", "decision": "refused", "time": ALLOWED["time"]}
ALL = (ALLOWED, DENIED, FAILED, NAME, PUSH)


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (RecordFilter(), ALL),
        (RecordFilter(denied=True), (DENIED, FAILED, PUSH)),
        (RecordFilter(host="*.test"), (ALLOWED, DENIED, FAILED, NAME)),
        (RecordFilter(host="API.test"), (ALLOWED, FAILED)),
        (RecordFilter(host="origin"), (PUSH,)),
        (RecordFilter(host="[!x]*"), ALL),
        (RecordFilter(events=("dns", "git_push")), (NAME, PUSH)),
        (RecordFilter(since=read_since("1h", NOW)), (ALLOWED, FAILED, NAME, PUSH)),
        (RecordFilter(since=read_since("1h", NOW), denied=True, host="evil.*"), ()),
    ],
)
def test_a_filter_wants_what_meets_all_of_it(
    chosen: RecordFilter, wanted: tuple[dict[str, str], ...]
) -> None:
    assert tuple(record for record in ALL if chosen.wants(record)) == wanted


@pytest.mark.parametrize(("text", "ago"), [("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259_200)])
def test_a_span_counts_back_from_now(text: str, ago: int) -> None:
    assert read_since(text, NOW) == (NOW - timedelta(seconds=ago)).isoformat(timespec="microseconds")


def test_a_moment_is_read_in_its_own_zone() -> None:
    assert read_since("2026-03-01T13:00+02:00", NOW) == "2026-03-01T11:00:00.000000+00:00"


@pytest.mark.parametrize(
    "text",
    ["yesterday", "10", "m", "-5m", "2026-13-01", "\x1b[31m", "999999d", "9999999h9", "0001-01-01T00:00"],
)
def test_what_is_no_time_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        read_since(text, NOW)


def test_a_line_holds_no_control_characters_and_no_chain() -> None:
    line = record_line({**DENIED, "path": "/a b\x1b[2J", "hash": "h" * 64, "prev": "p", "seq": 7})
    assert line.endswith('request    decision=deny host=evil.test path="/a b?[2J"')


def test_a_grant_is_told_by_its_terms_alone() -> None:
    record = {"event": "answered", "request": "k3v9x2ab", "terms": "GET a.example", "grant": '{"route": {}}'}
    line = record_line(record)
    assert 'terms="GET a.example"' in line
    assert "grant" not in line


def test_an_event_that_there_is_not_is_refused_with_those_there_are() -> None:
    assert read_events_wanted(("request", "session")) == ("request", "session")
    with pytest.raises(UsageError, match=r"no event 'bogus'; there are: .*request.*session"):
        read_events_wanted(("bogus",))
