"""The launcher's side of a bottle's PID 1: ask for processes, hear how they end.

What arrives here was sent from inside a bottle and is believed in nothing: messages are short, checked, and
anything unexpected is an error. See ``init.py`` for the other side.
"""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import socket
import stat
import struct
import termios
from typing import TYPE_CHECKING

from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_READY = b"ready"
_SPAWN = b"spawn"
_MAX_MESSAGE = 4096
_ANSWER_SECONDS = 30.0
# Not in Python's termios; the number is the generic one (x86, ARM, RISC-V).
_TIOCGPTN = 0x80045430
_GONE = "the bottle is gone: its first process has ended"


class BottleInit:
    """A running bottle's PID 1. Safe to use from several threads: every request has its own status socket."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def ready(self, timeout: float = 0.0) -> bool:
        """Wait up to ``timeout`` seconds for PID 1's first word; False where it did not come.

        Raises ``LaunchError`` where the channel ended or said something else.
        """
        if not _readable(self._channel, timeout):
            return False
        try:
            message = self._channel.recv(_MAX_MESSAGE)
        except OSError as error:
            raise LaunchError(_GONE) from error
        if message != _READY:
            raise LaunchError(_GONE)
        return True

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        *,
        stdio: tuple[int, int, int] | None = None,
        size: tuple[int, int] | None = None,
    ) -> BottleProcess:
        """Start ``argv`` inside, on the given descriptors or on a new terminal of ``size`` (rows, columns).

        Raises ``LaunchError`` where the bottle is gone, ``FileNotFoundError``, ``PermissionError`` or another
        ``OSError`` where the program cannot be run inside.
        """
        request = {"argv": list(argv), "env": dict(env), "cwd": cwd, "tty": size}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.memfd_create("request", os.MFD_CLOEXEC)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(json.dumps(request, ensure_ascii=True).encode())
            fds = [memory, theirs.fileno(), *(stdio or ())]
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
            self._channel.sendmsg([_SPAWN], [rights])
        except OSError as error:
            ours.close()
            raise LaunchError(_GONE) from error
        finally:
            theirs.close()
            os.close(memory)
        process = BottleProcess(ours)
        try:
            process.await_start(terminal=size is not None)
        except BaseException:
            process.close()
            raise
        return process

    def close(self) -> None:
        """End PID 1, and with it the bottle."""
        self._channel.close()


class BottleProcess:
    """One process inside. ``master`` is its terminal's other end, or -1."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self.master = -1
        self.returncode: int | None = None

    def fileno(self) -> int:
        """Give the descriptor that becomes readable when the process has ended."""
        return self._status.fileno()

    def await_start(self, *, terminal: bool) -> None:
        """Read the answer to the request; raises what :meth:`BottleInit.spawn` says."""
        event, fds = self._next(_ANSWER_SECONDS)
        try:
            if event.get("event") == "failed":
                number = event.get("errno")
                number = number if isinstance(number, int) and 0 < number < 4096 else errno.EIO
                raise OSError(number, os.strerror(number))
            if event.get("event") != "started" or len(fds) != terminal:
                raise LaunchError(_GONE)
            if terminal and not is_terminal_master(fds[0]):
                raise LaunchError("what came out of the bottle as a terminal is none; it was not used")
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        if terminal:
            self.master = fds[0]

    def wait(self, timeout: float | None = None) -> int | None:
        """Give the exit code (128 + N for signal N), or None where ``timeout`` seconds were not enough.

        Raises ``LaunchError`` where the bottle ended first.
        """
        while self.returncode is None:
            if not _readable(self._status, timeout):
                return None
            event, fds = self._next(0.0)
            for fd in fds:
                os.close(fd)
            code = event.get("code")
            if event.get("event") != "exit" or type(code) is not int or not 0 <= code <= 255:
                raise LaunchError(_GONE)
            self.returncode = code
        return self.returncode

    def kill(self) -> None:
        """Kill the process and everything in its session; its end is still reported."""
        try:
            self._status.send(b"kill")
        except OSError:
            return  # it has ended already

    def resize(self, rows: int, columns: int) -> None:
        """Give the process's terminal another size."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def close(self) -> None:
        """Let go of the process; if it still runs, PID 1 kills its session."""
        self._status.close()
        if self.master >= 0:
            os.close(self.master)
            self.master = -1

    def _next(self, timeout: float) -> tuple[dict[str, object], list[int]]:
        if not _readable(self._status, timeout):
            raise LaunchError("the bottle's first process does not answer")
        fds = array.array("i")
        try:
            data, ancillary, flags, _address = self._status.recvmsg(
                _MAX_MESSAGE, socket.CMSG_SPACE(fds.itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise LaunchError(_GONE) from error
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        try:
            event = json.loads(data) if data and not flags & socket.MSG_TRUNC else None
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            for fd in fds:
                os.close(fd)
            raise LaunchError(_GONE)
        return event, list(fds)


def is_terminal_master(fd: int) -> bool:
    """Tell whether ``fd`` is the master end of a pseudo-terminal: the device 5:2 that knows its number."""
    info = os.fstat(fd)
    if not stat.S_ISCHR(info.st_mode) or (os.major(info.st_rdev), os.minor(info.st_rdev)) != (5, 2):
        return False
    try:
        fcntl.ioctl(fd, _TIOCGPTN, b"\0" * 4)
    except OSError:
        return False
    return True


def _readable(sock: socket.socket, timeout: float | None) -> bool:
    if sock.fileno() < 0:
        raise LaunchError(_GONE)
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(None if timeout is None else max(0, int(timeout * 1000))))
