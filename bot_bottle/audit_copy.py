"""The host's copy of an audit log whose writer is elsewhere (a sidecar in a container).

The writer's own bytes are appended as they come, so the copy is the same chain. What a launcher that died
did not get is completed later from the writer's file (:func:`complete`), which is proven first.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from bot_bottle.audit import AuditLog, open_log_file
from bot_bottle.audit_chain import fault, parse, stand

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bot_bottle.audit_chain import ChainEnd


class AuditCopy:
    """An open copy; nobody else writes to its file meanwhile (``flock``). Not thread-safe."""

    def __init__(self, fd: int, end: ChainEnd) -> None:
        self._fd = fd
        self.end = end

    @classmethod
    def open(cls, path: Path) -> AuditCopy:
        """Open the log at ``path`` for what follows on its end, healing a torn last line on record.

        ``end`` is where the writer is to go on. Raises what :meth:`AuditLog.open` raises.
        """
        log = AuditLog.open(path)
        return cls(end=log.end, fd=log.release())

    def append(self, data: bytes) -> None:
        """Append bytes of the writer's; raises ``OSError`` where they are not wholly on the disk's way."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        """Let go of the file; safe to call again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def complete(path: Path, source: Path) -> int:
    """Append to the log at ``path`` what the writer's file ``source`` has beyond it; gives how many bytes.

    ``source`` must be one unbroken chain (its last line may be torn) that contains or follows on the end of
    the log; a torn last line of the log must be the beginning of the source's own line. Raises ``ValueError``
    where it is not, with nothing written, and ``OSError``.
    """
    fd = open_log_file(path)
    try:
        end, fragment = stand(fd, path)
        with source.open("rb") as lines:
            if not os.fstat(lines.fileno()).st_size:
                return 0  # its writer never wrote
            start = _find(lines, end, source.name)
            lines.seek(start)
            if lines.read(len(fragment)) != fragment:
                raise ValueError(f"{source.name}: does not go on where {path} was cut short")
            size = os.fstat(lines.fileno()).st_size - start - len(fragment)
            with os.fdopen(os.dup(fd), "ab") as sink:
                shutil.copyfileobj(lines, sink)
                sink.flush()
                os.fsync(sink.fileno())
        return size
    finally:
        os.close(fd)


def _find(lines: Iterable[bytes], end: ChainEnd, name: str) -> int:
    """Prove the chain in ``lines`` and give the offset of what follows on ``end``; raises ``ValueError``."""
    offset, found = 0, None
    seq: int | None = None
    prev = ""
    for line in lines:
        record = parse(line)
        if record is None:
            if line.endswith(b"\n"):
                raise ValueError(f"{name}: holds a line that is no record")
            break  # torn; only ever the last
        if seq is None:
            first = record.get("seq")
            seq, prev = (first if type(first) is int else -1), str(record.get("prev"))
        if wrong := fault(record, seq=seq, prev=prev):
            raise ValueError(f"{name}: record {seq} {wrong}")
        if (seq, prev) == (end.seq, end.prev):
            found = offset
        offset += len(line)
        seq, prev = seq + 1, str(record["hash"])
    if seq is None or (seq, prev) == (end.seq, end.prev):
        found = offset  # no whole record beyond the log's end
    if found is None:
        raise ValueError(f"{name}: its chain does not meet the end of the log")
    return found
