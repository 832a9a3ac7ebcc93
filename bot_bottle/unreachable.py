"""Hosts that a bottle was let to and that never answered it, out of its log.

Else an agent waits and repeats all night while a name is not resolved or a proxy refuses, and its own words
say that the network is slow.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot_bottle.legible import legible
from bot_bottle.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: What egress says of a request that met no server; of other failures some answer had begun.
_REASONS = frozenset({"upstream_dns", "upstream_unreachable", "upstream_tls", "upstream_proxy"})
#: More hosts than anyone reads of are not told.
MOST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """A host of which no server was met: in ``count`` requests, the last of which failed for ``why``."""

    host: str
    count: int
    why: str


def unreachable_since_start(path: Path) -> tuple[Unreachable, ...]:
    """Read a log from where its sidecar last started; nothing where it cannot be read."""
    from bot_bottle.events import LogReader  # noqa: PLC0415 - for this alone

    allowed: dict[str, int] = {}
    failed: dict[str, tuple[int, str]] = {}
    with contextlib.suppress(OSError):
        for record in LogReader(path, events=("start", "request")).rest():
            if record.get("event") == "start":
                allowed.clear()
                failed.clear()
                continue
            host = str(record.get("host", ""))
            if record.get("decision") == "allow":
                allowed[host] = allowed.get(host, 0) + 1
            elif record.get("decision") == "error" and record.get("reason") in _REASONS:
                count, _ = failed.get(host, (0, ""))
                failed[host] = count + 1, str(record.get("message", ""))
    return tuple(
        Unreachable(host=host, count=count, why=why)
        for host, (count, why) in failed.items()
        if count >= allowed.get(host, 0)
    )


def unreachable_sentences(found: Iterable[Unreachable], identity: str) -> tuple[str, ...]:
    """Say each with where to read on, and how many more there are."""
    every = tuple(found)
    said = [
        f"{legible(one.why)}; {counted(one.count, 'request')} to it met no server: "
        f"bot-bottle logs {identity} --host {legible(one.host)}"
        for one in every[:MOST]
    ]
    if len(every) > MOST:
        said.append(f"{counted(len(every) - MOST, 'more host')} met no server: bot-bottle logs {identity}")
    return tuple(said)
