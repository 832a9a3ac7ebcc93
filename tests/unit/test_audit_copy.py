"""A log written elsewhere: its chain goes on from the host's, the copy is the same, the rest is proven."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.audit import AuditLog
from bot_bottle.audit_chain import GENESIS, ChainEnd
from bot_bottle.audit_copy import AuditCopy, complete
from bot_bottle.audit_reading import read_records, verify
from bot_bottle.secret import Secret
from bot_bottle.sidecar.config import SidecarConfig

if TYPE_CHECKING:
    from pathlib import Path


def elsewhere(path: Path, after: ChainEnd, *, records: int = 4, ended: bool = True) -> bytes:
    """Write a sidecar's own file and give its bytes."""
    log = AuditLog.open(path, after=after)
    for number in range(records):
        log.append("request", number=number)
    if ended:
        log.close()
    else:
        os.close(log.release())
    return path.read_bytes()


def begun(path: Path, sessions: int = 1) -> ChainEnd:
    """Give the host a log of earlier sessions and say where it stands."""
    for _ in range(sessions):
        log = AuditLog.open(path)
        log.append("start")
        log.close()
    copy = AuditCopy.open(path)
    copy.close()
    return copy.end


@pytest.mark.parametrize("sessions", [0, 1, 3])
def test_what_is_copied_is_one_chain_with_what_was_there(tmp_path: Path, sessions: int) -> None:
    host = tmp_path / "host.jsonl"
    begun(host, sessions)
    copy = AuditCopy.open(host)
    data = elsewhere(tmp_path / "away.jsonl", copy.end)
    for start in range(0, len(data), 100):
        copy.append(data[start : start + 100])
    copy.close()
    copy.close()
    verdict = verify(host)
    assert (verdict.ok, verdict.ended, verdict.records) == (True, True, 2 * sessions + 5)


def test_a_file_that_continues_another_starts_empty(tmp_path: Path) -> None:
    away = tmp_path / "away.jsonl"
    after = ChainEnd(seq=7, prev="a" * 64, size=100)
    elsewhere(away, after)
    first = next(read_records(away))
    assert (first["seq"], first["prev"]) == (7, "a" * 64)
    with pytest.raises(ValueError, match="not empty"):
        AuditLog.open(away, after=after)


def test_the_bound_is_the_whole_logs(tmp_path: Path) -> None:
    after = ChainEnd(seq=7, prev="a" * 64, size=10_000)
    log = AuditLog.open(tmp_path / "away.jsonl", after=after, limit=10_400)
    log.append("request", path="/")
    with pytest.raises(OSError, match="largest size"):
        log.append("request", path="/")
    log.close()


def test_where_a_log_stands_survives_the_wire() -> None:
    end = ChainEnd(seq=3, prev="b" * 64, size=5)
    config = SidecarConfig(
        identity="a-00000", routes=(), audit_path="/x", secrets={"T": Secret("v")}, audit_after=end
    )
    assert SidecarConfig.from_wire(config.to_wire()).audit_after == end
    wrong: list[object] = [[], {"seq": "3", "prev": "b", "size": 5}, {"seq": 3, "prev": "b"}]
    for broken in wrong:
        with pytest.raises((ValueError, TypeError)):
            ChainEnd.from_wire(broken)


def test_a_watcher_hears_of_each_record_and_reads_past_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog.open(path)
    seen: list[int] = []
    fd = log.watch(lambda: seen.append(os.fstat(fd).st_size))
    log.append("one")
    log.append("two")
    log.close()
    data = os.pread(fd, 10_000, 0)
    os.close(fd)
    assert data == path.read_bytes()
    assert len(seen) == 3
    assert seen == sorted(seen)


@given(data=st.data())
def test_whatever_was_copied_the_rest_is_brought_home(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """The copy may end anywhere, in the middle of a record too; the writer's file may be torn or unended."""
    folder = tmp_path_factory.mktemp("salvage")
    host, away = folder / "host.jsonl", folder / "away.jsonl"
    begun(host, data.draw(st.integers(0, 2)))
    before = host.read_bytes()
    copy = AuditCopy.open(host)
    whole = elsewhere(away, copy.end, records=data.draw(st.integers(0, 4)), ended=data.draw(st.booleans()))
    torn = data.draw(st.sampled_from([b"", b'{"event":"requ']))
    away.write_bytes(whole + torn)
    cut = data.draw(st.integers(0, len(whole + torn)))
    copy.append((whole + torn)[:cut])
    copy.close()
    missing = len(whole + torn) - cut
    assert complete(host, away) == missing
    assert host.read_bytes() == before + whole + torn
    assert complete(host, away) == 0
    after = AuditLog.open(host)  # heals what was torn, on record
    after.close()
    assert verify(host).ok


def test_nothing_written_is_nothing_missing(tmp_path: Path) -> None:
    host, away = tmp_path / "host.jsonl", tmp_path / "away.jsonl"
    away.touch()
    assert complete(host, away) == 0
    host.write_bytes(b'{"torn')
    assert complete(host, away) == 0


def test_a_chain_that_does_not_meet_the_log_is_refused_and_nothing_written(tmp_path: Path) -> None:
    host, away = tmp_path / "host.jsonl", tmp_path / "away.jsonl"
    end = begun(host, 2)
    before = host.read_bytes()
    for after in (
        ChainEnd(seq=end.seq, prev="c" * 64, size=0),
        ChainEnd(seq=end.seq + 1, prev=end.prev, size=0),
        ChainEnd(seq=0, prev=GENESIS, size=0),
    ):
        elsewhere(away, after)
        with pytest.raises(ValueError, match="does not meet"):
            complete(host, away)
        away.unlink()
    assert host.read_bytes() == before


def test_a_chain_that_was_changed_is_refused(tmp_path: Path) -> None:
    host, away = tmp_path / "host.jsonl", tmp_path / "away.jsonl"
    end = begun(host)
    data = elsewhere(away, end)
    lines = data.splitlines(keepends=True)
    for broken in (
        data.replace(b'"number":2', b'"number":9'),
        b"".join(lines[:2] + lines[3:]),
        b"".join([lines[0], b"{}\n", *lines[1:]]),
        b"[]\n" + data,
    ):
        away.write_bytes(broken)
        before = host.read_bytes()
        with pytest.raises(ValueError, match="record"):
            complete(host, away)
        assert host.read_bytes() == before


def test_a_copy_that_was_cut_elsewhere_than_its_writer_is_refused(tmp_path: Path) -> None:
    host, away = tmp_path / "host.jsonl", tmp_path / "away.jsonl"
    elsewhere(away, begun(host))
    host.write_bytes(host.read_bytes() + b'{"another')
    with pytest.raises(ValueError, match="cut short"):
        complete(host, away)


def test_a_log_in_use_is_not_completed(tmp_path: Path) -> None:
    host, away = tmp_path / "host.jsonl", tmp_path / "away.jsonl"
    elsewhere(away, begun(host))
    copy = AuditCopy.open(host)
    with pytest.raises(BlockingIOError):
        complete(host, away)
    copy.close()
    assert complete(host, away) > 0
    assert verify(host).ended
