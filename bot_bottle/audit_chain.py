"""The hash chain of an audit log, as data: what a record is, what it must follow, where a log stands.

The form of a record is described in :mod:`bot_bottle.audit`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Record: TypeAlias = "dict[str, object]"

GENESIS = "0" * 64

_TAIL_STEP = 64 * 1024
canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEnd:
    """Where a log stands: the next record's ``seq``, the ``prev`` it must name, the log's size in bytes."""

    seq: int
    prev: str
    size: int

    def to_wire(self) -> Mapping[str, object]:
        """Give the fields for JSON."""
        return {"seq": self.seq, "prev": self.prev, "size": self.size}

    @classmethod
    def from_wire(cls, obj: object) -> ChainEnd:
        """Read what :meth:`to_wire` gave; raises ``ValueError`` or ``TypeError`` otherwise."""
        if not isinstance(obj, dict):
            raise TypeError("where a log stands is an object")
        seq, prev, size = obj.get("seq"), obj.get("prev"), obj.get("size")
        if type(seq) is not int or not isinstance(prev, str) or type(size) is not int:
            raise ValueError("where a log stands is a number, a hash and a size")
        return cls(seq=seq, prev=prev, size=size)


def sha256(data: bytes) -> str:
    """Give the hash of ``data`` as the chain writes it."""
    return hashlib.sha256(data, usedforsecurity=True).hexdigest()


def parse(line: bytes) -> Record | None:
    """Read one line with its line feed; None for what is no whole record."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("hash"), str) else None


def fault(record: Record, *, seq: int, prev: str) -> str:
    """Say what is wrong with a record that should be number ``seq`` and follow ``prev``; empty if nothing."""
    if not _is_unchanged(record):
        return "was changed: its hash does not match"
    if record.get("prev") != prev:
        return "does not follow the line before it: something was removed, added or moved"
    if record.get("seq") != seq or not isinstance(record.get("event"), str):
        return "is out of sequence"
    return ""


def stand(fd: int, path: Path) -> tuple[ChainEnd, bytes]:
    """Give where the log open as ``fd`` stands and the torn fragment after its last whole line.

    Raises ``ValueError`` that names ``path`` when the last whole line is not a valid record.
    """
    size = os.fstat(fd).st_size
    last, fragment = _tail(fd, size)
    if last is None:
        return ChainEnd(seq=0, prev=GENESIS, size=size), fragment
    record = parse(last + b"\n")
    if record is None:
        raise ValueError(f"{path}: its last line is no audit record; move the file away to start a new log")
    seq = record.get("seq")
    if type(seq) is not int or not _is_unchanged(record):
        raise ValueError(f"{path}: its last record was changed; move the file away to start a new log")
    return ChainEnd(seq=seq + 1, prev=str(record["hash"]), size=size), fragment


def _is_unchanged(record: Record) -> bool:
    body = {name: value for name, value in record.items() if name != "hash"}
    return sha256(canonical(body).encode("ascii")) == record["hash"]


def _tail(fd: int, size: int) -> tuple[bytes | None, bytes]:
    """Give the last whole line without its line feed (``None``: there is none) and the fragment after it."""
    data = b""
    position = size
    while position > 0 and data.count(b"\n") < 2:
        step = min(_TAIL_STEP, position)
        position -= step
        data = os.pread(fd, step, position) + data
    whole, found, fragment = data.rpartition(b"\n")
    return (whole.rpartition(b"\n")[2] if found else None), fragment
