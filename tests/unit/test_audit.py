"""The audit log's chain: what breaks it is found, what tears it is healed on record, secrets never enter."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot_bottle.audit import AuditLog, AuditValue, _encode
from bot_bottle.audit_reading import read_records, verify
from bot_bottle.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, count: int = 5) -> list[bytes]:
    log = AuditLog.open(path)
    for number in range(count):
        log.append("request", decision="allow", number=number)
    log.close()
    return path.read_bytes().splitlines(keepends=True)


def test_a_whole_log_verifies_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "audit" / "a.jsonl"
    lines = written(path)
    verdict = verify(path)
    assert (verdict.ok, verdict.records, verdict.ended, verdict.error_line) == (True, 6, True, None)
    assert len(lines) == 6
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    first = json.loads(lines[0])
    assert (first["seq"], first["prev"], first["event"]) == (0, "0" * 64, "request")


def test_an_open_log_is_intact_but_not_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog.open(path)
    log.append("start")
    verdict = verify(path)
    assert (verdict.ok, verdict.ended) == (True, False)
    log.close()
    log.close()
    assert verify(path).ended


def test_an_empty_file_is_an_intact_log_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.touch()
    assert (verify(path).ok, verify(path).records, verify(path).ended) == (True, 0, False)


@pytest.mark.parametrize("line", range(6))
def test_a_changed_line_is_found(tmp_path: Path, line: int) -> None:
    path = tmp_path / "a.jsonl"
    lines = written(path)
    record = json.loads(lines[line])
    record["decision"] = "deny"
    lines[line] = json.dumps(record).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    verdict = verify(path)
    assert (verdict.ok, verdict.error_line, verdict.records) == (False, line + 1, line)


@pytest.mark.parametrize("line", range(5))
def test_a_dropped_doubled_or_moved_line_is_found(tmp_path: Path, line: int) -> None:
    path = tmp_path / "a.jsonl"
    lines = written(path)
    for changed in (
        lines[:line] + lines[line + 1 :],
        lines[: line + 1] + lines[line:],
        [*lines[:line], lines[line + 1], lines[line], *lines[line + 2 :]],
    ):
        path.write_bytes(b"".join(changed))
        assert not verify(path).ok


def test_a_log_cut_at_a_line_is_intact_but_not_ended(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(written(path)[:-1]))
    assert (verify(path).ok, verify(path).ended) == (True, False)


@given(cut=st.integers(min_value=1, max_value=200), junk=st.binary(max_size=20))
def test_a_torn_line_is_healed_on_record(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("torn") / "a.jsonl"
    lines = written(path)
    fragment = lines[-1][:cut] + junk.replace(b"\n", b"")
    path.write_bytes(b"".join(lines[:-1]) + fragment)
    assert not verify(path).ok
    log = AuditLog.open(path)
    log.append("start")
    log.close()
    verdict = verify(path)
    assert (verdict.ok, verdict.records, verdict.ended) == (True, 8, True)
    recovered = list(read_records(path))[5]
    assert (recovered["event"], recovered["torn_bytes"]) == ("recovered", len(fragment))
    changed = path.read_bytes().replace(fragment, b"x" * len(fragment), 1)
    path.write_bytes(changed)
    assert not verify(path).ok


def test_reopening_continues_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path)
    written(path)
    verdict = verify(path)
    assert (verdict.ok, verdict.records, verdict.ended) == (True, 12, True)


def test_a_log_whose_end_was_changed_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = written(path)
    for last in (lines[-1].replace(b'"end"', b'"fin"'), b"[]\n", b"\n"):
        path.write_bytes(b"".join(lines[:-1]) + last)
        with pytest.raises(ValueError, match=str(path)):
            AuditLog.open(path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = AuditLog.open(path)
    with pytest.raises(BlockingIOError):
        AuditLog.open(path)
    first.close()
    AuditLog.open(path).close()


def test_links_and_folders_are_no_log(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (tmp_path / "soft").symlink_to(target)
    (tmp_path / "hard").hardlink_to(target)
    (tmp_path / "folder").mkdir()
    for name in ("soft", "hard", "folder"):
        with pytest.raises(OSError):
            AuditLog.open(tmp_path / name)


SECRETS = ['s3cr3t"tok/en+x', "sk-ant-oat01-abcdefghijkl", "päss wörd"]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("shape", ["{}", "/path?token={}", "a{0}b{0}c"])
def test_secrets_never_enter(tmp_path: Path, secret: str, shape: str) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog.open(path, redact=[Secret(value) for value in SECRETS] + [Secret("")])
    for form in (secret, quote(secret, safe=""), quote(secret)):
        log.append("request", path=shape.format(form), names=[form], number=1)
    log.close()
    raw = path.read_text()
    for record in read_records(path):
        assert secret not in json.dumps(record, ensure_ascii=False)
        if record["event"] == "request":
            assert record["names"] == ["[redacted]"]
            assert "[redacted]" in str(record["path"])
    assert quote(secret, safe="") not in raw
    assert verify(path).ok


def test_a_record_that_cannot_be_written_is_an_error_and_does_not_break_the_chain(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog.open(path)
    log.append("one")
    kept = log._fd
    log._fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError):
        log.append("two")
    os.close(log._fd)
    log._fd = kept
    log.append("three")
    log.close()
    assert [record["event"] for record in read_records(path)] == ["one", "three", "end"]
    assert verify(path).ok


def test_after_close_nothing_is_accepted(tmp_path: Path) -> None:
    log = AuditLog.open(tmp_path / "a.jsonl")
    log.close()
    with pytest.raises(OSError, match="no longer"):
        log.append("late")


def test_fields_cannot_forge_the_chain(tmp_path: Path) -> None:
    log = AuditLog.open(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="chain"):
        log.append("x", prev="0")
    log.append("line", text="a\nb\u2028c\x1b[31m")
    log.close()
    assert verify(tmp_path / "a.jsonl").records == 2


SCALARS = st.one_of(st.text(), st.integers(), st.booleans(), st.none())
VALUES = SCALARS | st.lists(st.text()) | st.lists(st.integers())


@given(st.dictionaries(st.text(min_size=1), VALUES, max_size=8))
def test_records_are_written_canonically(record: dict[str, AuditValue]) -> None:
    assert _encode(record) == json.dumps(record, sort_keys=True, separators=(",", ":"))


def test_a_full_log_accepts_nothing_but_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog.open(path, limit=2000)
    accepted = 0
    with contextlib.suppress(OSError):
        while accepted < 100:
            log.append("request", path="/" + "x" * 200)
            accepted += 1
    assert 0 < accepted < 10
    assert path.stat().st_size <= 2000
    with pytest.raises(OSError, match="largest size"):
        log.append("x")  # which would fit, but not in order
    log.close()
    verdict = verify(path)
    assert (verdict.ok, verdict.ended, verdict.records) == (True, True, accepted + 1)


def test_a_full_log_stays_full_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path)
    log = AuditLog.open(path, limit=path.stat().st_size + 10)
    with pytest.raises(OSError, match="largest size"):
        log.append("start")
    log.close()
    assert verify(path).ended
    log = AuditLog.open(path)
    log.append("start")
    log.close()
    assert verify(path).ended


def test_a_log_that_keeps_nothing_is_never_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot_bottle.audit.MAX_LOG_BYTES", 10)
    log = AuditLog.discarding()
    log.append("request", path="/a/long/path")
    log.close()


def test_the_bound_of_a_log_is_512_mib(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    log = AuditLog.open(path)
    log.append("start")
    log.close()
    lines = path.read_bytes()
    with path.open("wb") as file:
        file.seek(512 * 1024 * 1024 - len(lines))  # a hole costs no disk
        file.write(b"\n" + lines)
    log = AuditLog.open(path)
    with pytest.raises(OSError, match="largest size"):
        log.append("request")
    log.close()
