"""Files into and out of a bottle, as tar streams that ``tar`` inside and this module outside agree on.

The host never opens a path inside the bottle: what goes in is unpacked by a process of the bottle, what
comes out is an archive made by a hostile party and is unpacked member by member within bounds.
"""

from __future__ import annotations

import fcntl
import io
import os
import tarfile
import threading
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol

from bot_bottle.backend.unpack import unpack
from bot_bottle.errors import LaunchError, UsageError
from bot_bottle.files import remove_tree
from bot_bottle.hostile_tar import BoundedMember

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bot_bottle.backend.base import ExecResult

_SET_ID_BITS = 0o7000
_PIPE_BYTES = 1024 * 1024

# In letters that GNU's, busybox's and BSD's tar all have: modes as they are, owners as the one who unpacks.
UNPACK = "tar -xpof -"
#: GNU's reads 10 KiB at a time otherwise; the others have no such variable.
_LARGE_READS = "export TAR_OPTIONS=--blocking-factor=512"
_PACK = "tar -cf -"


class Streams(Protocol):
    """A bottle, as far as copying needs it."""

    def exec_stream(self, script: str, *, stdin: BinaryIO | None, stdout: BinaryIO | None) -> ExecResult:
        """Run ``script`` inside with its standard streams connected to the given binary files."""
        ...


def send_archive(bottle: Streams, guest_dir: str, write: Callable[[tarfile.TarFile], None]) -> None:
    """Unpack inside ``guest_dir`` (made if missing) the archive that ``write`` fills; raises as below."""

    def produce(sink: BinaryIO) -> None:
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            write(archive)

    send_stream(bottle, guest_dir, produce)


def send_stream(bottle: Streams, guest_dir: str, write: Callable[[BinaryIO], None]) -> None:
    """Unpack inside ``guest_dir`` (made if missing) the tar archive that ``write`` writes to a pipe.

    The archive is streamed, never held whole. Raises ``LaunchError`` with tar's own words when it fails.
    """
    read_end, write_end = os.pipe()
    with suppress(OSError):  # an account's pipes are bounded together; it is only slower then
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    failure: list[BaseException] = []

    def produce() -> None:
        try:
            with os.fdopen(write_end, "wb") as sink:
                write(sink)
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread
            failure.append(error)

    producer = threading.Thread(target=produce, name="bot-bottle-archive", daemon=True)
    target = quote(guest_dir)
    with os.fdopen(read_end, "rb") as source:
        producer.start()
        result = bottle.exec_stream(
            f"{_LARGE_READS}; mkdir -p -- {target} && exec {UNPACK} -C {target}",
            stdin=source,
            stdout=None,
        )
    producer.join()
    broken_pipe_only = all(isinstance(error, BrokenPipeError) for error in failure)
    if failure and not (broken_pipe_only and result.returncode != 0):
        raise failure[0]
    if result.returncode != 0:
        raise LaunchError(
            f"tar inside the bottle failed: {result.stderr.decode('utf-8', 'replace')[:400].strip()}"
        )


def cp_in(bottle: Streams, host: Path, guest: str) -> None:
    """Copy ``host`` (file or folder, links as links) to the absolute path ``guest``."""
    place = _absolute(guest)
    if not os.path.lexists(host):
        raise UsageError(f"{host}: no such file or folder to copy into the bottle")

    def write(archive: tarfile.TarFile) -> None:
        archive.add(host, arcname=place.name, filter=_as_agent)

    send_archive(bottle, str(place.parent), write)


def cp_out(bottle: Streams, guest: str, host: Path) -> None:
    """Copy ``guest`` out to the new path ``host``; raises ``UsageError`` where ``host`` exists already.

    Links that lead out of the copied tree, devices, sockets and set-id bits do not come out.
    """
    place = _absolute(guest)
    if os.path.lexists(host):
        raise UsageError(f"{host} exists already; name a new path to copy to")
    read_end, write_end = os.pipe()
    failure: list[BaseException] = []
    staging = host.with_name(f".{host.name}.partial-{os.getpid()}")
    staging.mkdir(mode=0o700)

    def consume() -> None:
        try:
            with (
                os.fdopen(read_end, "rb") as source,
                tarfile.open(fileobj=source, mode="r|", tarinfo=BoundedMember) as archive,
            ):
                unpack(archive, staging)
                while source.read(1 << 16):  # let tar inside end by itself, not by a broken pipe
                    pass
        except BaseException as error:  # noqa: BLE001 - carried over to the calling thread
            failure.append(error)

    consumer = threading.Thread(target=consume, name="bot-bottle-archive", daemon=True)
    consumer.start()
    try:
        with os.fdopen(write_end, "wb") as sink:
            result = bottle.exec_stream(
                f"exec {_PACK} -C {quote(str(place.parent))} -- {quote(place.name)}",
                stdin=None,
                stdout=sink,
            )
        consumer.join()
        if result.returncode != 0:
            words = result.stderr.decode("utf-8", "replace")[:400].strip()
            raise UsageError(f"{guest} could not be copied out of the bottle: {words}")
        if failure:
            raise LaunchError(f"{guest} could not be copied out of the bottle: {failure[0]}") from failure[0]
        source = staging / place.name
        if not os.path.lexists(source):
            raise LaunchError(f"{guest} could not be copied out of the bottle: it is neither file nor folder")
        source.rename(host)
    finally:
        remove_tree(staging)


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    """Add one file of known content to an archive that :func:`send_archive` streams."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    member.mode = mode
    archive.addfile(member, io.BytesIO(content))


def quote(text: str) -> str:
    """Quote one word for a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _absolute(guest: str) -> PurePosixPath:
    place = PurePosixPath(guest)
    if not place.is_absolute() or ".." in place.parts or not place.name or "\0" in guest:
        raise UsageError(f"{guest!r}: paths inside a bottle are absolute and without '..'")
    return place


def _as_agent(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode &= ~_SET_ID_BITS
    return member
