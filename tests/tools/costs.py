"""What tests cost in processor time, with all that they start: ``python -m pytest -p tests.tools.costs ...``.

At the end of the run the dearest files are listed, and of all tests' parts (set-up, call, teardown) the
dearest. Processor seconds say nearly the same on a busy machine as on a quiet one. They are counted by a
control group of this run's own (cgroups(7), version 1's ``cpuacct``), so this needs root and that hierarchy.
What an engine runs in groups of its own is not counted.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

_HIERARCHY = Path("/sys/fs/cgroup/cpuacct")
_LISTED = 25


class Costs:
    """Counts what this process and all below it use from now on; seconds of processor and of the clock."""

    def __init__(self) -> None:
        self._group = _HIERARCHY / f"bot-bottle-test-costs-{os.getpid()}"
        try:
            self._group.mkdir()
            (self._group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            raise pytest.UsageError(
                f"{self._group}: {error.strerror}; run as root, where {_HIERARCHY} is"
            ) from None
        self.parts: dict[str, tuple[float, float]] = {}

    def now(self) -> tuple[float, float]:
        """Give the seconds so far."""
        return int((self._group / "cpuacct.usage").read_text()) / 1e9, time.monotonic()

    def add(self, part: str, began: tuple[float, float]) -> None:
        """Count what was used since ``began`` for a part of a test."""
        ended, before = self.now(), self.parts.get(part, (0.0, 0.0))
        self.parts[part] = (before[0] + ended[0] - began[0], before[1] + ended[1] - began[1])

    def close(self) -> None:
        """Leave the group; a process that was left running keeps it."""
        (_HIERARCHY / "cgroup.procs").write_text(str(os.getpid()))
        try:
            self._group.rmdir()
        except OSError as error:
            print(f"{self._group} stays: {error.strerror}")


_KEY = pytest.StashKey[Costs]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[_KEY] = Costs()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the group."""
    config.stash[_KEY].close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Count one part of a test."""
    yield from _counted(item, "setup")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Count one part of a test."""
    yield from _counted(item, "call")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Count one part of a test."""
    yield from _counted(item, "teardown")


def _counted(item: pytest.Item, part: str) -> Generator[None, None, None]:
    costs = item.config.stash[_KEY]
    began = costs.now()
    try:
        yield
    finally:
        costs.add(f"{item.nodeid} {part}", began)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was dearest."""
    parts = config.stash[_KEY].parts
    files: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for name, (processor, clock) in parts.items():
        file = name.partition("::")[0]
        files[file] = (files[file][0] + processor, files[file][1] + clock)
    total = sum(processor for processor, _ in parts.values())
    terminalreporter.section(f"processor seconds (and the clock's): {total:.1f} in all")
    for table in (files, parts):
        dearest = sorted(table.items(), key=lambda entry: entry[1], reverse=True)[:_LISTED]
        for name, (processor, clock) in dearest:
            terminalreporter.write_line(f"{processor:8.1f} {clock:8.1f}  {name}")
        terminalreporter.write_line("")
