"""E1-E7: out of what isolates, past the read-only files, around the system call filter."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.verify import inside
from bot_bottle.verify.case import Case, Finding, broken, held, not_run

if TYPE_CHECKING:
    from bot_bottle.verify.stage import Stage


def _namespaces(stage: Stage) -> Finding:
    if stage.backend.own_kernel:
        return _kernel(stage)
    if stage.bottle.user_space_kernel:
        return _user_space_kernel(stage)
    names = ("mnt", "pid", "ipc", "uts", "net")
    code = "tell(**{name: os.readlink('/proc/self/ns/' + name) for name in names})"
    told = inside.run(stage.bottle, code, names=names)
    own = {name: str(Path("/proc/self/ns", name).readlink()) for name in names}
    if shared := [name for name in names if told[name] == own[name]]:
        return broken(f"shared with the launcher: {', '.join(shared)}")
    return held(f"its own: {', '.join(names)}")


def _kernel(stage: Stage) -> Finding:
    """Another kernel numbers its namespaces for itself; that it is another, its boot shows (random(4))."""
    place = "/proc/sys/kernel/random/boot_id"
    told = inside.run(stage.bottle, "tell(boot=open(place).read())", place=place)
    if told["boot"] == Path(place).read_text("ascii"):
        return broken("it shares this machine's kernel")
    return held("a kernel of its own, booted for this bottle")


def _user_space_kernel(stage: Stage) -> Finding:
    """One in user space has no such file; its version shows it, which no image can change."""
    place = "/proc/version"
    told = inside.run(stage.bottle, "tell(version=open(place).read())", place=place)
    if told["version"] == Path(place).read_text("utf-8", "replace"):
        return broken("it shares this machine's kernel")
    return held("of a kernel of its own in user space")


def _processes(stage: Stage) -> Finding:
    code = """
commands = []
for name in os.listdir("/proc"):
    if name.isdigit():
        try:
            commands.append(open(f"/proc/{name}/cmdline").read().replace("\\0", " "))
        except OSError:
            pass
tell(commands=commands)
"""
    commands = inside.run(stage.bottle, code)["commands"]
    if any("bot_bottle.sidecar" in one or "verify" in one.split() for one in commands):
        return broken("processes of the host are seen")
    return held(f"{len(commands)} processes are seen, all its own")


_SWITCHES = [
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname",
    "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/sys/fs/cgroup/release_agent",
    "/sys/kernel/uevent_helper", "/proc/1/oom_score_adj", "/proc/1/mem",
]  # fmt: skip

_WRITE = """
import shutil, stat
done = []
for path in switches:
    try:
        with open(path, "w") as file:
            file.write("|/tmp/x")
        done.append(path)
    except OSError:
        pass
for root, name in [(r, n) for r in ("/sys/fs/cgroup",) for n in (os.listdir(r) if os.path.isdir(r) else [])]:
    try:
        os.mkdir(os.path.join(root, name, "new"))
        done.append(os.path.join(root, name, "new"))
    except OSError:
        pass
devices = []
for name in os.listdir("/dev"):
    mode = os.lstat("/dev/" + name).st_mode
    if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and name not in harmless):
        devices.append(name)
with open("/tmp/control", "w") as file:
    file.write("x")
tell(done=done, devices=devices)
"""

_HARMLESS = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"]
#: gVisor's is a device of its own kernel, always there; to mount with it takes root, which is tried apart.
_HARMLESS_IN_GVISOR = ["fuse"]


def _switches(stage: Stage) -> Finding:
    harmless = _HARMLESS + (_HARMLESS_IN_GVISOR if stage.bottle.user_space_kernel else [])
    told = inside.run(stage.bottle, _WRITE, switches=_SWITCHES, harmless=harmless)
    if told["done"]:
        return broken(f"written: {', '.join(told['done'])}")
    if told["devices"]:
        return broken(f"devices: {', '.join(told['devices'])}")
    return held(f"{len(_SWITCHES)} switches not writable; devices: the harmless ones")


_READ_ONLY = [
    "/new", "/usr/new", "/usr/bin/new", "/etc/new", "/etc/passwd", "/etc/resolv.conf", "/etc/hosts",
    "/etc/ld.so.preload", "/etc/ssl/certs/ca-certificates.crt", "/opt/bot-bottle/new", "/home/new",
]  # fmt: skip

_CHANGE = """
import subprocess
def look(path):
    parent = os.path.dirname(path)
    try:
        content = open(path, "rb").read()
    except OSError:
        content = b""
    return content.hex() + " ".join(sorted(os.listdir(parent) if os.path.isdir(parent) else []))
changed = []
for path in paths:
    parent = os.path.dirname(path)
    before = look(path)
    for script in (
        f"echo x >> {path}",
        f"rm -rf {path}; ln -sf /tmp/x {path}",
        f"mv {parent} {parent}.moved && mkdir -p {parent}",
        f"echo x > /proc/self/root{path}",
        f"cp --remove-destination /bin/sh {path}",
    ):
        none = subprocess.DEVNULL
        subprocess.run(["/bin/sh", "-c", script], stdin=none, stdout=none, stderr=none)
    if look(path) != before:
        changed.append(path)
homes = ("/tmp", os.path.expanduser("~"))
writable = all(open(os.path.join(place, "new"), "w").write("x") for place in homes)
tell(changed=changed, writable=writable)
"""


def _read_only(stage: Stage) -> Finding:
    told = inside.run(stage.bottle, _CHANGE, paths=_READ_ONLY)
    if told["changed"] and stage.backend.own_kernel:
        return not_run("a machine's system files belong to root there, and are its own")
    if told["changed"]:
        return broken(f"changed: {', '.join(told['changed'])}")
    return held(f"{len(_READ_ONLY)} places unchanged; home and /tmp can be written")


def _operators_files(stage: Stage) -> Finding:
    """Nothing of the operator's files is there, and nothing that names this machine."""
    places = [str(Path.home()), str(stage.plan.audit_path.parent.parent), "/root/.ssh", "/boot", "/mnt"]
    code = (
        "found = {}\nfor place in places:\n    try:\n        names = os.listdir(place)\n"
        "    except OSError:\n        names = []\n    if names: found[place] = names\n"
        "tell(found=found, hostname=socket.gethostname())"
    )
    told = inside.run(stage.bottle, code, places=[place for place in places if place != "/home/agent"])
    # The interpreter that runs this may lie in somebody's home: its own folder is let in, and nothing else.
    let_in = {part for path in (sys.prefix, sys.base_prefix) for part in Path(path).resolve().parts}
    found = {place: names for place, names in told["found"].items() if not let_in.issuperset(names)}
    if found:
        return broken(f"there is: {found}")
    if told["hostname"] == os.uname().nodename:
        return broken("it has this machine's name")
    return held("not there; the host's name is not told")


# Numbers of <asm/unistd_64.h>; those from 424 on are the same on every architecture.
_X86_64 = {
    "mount": 165, "umount2": 166, "pivot_root": 155, "swapon": 167, "unshare": 272, "setns": 308,
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "perf_event_open": 298,
    "keyctl": 250, "add_key": 248, "request_key": 249, "userfaultfd": 323, "kexec_load": 246,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "reboot": 169, "acct": 163,
    "open_by_handle_at": 304, "name_to_handle_at": 303, "kcmp": 312, "syslog": 103, "settimeofday": 164,
    "clock_settime": 227, "iopl": 172, "ioperm": 173,
}  # fmt: skip
_GENERIC = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
}  # fmt: skip

_CALLS = """
told = {name: syscall(number, 0, 0, 0, 0, 0) for name, number in calls.items()}
import platform
unshare = {"x86_64": 272, "aarch64": 97}[platform.machine()]
for name, flag in flags.items():
    told["unshare " + name] = syscall(unshare, flag)
    args = struct.pack("=8Q", flag, 0, 0, 0, 17, 0, 0, 0)
    child = libc.syscall(ctypes.c_long(435), args, ctypes.c_long(len(args)))
    if child == 0:
        os._exit(0)
    told["clone3 " + name] = "ok" if child > 0 else errno.errorcode[ctypes.get_errno()]
import fcntl, pty
master, slave = pty.openpty()
for name, number in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
    try:
        fcntl.ioctl(slave, number, b"x")
        told[name] = "ok"
    except OSError as error:
        told[name] = errno.errorcode[error.errno]
tell(**told)
"""

_FLAGS = {"NEWNS": 0x20000, "NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000}

# Each call in a process of its own, since a filter may also end who makes it.
_X32 = """
told = {}
for name, number in calls.items():
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, syscall(0x40000000 | number, 0, 0, 0, 0, 0).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    told[name] = os.read(reading, 100).decode() or "ended"
    os.close(reading)
tell(**told)
"""


def _calls(stage: Stage) -> Finding:
    calls = {**(_X86_64 if platform.machine() == "x86_64" else {}), **_GENERIC}
    told = inside.run(stage.bottle, _CALLS, calls=calls, flags=_FLAGS)
    if stage.bottle.user_space_kernel:
        return _calls_in_user_space(told)
    if got := [name for name, end in told.items() if end not in {"EPERM", "ENOSYS", "EACCES", "EIO"}]:
        return broken(f"{got[0]}: {told[got[0]]}")
    return held(f"{len(told)} calls refused")


#: What a kernel in user space lets anybody do in it; what the root that this makes can do, E1 A12 tries.
_ITS_OWN = frozenset({"unshare", *(f"unshare {name}" for name in _FLAGS), "ptrace"})


def _calls_in_user_space(told: dict[str, str]) -> Finding:
    """No filter of ours stands before it: what counts is that calls come to nothing."""
    if got := [name for name, end in told.items() if end == "ok" and name not in _ITS_OWN]:
        return broken(f"{got[0]}: {told[got[0]]}")
    return held(f"{len(told)} calls: refused, or kept to a kernel of its own in user space")


def _x32(stage: Stage) -> Finding:
    if platform.machine() != "x86_64":
        return not_run("x32 exists on x86_64 only")
    calls = dict(
        zip(
            ("socket", "mount", "unshare", "bpf", "ptrace", "getpid"),
            (41, 165, 272, 321, 101, 39),
            strict=True,
        )
    )
    told = inside.run(stage.bottle, _X32, calls=calls)
    if got := [name for name, end in told.items() if end not in {"EPERM", "ENOSYS", "ended"}]:
        return broken(f"{got[0]}: {told[got[0]]}")
    return held(f"{len(told)} calls refused")


def _trace(stage: Stage) -> Finding:
    code = """
import platform
ptrace = {"x86_64": 101, "aarch64": 117}[platform.machine()]
told = {"attach": syscall(ptrace, 16, 1, 0, 0)}
def descriptors(place):
    "Open what is told of; that there is one, gVisor's kernel tells everybody."
    names = [name for name in os.listdir(place) if os.readlink(f"{place}/{name}") != "/dev/null"]
    return [open(f"{place}/{name}", "rb") for name in names] or names
for name, reader in {"mem": lambda p: open(p, "rb").read(1), "root": os.readlink, "fd": descriptors}.items():
    try:
        reader("/proc/1/" + name)
        told[name] = "read"
    except OSError as error:
        told[name] = errno.errorcode[error.errno]
for number in (9, 15, 19):
    try:
        os.kill(1, number)
    except OSError:
        pass
tell(**told)
"""
    told = inside.run(stage.bottle, code)
    if got := [name for name, end in told.items() if end not in {"EPERM", "EACCES", "ENOSYS"}]:
        return broken(f"PID 1: {got[0]}: {told[got[0]]}")
    inside.run(stage.bottle, "tell(alive=True)")
    return held("not traced, not read, not ended")


CASES = (
    Case(id="E1", title="namespaces", expected="the bottle's own", run=_namespaces),
    Case(id="E1", title="other processes", expected="not seen", run=_processes),
    Case(
        id="E1",
        title="the kernel's switches, control groups, devices",
        expected="not writable, not there",
        run=_switches,
    ),
    Case(
        id="E1 C8", title="the operator's files, the host's name", expected="not there", run=_operators_files
    ),
    Case(id="E5", title="what is read-only, by any path to it", expected="unchanged", run=_read_only),
    Case(
        id="E7",
        title="dangerous system calls, namespaces, io_uring, TIOCSTI",
        expected="refused by the filter",
        run=_calls,
    ),
    Case(id="E7", title="the same by x32 numbers", expected="refused by the filter", run=_x32),
    Case(id="A12", title="tracing, reading, ending PID 1", expected="refused", run=_trace),
)
