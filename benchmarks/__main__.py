"""Run every benchmark, or those named, print the tables, and write them to ``docs/``."""

from __future__ import annotations

import sys

from benchmarks import docker, egress, listing, manifest, memory, report, start

_MODULES = {
    module.__name__.rpartition(".")[2]: module for module in (start, egress, memory, listing, manifest)
}

if __name__ == "__main__":
    tables = []
    chosen = sys.argv[1:] or [*_MODULES, "docker"]
    for name in chosen:
        for table in docker.measure() if name == "docker" else [_MODULES[name].measure()]:
            print(table.markdown(), flush=True)
            tables.append(table)
    report.write(tables)
