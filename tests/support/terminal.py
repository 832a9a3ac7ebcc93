"""A terminal to type on, with a program of the scripted world in front of it.

``python -m tests.support.terminal DEVICE FOLDER PROGRAM...`` makes the terminal ``DEVICE`` its controlling
one, puts it on its standard streams, enters ``FOLDER`` and becomes ``PROGRAM``.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from typing import TYPE_CHECKING, Any, Self

from tests.support.outside import PACE, REPO

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.support.outside import Account, World

PATIENCE = 60.0 * PACE
#: When a person presses a key again that seems not to have been heard, in seconds.
_AGAIN_SECONDS = 5.0 * PACE


class Terminal:
    """One program on a pseudo-terminal of its own."""

    def __init__(
        self, world: World, argv: list[str], *, account: Account, env: Mapping[str, str], cwd: Path
    ) -> None:
        self._world = world
        self._master, self._slave = pty.openpty()
        self.resize(33, 101)
        self.before: list[Any] = termios.tcgetattr(self._slave)
        device = os.ttyname(self._slave)
        if os.getuid() == 0:
            os.chown(device, account.uid, -1)
        self._unread = b""
        self._code: int | None = None
        # Python finds this module by the working folder; the program's own folder is entered afterwards.
        self.pid: int = world.call(
            "spawn",
            argv=[sys.executable, "-m", "tests.support.terminal", device, str(cwd), *argv],
            env={**env, "TERM": "xterm"},
            cwd=str(REPO),
            uid=account.uid,
            log=os.devnull,
        )

    def settings(self) -> list[Any]:
        """Give the terminal's settings as they are now (termios(3))."""
        return termios.tcgetattr(self._slave)

    def resize(self, rows: int, columns: int) -> None:
        """Change the terminal's size, which signals the program in front."""
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def enter(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> str:
        """Read until ``text`` has appeared; gives what stood before it."""
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self._unread:
            ended = self._has_ended()  # asked before reading, so that its last words are read
            if not self._read(time.monotonic() + 0.5) and (ended or time.monotonic() > deadline):
                raise AssertionError(f"{text!r} never came, but: {self._unread.decode(errors='replace')}")
        before, _, self._unread = self._unread.partition(text.encode())
        return before.decode(errors="replace")

    def comes(self, text: str, seconds: float) -> bool:
        """Tell whether ``text`` appears within ``seconds``; it stays to be waited for."""
        deadline = time.monotonic() + seconds
        while text.encode() not in self._unread:
            if not self._read(deadline) and time.monotonic() > deadline:
                return False
        return True

    def signal(self, number: int) -> None:
        """Send the program in front a signal."""
        self._world.call("kill", pid=self.pid, number=number)

    def interrupt(self) -> int:
        """Press Ctrl-C until the program ends, as a person does; gives its exit code.

        Python hears of a signal that comes in the instant before it begins to read only when it has read.
        """
        deadline = time.monotonic() + PATIENCE
        while self._code is None:
            assert time.monotonic() < deadline, f"it does not end; unread: {self._unread!r}"
            self.enter("\x03")
            pressed = time.monotonic()
            while not self._has_ended() and time.monotonic() < pressed + _AGAIN_SECONDS:
                self._read(time.monotonic() + 0.05)
        return self._code

    def exit_code(self) -> int:
        """Read to the end and give the exit code, negative for a signal."""
        deadline = time.monotonic() + PATIENCE
        while self._code is None:
            assert time.monotonic() < deadline, f"it does not end; unread: {self._unread!r}"
            self._read(time.monotonic() + 0.05)
            self._has_ended()
        return self._code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._has_ended():
            self.signal(signal.SIGKILL)
            self._world.call("wait", pid=self.pid, timeout=10)
        os.close(self._slave)
        os.close(self._master)

    def _has_ended(self) -> bool:
        if self._code is None:
            self._code = self._world.call("wait", pid=self.pid, timeout=0)
        return self._code is not None

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        self._unread += os.read(self._master, 65536)
        return True


def _become(device: str, folder: str, argv: list[str]) -> None:
    # The first terminal that a session's leader opens becomes its controlling one (credentials(7)).
    terminal = os.open(device, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(terminal, stream)
    os.close(terminal)
    os.chdir(folder)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    _become(sys.argv[1], sys.argv[2], sys.argv[3:])
