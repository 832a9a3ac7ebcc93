"""Whether a machine boots here, found out by booting one; the verdict is kept until what it rests on changes.

The engine's own check says yes wherever ``/dev/kvm`` opens, also where no machine ever gets through its boot
(nested virtualisation that is half there), and trying takes seconds, or half a minute of failing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle import paths
from bot_bottle.backend.base import ProbeResult
from bot_bottle.backend.limits import EffectiveLimits
from bot_bottle.backend.smolmachines import engine, machine
from bot_bottle.errors import LaunchError, UnavailableError
from bot_bottle.files import make_private_dir, write_atomic

if TYPE_CHECKING:
    from bot_bottle.backend.base import ProbeLevel

NAME = "smolmachines"
DEVICE = Path("/dev/kvm")
_ATTEMPTS = 2
_MIB = 1 << 20
_BARE = EffectiveLimits(memory=512 * _MIB, cpus=1, processes=64, open_files=1024)


def probe() -> ProbeResult:
    """Boot a machine, unless this was found out before under the same conditions; nothing is left behind."""
    refusal = obstacle()
    if refusal is not None:
        return refusal
    key = _conditions()
    known = _recall(key)
    if known is None:
        known = try_to_boot()
        _remember(key, known)
    return known


def obstacle() -> ProbeResult | None:
    """Say what stands in the way of any machine, as far as that can be seen without starting one."""
    try:
        engine.sdk()
    except UnavailableError as error:
        detail, _, remedy = str(error).partition("; install it with: ")
        return _cannot(detail, remedy)
    try:
        mode = DEVICE.stat().st_mode
    except OSError:
        return _cannot(
            "this machine has no /dev/kvm: hardware virtualisation is off, or not passed on to this machine",
            "switch virtualisation on in the firmware (for a virtual machine: nested virtualisation), then: "
            "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
        )
    if os.geteuid() == 0 and mode & (stat.S_IROTH | stat.S_IWOTH) != stat.S_IROTH | stat.S_IWOTH:
        return _cannot(
            "root's machines run as accounts of their own, and those may not open /dev/kvm",
            "run bot-bottle as an ordinary user of the group kvm, or: chmod o+rw /dev/kvm",
        )
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return _cannot("this account may not open /dev/kvm", "sudo usermod -aG kvm $USER, then log in again")
    return None


def try_to_boot() -> ProbeResult:
    """Boot a bare machine without a network; a second try tells a bad moment from a machine that cannot."""
    words = ""
    for _ in range(_ATTEMPTS):
        identity = f"probe-{secrets.token_hex(3)[:5]}"
        settings = machine.MachineSettings(
            identity=identity, image="", limits=_BARE, processors=1, role=machine.PROBE_ROLE
        )
        try:
            tried = machine.Machine.create(settings, None)
            alive = tried.alive()
        except LaunchError as error:
            words = str(error)
        else:
            if alive:
                return ProbeResult(backend=NAME, level="ok", detail=f"works (engine {engine.version()}, KVM)")
            words = "it ended at once"
        finally:
            with contextlib.suppress(LaunchError):
                machine.delete(machine.machine_name(identity))
    if _in_a_virtual_machine():
        return _cannot(
            f"this is a virtual machine itself, and no machine boots in it: {words}",
            "run it where KVM is not nested, or take another backend",
        )
    return _cannot(f"no machine boots here: {words}", "look for kvm in: sudo dmesg")


def _cannot(detail: str, remedy: str) -> ProbeResult:
    level: ProbeLevel = "unavailable"
    return ProbeResult(backend=NAME, level=level, detail=detail, remedy=remedy)


def _in_a_virtual_machine() -> bool:
    try:
        with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as file:
            return any(line.startswith("flags") and " hypervisor" in line for line in file)
    except OSError:
        return False


def _conditions() -> str:
    """Name all that the verdict rests on: this boot of this kernel, the engine, the device, the account."""
    info = DEVICE.stat()
    facts = (
        os.uname().release,
        Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip(),
        engine.version(),
        f"{info.st_mode:o} {info.st_uid} {info.st_gid}",
        str(os.geteuid()),
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _file() -> Path:
    return paths.cache_dir() / f"{NAME}-probe.json"


def _recall(key: str) -> ProbeResult | None:
    try:
        kept = json.loads(_file().read_bytes())
        if kept["key"] == key:
            return ProbeResult(
                backend=NAME, level=kept["level"], detail=str(kept["detail"]), remedy=str(kept["remedy"])
            )
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _remember(key: str, result: ProbeResult) -> None:
    """Keep a verdict; where it cannot be kept it is found out again the next time."""
    kept = {"key": key, "level": result.level, "detail": result.detail, "remedy": result.remedy}
    with contextlib.suppress(OSError):
        make_private_dir(_file().parent)
        write_atomic(_file(), json.dumps(kept).encode())
