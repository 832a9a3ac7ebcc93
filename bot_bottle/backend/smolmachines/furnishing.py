"""What root makes, mounts and takes away in a machine before anything of a launch is written there (pure).

It is told once and rendered twice: as a shell's lines for a machine of any kind, and, where programs can be
made for it, as one program of system calls. Each program that a shell starts, a dozen of them, costs its
time in every launch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bot_bottle.agent_account import AGENT_HOME, AGENT_UID, AGENT_WORKSPACE
from bot_bottle.backend.smolmachines.machine_code import Code
from bot_bottle.backend.util import AGENT_CA_DIR

if TYPE_CHECKING:
    from collections.abc import Sequence

_TMP, _LASTING_TMP = "/tmp", "/var/tmp"  # noqa: S108 - a machine's own
#: Of the engine's own: its disk, shown twice, and devices. A folder that an image has itself may stay, empty.
_NOT_THE_AGENTS = ("/workspace", "/storage")
_DEVICES = ("/dev/net/tun", "/dev/net", "/dev/fuse", "/dev/kmsg")

# <asm/unistd_64.h>, <linux/mount.h>, <fcntl.h>
_OPEN, _ACCESS, _UMASK = 2, 21, 95
_MKDIR, _RMDIR, _UNLINK, _CHMOD, _CHOWN, _MOUNT, _UMOUNT = 83, 84, 87, 90, 92, 165, 166
_NOSUID, _NODEV, _NOEXEC = 2, 4, 8
_DETACH_NOFOLLOW = 2 | 8
_WRITE_NEW = 0o1 | 0o100 | 0o200  # O_WRONLY, O_CREAT, O_EXCL


class Steps(Protocol):
    """One way to render the steps; each but ``unmount`` and ``leave`` fails the whole where it fails."""

    def folder(self, path: str) -> None:
        """Make a folder, and those above it, where they are missing."""

    def memory(self, path: str, *, mode: int, size: str, programs: bool = False) -> None:
        """Mount memory there; ``programs`` can be run from it where that is said."""

    def unmount(self, path: str) -> None:
        """Take away what is mounted there, if anything is."""

    def leave(self, path: str) -> None:
        """Take away an empty folder, if there is one."""

    def remove(self, path: str) -> None:
        """Take away a file or an empty folder; it is gone afterwards."""

    def give(self, path: str, mode: int, owner: int) -> None:
        """Give a file or folder its mode and its owner (user and group)."""

    def program(self, path: str) -> None:
        """Make an empty file that can be run once it is written."""


def furnish(
    steps: Steps,
    *,
    own: str,
    runs: str,
    tmp: str,
    programs: Sequence[str],
    fresh: bool,
    account: int = AGENT_UID,
) -> None:
    """Say what a machine has when its agent begins, to ``steps``.

    ``own`` is the bottle's own memory, in which commands name themselves in ``runs``; ``tmp`` is the size of
    ``/tmp`` in bytes; ``programs`` will be written. A ``fresh`` machine gets the home of ``account``.
    """
    for folder in (own, AGENT_CA_DIR, _TMP, _LASTING_TMP):
        steps.folder(folder)
    steps.memory(own, mode=0o755, size="8m", programs=True)
    steps.memory(AGENT_CA_DIR, mode=0o755, size="1m")
    steps.memory(_TMP, mode=0o1777, size=tmp, programs=True)
    # All of it first: below the engine's disk the whole root is mounted again, and keeps its folders in use.
    for path in (*_NOT_THE_AGENTS, *_DEVICES):
        steps.unmount(path)
    for path in _NOT_THE_AGENTS:
        steps.leave(path)
    for path in _DEVICES:
        steps.remove(path)
    steps.folder(runs)
    steps.give(runs, 0o1777, 0)
    for path in programs:
        steps.program(path)
    if fresh:
        steps.folder(AGENT_WORKSPACE)
        steps.give("/home", 0o755, 0)
        for path in (AGENT_HOME, AGENT_WORKSPACE):
            steps.give(path, 0o755, account)


class ShellSteps:
    """Renders them as lines of a POSIX shell that runs with ``set -e``."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def folder(self, path: str) -> None:
        """See :class:`Steps`."""
        self._lines.append(f"mkdir -p {path}")

    def memory(self, path: str, *, mode: int, size: str, programs: bool = False) -> None:
        """See :class:`Steps`."""
        options = f"nosuid,nodev,{'' if programs else 'noexec,'}mode={mode:o},size={size}"
        self._lines.append(f"mount -t tmpfs -o {options} tmpfs {path}")

    def unmount(self, path: str) -> None:
        """See :class:`Steps`."""
        self._lines.append(f"umount -l {path} 2>/dev/null || :")

    def leave(self, path: str) -> None:
        """See :class:`Steps`."""
        self._lines.append(f"rmdir {path} 2>/dev/null || :")

    def remove(self, path: str) -> None:
        """See :class:`Steps`."""
        self._lines.append(f"rmdir {path} 2>/dev/null || rm -f {path}")

    def give(self, path: str, mode: int, owner: int) -> None:
        """See :class:`Steps`."""
        self._lines += [f"chown {owner}:{owner} {path}", f"chmod {mode:o} {path}"]

    def program(self, path: str) -> None:
        """See :class:`Steps`."""
        self._lines += [f": >{path}", f"chmod 755 {path}"]

    def script(self) -> str:
        """Give the lines."""
        return "".join(f"{line}\n" for line in self._lines)


class ProgramSteps:
    """Renders them as a program for x86-64, which ends with 0, or with the number of the step that failed."""

    def __init__(self) -> None:
        self._code = Code()
        self._code.call(_UMASK, 0)
        self._step = 0

    def folder(self, path: str) -> None:
        """See :class:`Steps`."""
        self._begin()
        parts = path.strip("/").split("/")
        for end in range(1, len(parts) + 1):
            self._code.call(_MKDIR, self._code.text("/" + "/".join(parts[:end])), 0o755)
        self._code.must(_ACCESS, self._code.text(f"{path}/."), 0)

    def memory(self, path: str, *, mode: int, size: str, programs: bool = False) -> None:
        """See :class:`Steps`."""
        self._begin()
        kind, place = self._code.text("tmpfs"), self._code.text(path)
        flags = _NOSUID | _NODEV | (0 if programs else _NOEXEC)
        self._code.must(_MOUNT, kind, place, kind, flags, self._code.text(f"mode={mode:o},size={size}"))

    def unmount(self, path: str) -> None:
        """See :class:`Steps`."""
        self._begin()
        self._code.call(_UMOUNT, self._code.text(path), _DETACH_NOFOLLOW)

    def leave(self, path: str) -> None:
        """See :class:`Steps`."""
        self._begin()
        self._code.call(_RMDIR, self._code.text(path))

    def remove(self, path: str) -> None:
        """See :class:`Steps`."""
        self.leave(path)
        self._code.call(_UNLINK, self._code.text(path))
        self._code.must_fail(_ACCESS, self._code.text(path), 0)

    def give(self, path: str, mode: int, owner: int) -> None:
        """See :class:`Steps`."""
        self._begin()
        self._code.must(_CHOWN, self._code.text(path), owner, owner)
        self._code.must(_CHMOD, self._code.text(path), mode)

    def program(self, path: str) -> None:
        """See :class:`Steps`."""
        self._begin()
        self._code.must(_OPEN, self._code.text(path), _WRITE_NEW, 0o755)

    def remove_itself(self, path: str) -> None:
        """Remove the program's own file, which is at ``path``."""
        self._begin()
        self._code.must(_UNLINK, self._code.text(path))

    def executable(self) -> bytes:
        """Give the program."""
        self._code.end_with_step()
        return self._code.program()

    def _begin(self) -> None:
        self._step += 1
        self._code.number(self._step)
