"""Run every benchmark, or those named, print the tables, and write them to ``docs/``."""

from __future__ import annotations

import compileall
import sys
from typing import TYPE_CHECKING

from benchmarks import (
    crowd,
    docker,
    egress,
    git_gate,
    listing,
    machines,
    manifest,
    many,
    memory,
    pipelock,
    reflection,
    report,
    start,
    workspace,
)
from tests.support.outside import REPO

if TYPE_CHECKING:
    from collections.abc import Callable

_ONE: dict[str, Callable[[], report.Table]] = {
    "start": start.measure,
    "memory": memory.measure,
    "manifest": manifest.measure,
    "reflection": reflection.measure,
    "machines": machines.measure,
    "many": many.measure,
    "workspace": workspace.measure,
}
_SEVERAL: dict[str, Callable[[], list[report.Table]]] = {
    "listing": listing.measure,
    "egress": egress.measure,
    "crowd": crowd.measure,
    "content": pipelock.measure_all,
    "docker": docker.measure,
    "git_gate": git_gate.measure,
}

if __name__ == "__main__":
    # As pip leaves an installation: an editable one may be told to keep nothing compiled.
    compileall.compile_dir(str(REPO / "bot_bottle"), quiet=1)
    tables: list[report.Table] = []
    for name in sys.argv[1:] or [*_ONE, *_SEVERAL]:
        for table in _SEVERAL[name]() if name in _SEVERAL else [_ONE[name]()]:
            print(table.markdown(), flush=True)
            tables.append(table)
    report.write(tables)
