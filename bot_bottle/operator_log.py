"""What the operator did with a bottle's work, on record beside the bottle's own log.

A bottle's log has one writer, its sidecar, and the newest part of its chain may lie elsewhere: in the volume
of a container whose launcher was killed. A record appended here meanwhile would make two chains of one. So
``pull`` has a log of its own, ``audit/operator/IDENTITY.jsonl`` (``decisions/0028``), in the same form and
chained in itself; each action opens it, writes one record and the ``end``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.audit import AuditLog
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bot_bottle.audit import AuditValue
    from bot_bottle.secret import Secret

#: Another action on the same bottle holds the log for the moment that writing takes.
_WAIT_SECONDS = 10.0
_LOOK_AGAIN_SECONDS = 0.02


def operator_log(identity: str) -> Path:
    """Give the place of the log; nothing need be there."""
    path = paths.audit_path(identity)
    return path.parent / "operator" / path.name


def record(identity: str, event: str, *, redact: Iterable[Secret] = (), **fields: AuditValue) -> None:
    """Put one act on record; raises ``LaunchError`` where it cannot be: then it must not be done."""
    path = operator_log(identity)
    try:
        log = _open(path, redact)
        try:
            log.append(event, **fields)
        finally:
            log.close()
    except (OSError, ValueError) as error:
        raise LaunchError(f"{path}: this cannot be put on record: {error}") from error


def _open(path: Path, redact: Iterable[Secret]) -> AuditLog:
    redact = tuple(redact)
    until = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return AuditLog.open(path, redact=redact)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOOK_AGAIN_SECONDS)
