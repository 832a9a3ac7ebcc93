"""What of one launch exists, as the host sees it: processes, and the containers an engine keeps for it."""

from __future__ import annotations

import contextlib
import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.engine import engine_api
from tests.support.outside import PACE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.lab import Lab

_PATIENCE = 60.0 * PACE
_IDENTITY_LABEL = "bot-bottle.identity"
_ROLE_LABEL = "bot-bottle.role"


class Family:
    """All processes that belong to a launch at the moment this is made, held so that no number is reused."""

    def __init__(self, lab: Lab, launcher: int, identity: str) -> None:
        self._lab = lab
        self.identity = identity
        self.pids: list[int] = [launcher, *descendants(launcher)]
        for container in containers(lab, identity):
            self.pids += _processes_of(lab, container["Id"])
        self._handles: dict[int, int] = {}
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                self._handles[pid] = os.pidfd_open(pid)

    def sidecar(self) -> int:
        """Give the process that is this launch's sidecar."""
        for container in containers(self._lab, self.identity, "sidecar"):
            return _processes_of(self._lab, container["Id"])[0]
        for pid in self.pids:
            if b"bot_bottle.sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        raise AssertionError("the launch has no sidecar")

    def below(self) -> list[int]:
        """Give all but the launcher."""
        return self.pids[1:]

    def wait_until_gone(self) -> None:
        """Wait until neither a process nor a container is left."""
        deadline = time.monotonic() + _PATIENCE
        for pid, handle in self._handles.items():
            ready = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]
            assert ready, f"process {pid} lives on: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}"
        wait_until(
            lambda: containers(self._lab, self.identity) == [], f"no container of {self.identity} is left"
        )

    def close(self) -> None:
        """Let go of the processes."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def descendants(pid: int) -> list[int]:
    """List every process below ``pid``; one that ends meanwhile has no more children."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def is_machine(pid: int) -> bool:
    """Tell whether a process is a virtual machine's monitor."""
    try:
        return b"_boot-vm" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def containers(lab: Lab, identity: str = "", role: str = "") -> list[dict[str, Any]]:
    """List a launch's containers (or all of ours), running or not; none where the backend has no engine."""
    if not lab.engine_host:
        return []
    labels = [f"{_IDENTITY_LABEL}={identity}" if identity else _IDENTITY_LABEL]
    labels += [f"{_ROLE_LABEL}={role}"] if role else []
    with engine_api(lab.engine_host) as api:
        found: list[dict[str, Any]] = api.containers(all=True, filters={"label": labels})
    return found


def volumes(lab: Lab, identity: str) -> list[str]:
    """Name the volumes of a launch; none where the backend has no engine."""
    if not lab.engine_host:
        return []
    with engine_api(lab.engine_host) as api:
        found = api.volumes(filters={"label": f"{_IDENTITY_LABEL}={identity}"})["Volumes"] or []
    return [volume["Name"] for volume in found]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = _PATIENCE) -> None:
    """Wait until something has become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come true: {what}"
        time.sleep(0.01)


def _processes_of(lab: Lab, container: str) -> list[int]:
    from docker.errors import APIError  # noqa: PLC0415 - most tests need no engine

    with engine_api(lab.engine_host) as api, contextlib.suppress(APIError):  # it may have ended meanwhile
        first = api.inspect_container(container)["State"]["Pid"]
        return [first, *descendants(first)] if first else []
    return []
