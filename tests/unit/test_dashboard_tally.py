"""One bottle's log, counted as it grows, in whatever pieces it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bot_bottle.audit import AuditLog
from bot_bottle.dashboard.feed import Feed, lines_of
from bot_bottle.dashboard.tally import RATE_SECONDS, Tally
from bot_bottle.supervise.request import read_request

if TYPE_CHECKING:
    from pathlib import Path


def asked(one: str, **arguments: Any) -> dict[str, Any]:
    request = read_request("egress", {"reason": "to read", **arguments}, new_id=one, now=1)
    return dict(request.to_record())


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOT_BOTTLE_HOME", str(tmp_path))
    return tmp_path / "audit" / "worker-abcde.jsonl"


def write(path: Path, *events: tuple[str, dict[str, Any]]) -> bytes:
    before = path.stat().st_size if path.exists() else 0
    log = AuditLog.open(path)
    for name, fields in events:
        log.append(name, **fields)
    log.close()
    return path.read_bytes()[before:]


START = ("start", {"identity": "worker-abcde", "routes": 0, "pid": 1})
ALLOWED = ("request", {"decision": "allow", "host": "a.test", "path": "/", "method": "GET"})
DENIED = ("request", {"decision": "deny", "host": "b.test", "path": "/", "reason": "host_not_allowed"})


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_every_size_of_piece_gives_the_same_counts(path: Path, size: int) -> None:
    spoof = ("request", {**ALLOWED[1], "path": '/"event":"request""decision":"deny"\n"event":"asked"'})
    push = {"remote": "o", "refs": ["create refs/heads/x 0..1"], "decision": "allow", "rule": "r"}
    data = write(
        path,
        START,
        ALLOWED,
        DENIED,
        spoof,
        ("asked", asked("a2345678", host="docs.test")),
        ("git_push", push),
        ("panic", {"decision": "deny"}),
    )
    tally = Tally()
    for at in range(0, len(data), size):
        tally.take(data[at : at + size])
    assert (tally.requests, tally.denied, tally.halted) == (3, 1, True), "a panic is no request"
    assert [one.id for one in tally.past.open] == ["a2345678"]
    assert tally.push is not None
    assert tally.push["refs"] == ["create refs/heads/x 0..1"]
    assert tally.began.startswith("20")


def test_a_new_session_counts_anew_and_what_was_asked_is_asked_still(path: Path) -> None:
    first = write(
        path, START, ALLOWED, ("asked", asked("a2345678", host="x.test")), ("panic", {"decision": "deny"})
    )
    tally = Tally()
    tally.take(first)
    tally.take(write(path, START, ALLOWED, ALLOWED, ("asked", asked("b2345678", host="y.test"))))
    assert (tally.requests, tally.denied, tally.halted) == (2, 0, False)
    assert [one.id for one in tally.past.open] == ["a2345678", "b2345678"]
    answered = {"request": "a2345678", "verdict": "denied", "words": "", "terms": "", "grant": ""}
    tally.take(write(path, ("answered", answered)))
    assert [one.id for one in tally.past.open] == ["b2345678"]


def test_the_rate_is_of_the_last_seconds(path: Path) -> None:
    tally = Tally()
    tally.take(write(path, START, *[ALLOWED] * 50))
    assert tally.rate(100.0) == 0, "what was there at the first look has no pace"
    tally.take(write(path, *[ALLOWED] * 20))
    assert tally.rate(101.0) == 20 / RATE_SECONDS
    assert tally.rate(104.0) == 20 / RATE_SECONDS
    assert tally.rate(108.0) == 0


def test_lines_are_filtered_and_cut_to_what_can_be_shown(path: Path) -> None:
    write(path, START, ALLOWED, ("request", {**DENIED[1], "path": "/\x1b[2J\u202e[bold]x[/]"}))
    records, missed = Feed("worker-abcde").more()
    assert missed == 0
    (line,) = [text for (text, _tone), _number in lines_of(records, denied=True, text="")]
    assert "path=/?[2J?[bold]x[/]" in line
    assert [(tone, number) for (_text, tone), number in lines_of(records, denied=False, text="B.TEST")] == [
        ("bad", 2)
    ]


def test_a_feed_passes_over_what_nobody_could_read(path: Path) -> None:
    write(path, START)
    feed = Feed("worker-abcde")
    assert len(feed.more()[0]) == 2
    write(path, *[ALLOWED] * 1000)
    records, missed = feed.more()
    assert missed > 0
    assert 0 < len(records) < 1000
    assert records[-1]["event"] == "end"
    assert feed.more() == ([], 0)


def test_a_feed_of_a_log_that_is_not_there_is_empty(path: Path) -> None:
    del path
    assert Feed("nobody-abcde").more() == ([], 0)
