"""A terminal to type on, with one program of this machine in front of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_PATIENCE = 30.0


class OwnTerminal:
    """One program on a pseudo-terminal of its own; killed where it has not ended by itself."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(argv[0], list(argv), dict(env))
        self.resize(33, 101)
        self._unread = b""
        self._code: int | None = None

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size, which signals the program in front."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def enter(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._fd, text.encode())

    def wait_for(self, text: str) -> str:
        """Read until ``text`` has appeared; gives what stood before it."""
        deadline = time.monotonic() + _PATIENCE
        while text.encode() not in self._unread:
            if time.monotonic() > deadline or not self._read(deadline):
                raise AssertionError(f"{text!r} never came, but: {self._unread.decode(errors='replace')}")
        before, _, self._unread = self._unread.partition(text.encode())
        return before.decode(errors="replace")

    def exit_code(self) -> int:
        """Read to the end and give the exit code."""
        deadline = time.monotonic() + _PATIENCE
        while self._read(deadline):
            pass
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody holds the other side any more
            return False
        self._unread += data
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)
