"""Looks for a text wherever on this host it must never stand, all the while something runs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Self

from tests.support.outside import PACE


class Watch:
    """Look, again and again while a program runs, for a text in every process's arguments and in a folder."""

    def __init__(self, text: str, folder: Path) -> None:
        self._needle = text.encode()
        self._folder = folder
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
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
            self.rounds += 1
            for process in Path("/proc").iterdir():
                if process.name.isdigit():
                    self._look(process / "cmdline")
            for folder, _, names in os.walk(self._folder):  # passes over what vanishes while it walks
                for name in names:
                    self.files.add(name)
                    self._look(Path(folder, name))

    def _look(self, path: Path) -> None:
        try:
            if path.is_symlink() or not path.is_file():  # a pipe would hold this thread for ever
                return
            if self._needle in path.read_bytes():
                self.found.add(str(path))
        except OSError:  # it ended, or it was removed, between the listing and the look
            return
