"""A control group from the user's own systemd, for sessions whose group is not delegated (a plain login).

The user's manager makes a scope around a process that already exists and bounds it; it removes the scope by
itself when its last process ends, so nothing of it can be left over.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import process
from bot_bottle.errors import LaunchError

if TYPE_CHECKING:
    from subprocess import CompletedProcess

    from bot_bottle.backend.bubblewrap.cgroup import CgroupLimits

_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_SECONDS = 5.0
_USEC = 1_000_000


def manager_controllers(top: str) -> tuple[str, ...]:
    """List what the user's manager may bound below the version 2 hierarchy at ``top``, if there is one."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if not runtime or not Path(runtime, "bus").is_socket() or shutil.which("busctl") is None:
        return ()
    uid = os.getuid()
    controllers = Path(top, f"user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers")
    try:
        return tuple(controllers.read_text().split())
    except OSError:
        return ()


def unit_name(identity: str) -> str:
    """Give the name of a bottle's scope."""
    return f"bot-bottle-{identity}.scope"


def scope_call(unit: str, pid: int, limits: CgroupLimits, *, keep_on_oom: bool) -> tuple[str, ...]:
    """Give the arguments of the manager's ``StartTransientUnit`` (org.freedesktop.systemd1(5)).

    With ``keep_on_oom`` a process that the kernel kills for memory does not take the scope with it.
    """
    properties: list[tuple[str, ...]] = [
        ("PIDs", "au", "1", str(pid)),
        ("CollectMode", "s", "inactive-or-failed"),
    ]
    if keep_on_oom:
        properties.append(("OOMPolicy", "s", "continue"))
    if limits.memory is not None:
        properties += [("MemoryMax", "t", str(limits.memory)), ("MemorySwapMax", "t", "0")]
    if limits.pids is not None:
        properties.append(("TasksMax", "t", str(limits.pids)))
    if limits.cpus is not None:
        properties.append(("CPUQuotaPerSecUSec", "t", str(int(limits.cpus * _USEC))))
    flat = [word for one in properties for word in one]
    return ("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", str(len(properties)), *flat, "0")


def enter_scope(pid: int, identity: str, limits: CgroupLimits) -> None:
    """Put process ``pid`` into a scope of its own; raises ``LaunchError`` with the manager's words."""
    unit = unit_name(identity)
    result = _call(scope_call(unit, pid, limits, keep_on_oom=True))
    if result.returncode != 0 and b"OOMPolicy" in result.stderr:
        # Managers that do not know the setting for scopes do not stop them either.
        result = _call(scope_call(unit, pid, limits, keep_on_oom=False))
    if result.returncode != 0:
        words = process.first_line(result.stderr, "no reason given")
        raise LaunchError(f"systemd did not make the bottle's scope: {words}")
    deadline = time.monotonic() + _SECONDS
    while unit not in Path(f"/proc/{pid}/cgroup").read_text():
        if time.monotonic() > deadline:
            raise LaunchError("systemd did not put the bottle into its scope in time")
        time.sleep(0.001)


def _call(arguments: tuple[str, ...]) -> CompletedProcess[bytes]:
    return process.run(
        ["busctl", "--user", "--quiet", "call", *_MANAGER, *arguments],
        env={name: os.environ[name] for name in ("PATH", "XDG_RUNTIME_DIR") if name in os.environ},
        timeout=_SECONDS,
    )
