"""E1, E5, E7: out of the namespaces, past the read-only files, around the system call filter."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bot_bottle.verify.becoming_root import BECOME, packets
from tests.attacks import inside
from tests.support.outside import BASE_PYTHON, REPO, new_marker

if TYPE_CHECKING:
    from tests.support.lab import Lab, RunningBottle
    from tests.support.outside import World

pytestmark = [pytest.mark.integration, pytest.mark.attack]

only_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 and i386 exist on x86_64 only")


def test_e1_every_namespace_is_the_bottles_own(bottle: RunningBottle, backend: str) -> None:
    names = ["mnt", "pid", "ipc", "uts", "cgroup", "net"]
    if backend != "docker":  # an engine has one user namespace for all its containers (userns-remap), or none
        names.append("user")
    script = "; ".join(f"readlink /proc/self/ns/{name}" for name in names)
    own = bottle.sh(script).out.split()
    host = [str(Path("/proc/self/ns", name).readlink()) for name in names]
    assert len(own) == len(names)
    assert set(own).isdisjoint(host)


def test_e1_only_the_bottles_processes_are_seen(bottle: RunningBottle) -> None:
    commands = bottle.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out
    assert "bot_bottle.sidecar" not in commands
    assert "pytest" not in commands
    assert len(bottle.sh("ls -d /proc/[0-9]*").out.split()) < 10


SWITCHES = (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname",
    "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/sys/fs/cgroup/release_agent",
    "/sys/kernel/uevent_helper", "/proc/1/oom_score_adj", "/proc/1/ns/net", "/proc/1/root/etc/shadow",
)  # fmt: skip


def test_e1_the_kernels_switches_cannot_be_written(bottle: RunningBottle) -> None:
    tries = (f"(echo '|/tmp/x' > {path}) 2>/dev/null && echo {path}" for path in SWITCHES)
    result = bottle.sh("\n".join((*tries, "(echo x > /tmp/switch) && echo control")))
    assert result.out.split() == ["control"]


def test_e1_places_of_the_host_are_not_there(bottle: RunningBottle) -> None:
    places = ("/sys/kernel/security", "/boot", "/root/.ssh", "/mnt", "/media")
    looks = (f"test -d {path} && ls -A {path} 2>/dev/null" for path in places)
    assert bottle.sh("\n".join((*looks, "echo looked"))).out.split() == ["looked"]


def test_e1_no_other_control_group_is_seen_and_none_can_be_made(bottle: RunningBottle) -> None:
    shown = bottle.sh("cd /sys/fs/cgroup 2>/dev/null && find . -mindepth 2 -type d").out
    assert shown == ""
    made = bottle.sh("for place in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $place/new && echo made; done")
    assert "made" not in made.out
    joined = bottle.sh(
        "for file in $(find /sys/fs/cgroup -name 'cgroup.procs'); do echo 1 > $file && echo in; done"
    )
    assert "in" not in joined.out


def test_e1_no_other_network_device_is_seen(bottle: RunningBottle) -> None:
    assert set(bottle.sh("ls -A /sys/class/net 2>/dev/null").out.split()) <= {"lo"}


def test_e1_devices_are_the_harmless_ones(bottle: RunningBottle) -> None:
    found = set(bottle.sh("cd /dev && find . -type b -o -type c | sort").out.split())
    harmless = {
        "./null",
        "./zero",
        "./full",
        "./random",
        "./urandom",
        "./tty",
        "./console",
        "./ptmx",
        "./pts/ptmx",
    }
    assert {name for name in found if not name.startswith("./pts/")} <= harmless
    for device in ("b 8 0", "c 1 1", "c 10 229", "c 10 232"):
        assert bottle.sh(f"mknod /tmp/device {device}").returncode != 0


def test_e1_nothing_of_the_operators_home_is_seen(bottle: RunningBottle, lab: Lab) -> None:
    (lab.user_home / "private-note").write_text("operator's own words")
    lab.own()
    searched = bottle.sh("find / -name private-note 2>/dev/null; ls -A /home; cat /etc/passwd /etc/hostname")
    assert "private-note" not in searched.out
    assert searched.out.split("\n")[0] == "agent"
    assert os.uname().nodename not in searched.out.split()
    for path in (lab.user_home, lab.home, REPO / "tests"):
        assert bottle.sh(f"ls -A {path} 2>/dev/null").out.strip() == ""


def test_e1_set_id_programs_give_nothing(bottle: RunningBottle) -> None:
    listing = bottle.sh("find /usr/bin -perm -4000 -type f 2>/dev/null").out.split()
    for program in listing:
        assert bottle.sh(f"{program} -c id </dev/null 2>/dev/null").out.find("uid=0") == -1
    assert bottle.sh("cp /usr/bin/id /tmp/id && chmod 4755 /tmp/id && /tmp/id -u").out.strip() != "0"


def test_e1_a12_no_way_leads_to_root(bottle: RunningBottle, lab: Lab, world: World) -> None:
    """Neither ids, nor su and sudo, nor set-id programs; and a user namespace's root is none either."""
    outside = world.run(
        [BASE_PYTHON, "-I", "-S", "-"],
        account=lab.account,
        env=lab.env,
        cwd=lab.user_home,
        stdin=f"{inside.PRELUDE}packets = {packets()!r}\n{BECOME}".encode(),
    ).json()
    ends = {*outside["told"].values(), outside["namespace"]["unshare"]}
    assert outside["account"]["uid"] == 0 or "ROOT" in ends, "the same script gets nowhere outside: no proof"
    if outside["namespace"]["unshare"] == "ROOT":
        assert outside["namespace"]["UDP"] == "sent"

    sent = packets()
    seen = inside.run(bottle, BECOME, packets=sent)
    assert seen["account"]["uid"] != 0
    assert (seen["account"]["CapEff"], seen["account"]["CapPrm"]) == (0, 0)
    assert len(seen["told"]) > 10
    assert [name for name, end in seen["told"].items() if end == "ROOT"] == []
    namespace = seen["namespace"]
    assert namespace["unshare"] in {"EPERM", "ENOSYS", "ENOSPC", "ROOT"}
    assert "DONE" not in namespace.values()
    for *_, address, _ in sent.values():
        assert world.records().packets_to(address) == frozenset()


READ_ONLY = (
    "/new",
    "/usr/new",
    "/usr/bin/new",
    "/usr/lib/new",
    "/etc/new",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/ld.so.preload",
    "/etc/ssl/certs/new",
    "/etc/ssl/certs/ca-certificates.crt",
    "/opt/bot-bottle/new",
    "/home/new",
    "/proc/new",
    "/dev/new",
)


def test_e5_what_is_read_only_stays_so(bottle: RunningBottle) -> None:
    lines = []
    for path in READ_ONLY:
        parent = path.rpartition("/")[0] or "/"
        # Numbers: processes come and go.
        look = f"cat {path} 2>/dev/null; ls -A {parent} | grep -v '^[0-9]*$'; echo; echo @@@"
        tries = (
            f"echo x >> {path}",
            f"rm -rf {path}.d {path}; ln -sf /tmp/x {path}",
            f"mv {parent} {parent}.moved && mkdir -p {parent}",
            f"echo x > /proc/self/root{path}",
            f"cd /proc/self/cwd; echo x > /proc/$$/root{path}",
            f"cp --remove-destination /bin/sh {path}",
        )
        lines += [look, *(f"({script}) 2>/dev/null" for script in tries), look]
    looks = bottle.sh("\n".join(lines), timeout=60).out.split("@@@\n")
    assert len(looks) == 2 * len(READ_ONLY) + 1
    for number, path in enumerate(READ_ONLY):
        assert looks[2 * number] == looks[2 * number + 1], path


def test_e5_the_home_and_tmp_are_writable(bottle: RunningBottle) -> None:
    for folder in ("/home/agent", "/home/agent/workspace", "/tmp"):
        assert bottle.sh(f"echo x > {folder}/new && rm {folder}/new").returncode == 0, folder


def test_e5_starting_programs_through_the_loader_changes_nothing(bottle: RunningBottle, world: World) -> None:
    marker = new_marker("e5")
    found = bottle.sh("ls /lib64/ld-linux-* /lib/ld-linux-* 2>/dev/null | head -n 1").out.strip()
    if not found:
        pytest.skip("this machine's libc has no ld-linux")
    bottle.sh("cp /usr/bin/curl /tmp/curl; chmod -x /tmp/curl")
    bottle.sh(f"{found} /tmp/curl -sS -m 5 https://{marker}.evil.test/")
    assert world.reached(marker) == []
    assert [line["reason"] for line in bottle.denied(marker)] == ["host_not_allowed"]


def test_e5_a_link_in_the_home_leads_nowhere_on_the_host(lab: Lab, world: World) -> None:
    """A resumed bottle's home was written by the agent; nothing on the host may follow what is in it."""
    lab.declare(
        "links", "agent_provider:\n  template: command\n  argv: [/bin/sh, '{prompt_file}']\n", prompt="true"
    )
    target = lab.user_home / "target"
    target.write_text("untouched")
    lab.own()
    first = lab.launch("links")
    first.sh(
        f"rm -rf ~/.bot-bottle; ln -s {target.parent} ~/.bot-bottle; ln -s {target} ~/prompt.md;"
        f" ln -s {target.parent} ~/workspace/link"
    )
    first.close(exit_code=9)
    second = lab.launch("links", identity=first.identity)
    second.close()
    assert target.read_text() == "untouched"
    assert not (target.parent / "prompt.md").exists()
    assert not second.state_dir.exists()


# Numbers of <asm/unistd_64.h>; the ones from 424 on are the same on every architecture.
_X86_64 = {
    "mount": 165, "umount2": 166, "pivot_root": 155, "swapon": 167, "unshare": 272, "setns": 308,
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "bpf": 321, "perf_event_open": 298,
    "keyctl": 250,
    "add_key": 248, "request_key": 249, "userfaultfd": 323, "kexec_load": 246, "init_module": 175,
    "finit_module": 313, "delete_module": 176, "reboot": 169, "acct": 163, "quotactl": 179,
    "open_by_handle_at": 304, "name_to_handle_at": 303, "kcmp": 312, "syslog": 103, "settimeofday": 164,
    "clock_settime": 227, "iopl": 172, "ioperm": 173, "lookup_dcookie": 212, "vhangup": 153,
    "kexec_file_load": 320,
}  # fmt: skip
_GENERIC = {
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427, "open_tree": 428,
    "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "quotactl_fd": 443,
}  # fmt: skip
SYSCALLS = {**(_X86_64 if platform.machine() == "x86_64" else {}), **_GENERIC}


def test_e7_system_calls_that_are_not_the_agents(bottle: RunningBottle) -> None:
    code = "tell(**{name: syscall(number, 0, 0, 0, 0, 0) for name, number in calls.items()})"
    found = inside.run(bottle, code, calls=SYSCALLS)
    assert {name: told for name, told in found.items() if told not in {"EPERM", "ENOSYS", "EACCES"}} == {}
    assert found.keys() == SYSCALLS.keys()


NAMESPACES = {
    "NEWNS": 0x00020000, "NEWCGROUP": 0x02000000, "NEWUTS": 0x04000000, "NEWIPC": 0x08000000,
    "NEWUSER": 0x10000000, "NEWPID": 0x20000000, "NEWNET": 0x40000000, "NEWTIME": 0x00000080,
}  # fmt: skip


def test_e7_no_new_namespace_by_unshare_or_clone(bottle: RunningBottle) -> None:
    code = """
import platform
unshare, clone = {"x86_64": (272, 56), "aarch64": (97, 220)}[platform.machine()]
result = {}
for name, flag in flags.items():
    result[f"unshare {name}"] = syscall(unshare, flag)
    if flag != 0x80:  # CLONE_NEWTIME shares its bit with the exit signal of clone(2)
        child = libc.syscall(ctypes.c_long(clone), ctypes.c_long(flag | 17), None, None, None, None)
        if child == 0:
            os._exit(0)
        result[f"clone {name}"] = "ok" if child > 0 else errno.errorcode[ctypes.get_errno()]
    args = struct.pack("=8Q", flag, 0, 0, 0, 17, 0, 0, 0)
    child = libc.syscall(ctypes.c_long(435), args, ctypes.c_long(len(args)))
    if child == 0:
        os._exit(0)
    result[f"clone3 {name}"] = "ok" if child > 0 else errno.errorcode[ctypes.get_errno()]
tell(**result)
"""
    found = inside.run(bottle, code, flags=NAMESPACES)
    assert {call: told for call, told in found.items() if told not in {"EPERM", "ENOSYS"}} == {}
    assert len(found) == 3 * len(NAMESPACES) - 1


def test_e7_ordinary_clones_work(bottle: RunningBottle) -> None:
    code = "import threading, os; t = threading.Thread(target=print, args=('thread',)); t.start(); t.join();"
    code += " pid = os.fork() or os._exit(7); print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    assert bottle.py(code).out.split() == ["thread", "7"]


# Each call in a process of its own, since a filter may also end who makes it.
_EACH = """
def each(calls, make):
    result = {}
    for name, number in calls.items():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, str(make(number)).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        result[name] = os.read(reading, 100).decode() or "ended"
        os.close(reading)
    return result
"""


@only_x86_64
def test_e7_x32_calls_are_refused(bottle: RunningBottle) -> None:
    names = ("socket", "mount", "unshare", "bpf", "io_uring_setup", "ptrace", "getpid")
    calls = dict(zip(names, (41, 165, 272, 321, 425, 101, 39), strict=True))
    code = _EACH + "tell(**each(calls, lambda number: syscall(0x40000000 | number, 0, 0, 0, 0, 0)))"
    found = inside.run(bottle, code, calls=calls)
    assert {name: told for name, told in found.items() if told not in {"EPERM", "ENOSYS", "ended"}} == {}
    assert found.keys() == calls.keys()


_INT_0X80 = (
    _EACH
    + """
import mmap

def make(number):
    # mov eax, NUMBER; xor ebx, ebx; int 0x80; ret
    code = b"\\xb8" + struct.pack("<I", number) + b"\\x31\\xdb\\xcd\\x80\\xc3"
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))()

tell(**each(calls, make))
"""
)


@only_x86_64
def test_e7_i386_calls_are_refused(bottle: RunningBottle, world: World) -> None:
    calls = {"getpid": 20, "mount": 21, "unshare": 310, "socketcall": 102, "ptrace": 26}
    outside = inside.PRELUDE + f"calls = {calls!r}\n" + _INT_0X80
    control = world.run([BASE_PYTHON, "-I", "-S", "-"], stdin=outside.encode()).json()
    if control["getpid"] == "ended" or int(control["getpid"]) <= 0:
        pytest.skip("this kernel runs no i386 calls, so there is nothing to refuse")
    found = inside.run(bottle, _INT_0X80, calls=calls)
    assert {name: told for name, told in found.items() if told != "ended" and int(told) >= 0} == {}
    assert found.keys() == calls.keys()


def test_e7_terminal_input_cannot_be_forged(bottle: RunningBottle) -> None:
    code = """
import fcntl, pty
master, slave = pty.openpty()
result = {}
for name, number in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C)):
    try:
        fcntl.ioctl(slave, number, b"x")
        result[name] = "ok"
    except OSError as error:
        result[name] = errno.errorcode[error.errno]
    # The kernel looks at 32 bits of the request; a filter that compares 64 can be passed by the upper half.
    ioctl = {"x86_64": 16, "aarch64": 29}[os.uname().machine]
    result[name + " widened"] = syscall(ioctl, slave, number | 1 << 32, 0)
tell(**result)
"""
    found = inside.run(bottle, code)
    assert set(found.values()) <= {"EPERM"}, found
