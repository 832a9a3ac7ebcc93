"""Run every benchmark, print the tables, and write them to ``docs/``."""

from __future__ import annotations

from benchmarks import docker, egress, listing, manifest, memory, report, start

if __name__ == "__main__":
    tables = []
    for module in (start, egress, memory, listing, manifest):
        table = module.measure()
        print(table.markdown(), flush=True)
        tables.append(table)
    for table in docker.measure():
        print(table.markdown(), flush=True)
        tables.append(table)
    report.write(tables)
