"""The tests' own look-out for a text: it must see what stands somewhere only for a while."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.support.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = "the-text-that-must-not-be-here"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_process_and_a_new_file_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "below" / "deep"
    folder.mkdir(parents=True)
    with Watch(TEXT, tmp_path) as watch:
        with subprocess.Popen([sys.executable, "-c", "input()", TEXT], stdin=subprocess.PIPE) as child:
            wait_until(lambda: f"/proc/{child.pid}/cmdline" in watch.found)
            child.kill()
        (folder / "file").write_text(f"one {TEXT} two")
        wait_until(lambda: str(folder / "file") in watch.found)
    assert "file" in watch.files


def test_a_file_that_was_read_before_is_read_again_once_it_is_changed(tmp_path: Path) -> None:
    """Its length and time of modification are as they were; the time of its change nobody can set."""
    file = tmp_path / "file"
    file.write_text("-" * len(TEXT))
    before = file.stat()
    with Watch(TEXT, tmp_path) as watch:
        wait_until(lambda: str(file) in watch._read)
        rounds = watch.rounds
        wait_until(lambda: watch.rounds > rounds + 2)
        assert watch.found == set()
        with file.open("r+") as same:
            same.write(TEXT)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        wait_until(lambda: watch.found == {str(file)})


def test_what_is_written_at_the_end_is_seen_and_a_pipe_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with Watch(TEXT, tmp_path) as watch:
        wait_until(lambda: watch.rounds > 1)
        (tmp_path / "last").write_text(TEXT)
    assert watch.found == {str(tmp_path / "last")}
