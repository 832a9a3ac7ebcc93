"""What a program in a bottle reads and writes, as every backend bounds and carries it."""

from __future__ import annotations

import contextlib
import io
import os
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from bot_bottle.attach.escapes import EscapeGuard
from bot_bottle.errors import LaunchError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What a process is to read: bytes, an open file, a descriptor, or nothing.
Input: TypeAlias = "bytes | BinaryIO | int | None"
#: What takes in the bytes a process wrote; ``BrokenPipeError`` says that nobody reads them any more.
Sink: TypeAlias = "Callable[[bytes], object]"

#: How much is moved at once, in bytes.
CHUNK = 1 << 16
#: The kernel takes no longer single argument (MAX_ARG_STRLEN), so no longer script.
_MAX_SCRIPT = 128 * 1024 - 1
#: A script's captured output beyond this many bytes ends it: the host's memory is not the agent's to fill.
_MAX_OUTPUT = 64 << 20


class Collector:
    """Gather a process's output; raises ``LaunchError`` for more than 64 MiB."""

    def __init__(self) -> None:
        self.data = bytearray()

    def __call__(self, data: bytes) -> None:
        """Take in what was written."""
        self.data += data
        if len(self.data) > _MAX_OUTPUT:
            raise LaunchError(
                f"a command in the bottle wrote more than {_MAX_OUTPUT >> 20} MiB; it was killed"
            )


def require_script(script: str, spare: int = 0) -> str:
    """Give ``script`` back; raises ``UsageError`` for one of 128 KiB or more, ``spare`` bytes included."""
    if len(script.encode()) + spare > _MAX_SCRIPT:
        raise UsageError(
            "a script for a bottle must be shorter than 128 KiB; send the data on its standard input"
        )
    if "\0" in script:
        raise UsageError("a script for a bottle cannot hold a NUL byte")
    return script


def cannot_run(argv: Sequence[str], number: int) -> UsageError:
    """Give the error of a program that cannot be run inside; ``number`` is its ``errno``."""
    return UsageError(f"{argv[0]} cannot be run in the bottle: {os.strerror(number)}")


def descriptor_sink(fd: int) -> Sink:
    """Give a sink that writes all it is given to ``fd``.

    To a terminal, it writes nothing that reaches beyond the screen or that would be answered: there is nobody
    to hear an answer but the operator's shell.
    """
    guard = EscapeGuard(quiet=True) if os.isatty(fd) else None

    def write(data: bytes) -> None:
        view = memoryview(data if guard is None else guard.feed(data))
        while view:
            view = view[os.write(fd, view) :]

    return write


class Source:
    """What a process is to read, taken a chunk at a time by a loop that polls.

    ``fd`` is the descriptor to poll before :meth:`fill`, or -1 where filling never waits. ``pending`` is what
    was taken in and is still to be delivered; ``ended`` says that there will be no more than that.
    """

    def __init__(self, given: Input) -> None:
        self.pending = memoryview(given if isinstance(given, bytes) else b"")
        self.ended = given is None or isinstance(given, bytes)
        self.fd = given if isinstance(given, int) else -1
        self._file = None if given is None or isinstance(given, bytes | int) else given
        if self._file is not None:
            with contextlib.suppress(io.UnsupportedOperation, AttributeError):
                self.fd = self._file.fileno()

    def fill(self) -> None:
        """Take in the next chunk, or find the end."""
        if self._file is None:
            data = read_some(self.fd) or b""
        else:
            # One read of what is there: never waits for a full chunk.
            read = getattr(self._file, "read1", self._file.read)
            data = read(CHUNK)
        self.ended = not data
        self.pending = memoryview(data)


def read_some(fd: int) -> bytes | None:
    """Read one chunk; empty at the end, None where there is nothing now."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None
    except OSError:  # a terminal whose other side is gone answers EIO
        return b""
