"""The audit log: one JSON line a decision, hash-chained, without secrets.

Each line holds ``seq`` (from 0), ``time`` (UTC, RFC 3339), ``event``, the event's fields, ``prev`` (the
previous line's ``hash``, 64 zeros for the first) and ``hash``: the SHA-256 of the line's canonical JSON
(sorted keys, no spaces, ASCII) without ``hash`` itself. A changed, dropped, added or reordered line breaks
the chain. A clean end writes an ``end`` event, so a log cut short is told from one that is whole.

The log is only ever appended to. Where a crash or a full disk tore the last line, the next
:meth:`AuditLog.open` ends the fragment with a line feed and writes a ``recovered`` event that holds the
fragment's SHA-256 and length; the chain goes on from the last whole line, and
:func:`~bot_bottle.audit_reading.verify` accepts the fragment only because that record vouches for it.

One file holds at most :data:`MAX_LOG_BYTES`. What would go beyond is not accepted, nor anything after it
but the ``end``, so that who fills the log is refused everything from then on.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote

from bot_bottle.audit_chain import GENESIS, ChainEnd, canonical, sha256, stand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from bot_bottle.secret import Secret

#: What an audit field may hold: only values whose JSON form survives a round trip unchanged.
AuditValue: TypeAlias = str | int | bool | list[str] | list[int] | None

#: How large one log file may grow, in bytes; some 1.2 million requests.
MAX_LOG_BYTES = 512 * 1024 * 1024

REDACTED = "[redacted]"

_RESERVED = frozenset({"seq", "time", "event", "prev", "hash"})
#: A few hundred bytes an opening of the log, without which it could not be told whole from cut.
_ALWAYS_FIT = frozenset({"end", "recovered"})
_quote = json.encoder.encode_basestring_ascii


class RecordForm:
    """A record that is written again and again, with one text left open; see :meth:`AuditLog.fill`."""

    __slots__ = ("after", "before", "event", "fields", "open_field", "to_prev", "to_seq", "to_time")

    def __init__(self, event: str, *, open_field: str, fields: Mapping[str, AuditValue]) -> None:
        """Lay a record out; raises ``ValueError`` for an open field that does not come before ``prev``."""
        if not _RESERVED.isdisjoint(fields) or not open_field < "prev" or open_field in fields:
            raise ValueError("a form's open field is a new one that sorts before 'prev'")
        self.event = event
        self.open_field = open_field
        self.fields = dict(fields)
        # Sorted names, as in every record, cut where the four values go that each record brings itself.
        laid_out = _encode({**fields, "event": event, open_field: "", "prev": "", "seq": 0, "time": ""})
        self.before, rest = _cut(laid_out, f'"{open_field}":', '""')
        self.to_prev, rest = _cut(rest, '"prev":"', "")
        self.to_seq, rest = _cut(rest, '"seq":', "0")
        self.to_time, self.after = _cut(rest, '"time":"', "")


class AuditLog:
    """The writing end of one bottle's log. Not thread-safe; one open log a file (``flock``)."""

    __slots__ = ("_broken", "_fd", "_full", "_limit", "_on_record", "_prev", "_secrets", "_seq", "_size")

    def __init__(
        self,
        fd: int,
        *,
        seq: int,
        prev: str,
        secrets: tuple[str, ...],
        size: int = 0,
        limit: int | None = MAX_LOG_BYTES,
    ) -> None:
        """Write to ``fd``, which holds ``size`` bytes already, up to ``limit`` bytes (``None``: no bound)."""
        self._fd = fd
        self._size = size
        self._limit = limit
        self._full = False
        self._seq = seq
        self._prev = prev
        self._secrets = secrets
        self._broken = False
        self._on_record: Callable[[], None] | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        redact: Iterable[Secret] = (),
        limit: int = MAX_LOG_BYTES,
        after: ChainEnd | None = None,
    ) -> AuditLog:
        """Open ``path`` for appending, making it (0600) and its folder (0700) where they do not exist.

        The chain continues from the file's last line, or, in a file that must be empty, from ``after``, the
        end of the same log in another place. ``limit`` bounds the whole log, in bytes. Raises ``OSError``
        when the file cannot be opened, is a link, is not a plain file of this user or is open elsewhere,
        and ``ValueError`` when its last whole line is not a valid record or it is not empty.
        """
        fd = open_log_file(path)
        try:
            end, fragment = stand(fd, path)
            if after is not None:
                if end.size:
                    raise ValueError(f"{path}: is not empty, so it cannot continue another log")
                end = after
            log = cls(fd, seq=end.seq, prev=end.prev, secrets=(), size=end.size, limit=limit)
            log.redact_too(redact)
            if fragment:
                log._heal(fragment)
        except BaseException:
            os.close(fd)
            raise
        return log

    @classmethod
    def discarding(cls) -> AuditLog:
        """Give a log that keeps nothing, for egress run by hand without a record."""
        return cls(
            os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), seq=0, prev=GENESIS, secrets=(), limit=None
        )

    @property
    def end(self) -> ChainEnd:
        """Where the log stands now."""
        return ChainEnd(seq=self._seq, prev=self._prev, size=self._size)

    def watch(self, on_record: Callable[[], None]) -> int:
        """Call ``on_record`` after each record from now on; gives a descriptor of the file, for reading back.

        The descriptor is the caller's to close and outlives the log.
        """
        self._on_record = on_record
        return os.dup(self._fd)

    def redact_too(self, more: Iterable[Secret]) -> None:
        """Keep further secrets out of what is recorded from now on."""
        forms = {form for secret in more for form in _forms(secret.reveal())}
        self._secrets = tuple(sorted({*self._secrets, *forms}, key=len, reverse=True))

    def release(self) -> int:
        """Give the file away, still locked, to a caller who closes it; no ``end`` is written."""
        fd, self._fd = self._fd, -1
        return fd

    def append(self, event: str, **fields: AuditValue) -> None:
        """Write one record.

        Any bottle secret in a field is replaced by ``[redacted]``. Raises ``OSError`` when the record is
        not wholly written or would not fit under the log's bound; the caller must then refuse what it was
        about to allow. After a line was torn nothing more is accepted, since the file's end is no longer
        ours to vouch for; once the bound was reached only ``end`` is.
        """
        if self._broken or self._fd < 0:
            raise OSError("the audit log no longer accepts records")
        if not _RESERVED.isdisjoint(fields):
            raise ValueError("an audit field may not be named like one of the chain's own")
        self._write_record(b"", event, fields)

    def fill(self, form: RecordForm, text: str) -> None:
        """Write what ``append`` would write of ``form``'s event and fields, with ``text`` in the open one.

        Raises as :meth:`append` does.
        """
        if self._broken or self._fd < 0:
            raise OSError("the audit log no longer accepts records")
        line = (
            f"{form.before}{_quote(text)}{form.to_prev}{self._prev}{form.to_seq}{self._seq}"
            f"{form.to_time}{_now()}{form.after}"
        )
        if self._secrets and self._betrays(line):
            self.append(form.event, **{**form.fields, form.open_field: text})
        else:
            self._write_text(b"", line, form.event)

    def _heal(self, fragment: bytes) -> None:
        # One write for the line feed and the record, so that a second crash cannot part them.
        torn: dict[str, AuditValue] = {"torn_sha256": sha256(fragment), "torn_bytes": len(fragment)}
        self._write_record(b"\n", "recovered", torn)

    def _write_record(self, before: bytes, event: str, fields: Mapping[str, AuditValue]) -> None:
        record: dict[str, AuditValue] = {
            **fields,
            "event": event,
            "prev": self._prev,
            "seq": self._seq,
            "time": _now(),
        }
        text = _encode(record)
        if self._secrets and self._betrays(text):
            record.update({name: self._redact(value) for name, value in fields.items()})
            text = _encode(record)
        self._write_text(before, text, event)

    def _write_text(self, before: bytes, text: str, event: str) -> None:
        digest = sha256(text.encode("ascii"))
        line = f'{text[:-1]},"hash":"{digest}"}}\n'.encode("ascii")
        if before:
            line = before + line
        size = len(line)
        if (self._full or (self._limit is not None and self._size + size > self._limit)) and (
            event not in _ALWAYS_FIT
        ):
            self._full = True  # also for what is smaller: a log with holes would mislead
            raise OSError("the audit log has reached its largest size; move the file away to start a new one")
        if os.write(self._fd, line) != size:
            self._broken = True
            raise OSError("the audit log's disk is full: a record was cut short")
        self._size += size
        self._prev = digest
        self._seq += 1
        if self._on_record is not None:
            self._on_record()

    def close(self) -> None:
        """Write ``end`` and close; safe to call again. An ``end`` that cannot be written is left out."""
        if self._fd < 0:
            return
        try:
            self.append("end")
        except OSError:
            pass  # verify() then reports a log without an end, which is the truth
        finally:
            os.close(self._fd)
            self._fd = -1

    def _redact(self, value: AuditValue) -> AuditValue:
        if isinstance(value, str):
            return self._redact_text(value)
        if isinstance(value, list):
            return [self._redact_text(item) if isinstance(item, str) else item for item in value]  # type: ignore[return-value]
        return value

    def _redact_text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, REDACTED)
        return REDACTED if self._betrays(text) else text

    def _betrays(self, text: str) -> bool:
        clear = unquote(text) if "%" in text else ""
        for secret in self._secrets:  # noqa: SIM110 - a generator here costs every record 0.5 us
            if secret in text or secret in clear:
                return True
        return False


def open_log_file(path: Path) -> int:
    """Open and lock a log's file as :meth:`AuditLog.open` says; gives its descriptor. Raises ``OSError``."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_nlink != 1 or not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is not a plain file of this user; it cannot be the audit log")
        os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _encode(record: Mapping[str, AuditValue]) -> str:
    """Write what :data:`canonical` writes, in half the time: a record has few fields, nearly all text."""
    parts = []
    for name, label in _layout(tuple(record)):
        value = record[name]
        if type(value) is str:
            parts.append(label + _quote(value))
        elif value is None:
            parts.append(label + "null")
        elif type(value) is int:
            parts.append(f"{label}{value}")
        else:
            parts.append(label + canonical(value))
    return "{" + ",".join(parts) + "}"


def _cut(text: str, label: str, filler: str) -> tuple[str, str]:
    """Part ``text`` behind ``label``, leaving ``filler`` out; no quoted value can hold a label."""
    before, _label, after = text.partition(label)
    return before + label, after.removeprefix(filler)


@lru_cache(maxsize=64)
def _layout(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"{_quote(name)}:") for name in sorted(names))


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1000:06d}+00:00"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _forms(secret: str) -> set[str]:
    """List how a secret may stand in a line: as it is and JSON-escaped."""
    return {secret, canonical(secret)[1:-1]} if secret else set()
