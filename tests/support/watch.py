"""Looks for a text wherever on this host it must never stand, all the while something runs."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path
from typing import Self

from tests.support.outside import PACE

#: A file's time of change is as fine as the kernel's ticks, at most 10 ms (clock_getres(2), COARSE clocks).
#: One that was changed this long before a look, in nanoseconds, shows each later change by its time.
_SETTLED = 200_000_000


class Watch:
    """Look, again and again while a program runs, for a text in every process's arguments and in a folder."""

    def __init__(self, text: str, folder: Path) -> None:
        self._needle = text.encode()
        self._folder = folder
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._read: dict[str, tuple[int, ...]] = {}
        self.found: set[str] = set()
        self.rounds = 0
        self.files: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.05 * PACE):
            self._round()
        self._read.clear()  # what is written through a mapping may not show by its time; see mmap(2)
        self._round()

    def _round(self) -> None:
        self.rounds += 1
        for process in os.listdir("/proc"):  # noqa: PTH208 - some hundred names, twenty times a second
            if process.isdigit():
                self._look(f"/proc/{process}/cmdline")
        for folder, _, names in os.walk(self._folder):  # passes over what vanishes while it walks
            for name in names:
                self.files.add(name)
                self._look_at_file(f"{folder}/{name}")

    def _look_at_file(self, path: str) -> None:
        """Look into a regular file, unless that was done since it was changed (stat(2), ``st_ctim``)."""
        try:
            about = os.lstat(path)
        except OSError:
            return
        if not stat.S_ISREG(about.st_mode):  # a pipe would hold this thread for ever
            return
        state = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        if self._read.get(path) == state:
            return
        self._read.pop(path, None)
        settled = about.st_ctime_ns + _SETTLED < time.time_ns()
        if self._look(path) and settled:
            self._read[path] = state

    def _look(self, path: str) -> bool:
        """Tell whether the file could be read."""
        try:
            content = Path(path).read_bytes()
        except OSError:  # it ended, or it was removed, between the listing and the look
            return False
        if self._needle in content:
            self.found.add(path)
        return True
