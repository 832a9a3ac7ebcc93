"""The system-call filter of a bottle, built with libseccomp and handed to bubblewrap as a BPF program.

The default is to allow; what is refused is what an agent never needs and what escapes were built from:
new namespaces, mounting, tracing others, kernel-wide settings, and young kernel interfaces that act outside
the filter's view (io_uring performs operations that no filter sees). A refused call fails with ``EPERM``,
``clone3`` with ``ENOSYS`` so that a C library falls back to ``clone``, whose flags a filter can read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from functools import cache
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from bot_bottle.errors import UnavailableError

if TYPE_CHECKING:
    from typing import Any

#: Calls refused whatever their arguments.
REFUSED: tuple[str, ...] = (
    # mounting, old and new interfaces
    "mount", "umount2", "umount", "pivot_root", "move_mount", "open_tree", "open_tree_attr", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "chroot", "swapon", "swapoff",
    "quotactl", "quotactl_fd", "nfsservctl",
    # namespaces
    "unshare", "setns",
    # looking into or steering other processes
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd",
    "kcmp", "move_pages", "migrate_pages", "lookup_dcookie", "perf_event_open",
    # programs in the kernel, keys, and interfaces that run work unseen by this filter
    "bpf", "keyctl", "add_key", "request_key", "userfaultfd", "io_uring_setup", "io_uring_enter",
    "io_uring_register",
    # the machine itself
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "create_module",
    "get_kernel_syms", "query_module", "reboot", "acct", "syslog", "vhangup", "iopl", "ioperm", "modify_ldt",
    "vm86", "vm86old", "uselib", "ustat", "sysfs", "_sysctl",
    "settimeofday", "clock_settime", "clock_settime64", "adjtimex", "clock_adjtime", "clock_adjtime64",
    "stime",
    # opening files by handle leaves the mount namespace (the "Shocker" escape)
    "name_to_handle_at", "open_by_handle_at", "fanotify_init", "fanotify_mark",
)  # fmt: skip

#: Numbers of calls that older libseccomp releases cannot name; from 424 on they are the same everywhere.
_NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "clone3": 435,
    "pidfd_getfd": 438,
    "process_madvise": 440,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "process_mrelease": 448,
    "open_tree_attr": 467,
}

#: ``clone`` flags that make a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_CLONE_NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_FAMILIES = (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)
_FAMILY_BOUND = 64

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_U32 = 0xFFFFFFFF

#: The only personality flag a program may set for itself: UNAME26; and 0xffffffff only asks.
_PERSONALITY_ALLOWED = 0x0020000
_TOP_BIT = 0x80000000

_LIBRARY_PLACES = ("/lib*/libseccomp.so.2*", "/usr/lib*/libseccomp.so.2*", "/usr/lib/*/libseccomp.so.2*")
_FORMAT = 1


def filter_program(cache_dir: Path | None = None) -> bytes:
    """Give the filter as the bytes of a classic BPF program for this machine's architecture.

    Building takes tens of milliseconds, most of it finding and loading libseccomp, so the result is kept in
    ``cache_dir`` under a name made from this file's rules, the architecture and the installed libseccomp.

    Raises ``UnavailableError`` where libseccomp or its Python binding is missing.
    """
    if cache_dir is None:
        return _build()
    path = cache_dir / f"seccomp-{_cache_key()}.bpf"
    try:
        cached = path.read_bytes()
    except OSError:
        cached = b""
    if len(cached) > 32 and hashlib.sha256(cached[32:]).digest() == cached[:32]:
        return cached[32:]
    program = _build()
    _keep(path, hashlib.sha256(program).digest() + program)
    return program


@cache
def _cache_key() -> str:
    digest = hashlib.sha256(f"{_FORMAT} {os.uname().machine}".encode())
    # The module's own bytes stand for the rules: whatever changes them changes the key.
    digest.update(Path(__file__).read_bytes())
    for pattern in _LIBRARY_PLACES:
        for name in sorted(glob(pattern)):
            stat = Path(name).stat()
            digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _keep(path: Path, data: bytes) -> None:
    """Write the cache file so that a reader sees all of it or none; not being able to is no error."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _build() -> bytes:
    try:
        import pyseccomp  # noqa: PLC0415 - loading libseccomp takes 30 ms; most launches have the result kept
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        raise UnavailableError(
            "libseccomp is missing, so no bottle can have its system-call filter; "
            "install it with: sudo apt-get install libseccomp2 (or your distribution's libseccomp)"
        ) from error
    refuse = pyseccomp.ERRNO(errno.EPERM)
    program = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    # 32-bit and x32 calls have other numbers and argument widths than the rules below: none is let through.
    program.set_attr(pyseccomp.Attr.ACT_BADARCH, refuse)
    for name in REFUSED:
        _add(pyseccomp, program, refuse, name)
    _add(pyseccomp, program, pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    for flag in _CLONE_NEW:
        _add(pyseccomp, program, refuse, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, flag, flag))
    for request in (_TIOCSTI, _TIOCLINUX):
        # The kernel looks at the low 32 bits only (CVE-2019-10063), so does the rule.
        _add(pyseccomp, program, refuse, "ioctl", pyseccomp.Arg(1, pyseccomp.MASKED_EQ, _U32, request))
    _refuse_families(pyseccomp, program, refuse)
    _refuse_personalities(pyseccomp, program, refuse)
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        program.export_bpf(file)
        os.lseek(fd, 0, os.SEEK_SET)
        return file.read()


def _refuse_families(lib: Any, program: Any, refuse: int) -> None:
    for call in ("socket", "socketpair"):
        for family in range(_FAMILY_BOUND):
            if family not in _FAMILIES:
                _add(lib, program, refuse, call, lib.Arg(0, lib.EQ, family))
        # Also catches any value with high bits set, which the kernel would cut down to a family below.
        _add(lib, program, refuse, call, lib.Arg(0, lib.GE, _FAMILY_BOUND))
        # NETLINK_ROUTE is protocol 0; the C library lists its interfaces through it.
        _add(lib, program, refuse, call, lib.Arg(0, lib.EQ, _AF_NETLINK), lib.Arg(2, lib.NE, 0))


def _refuse_personalities(lib: Any, program: Any, refuse: int) -> None:
    """Leave 0, UNAME26 and the question 0xffffffff.

    A rule can test one masked value only, so "neither of these" is spelled out bit by bit: without the top
    bit no other bit than UNAME26 may be set, with it none may be clear.
    """
    for shift in range(31):
        bit = 1 << shift
        if bit != _PERSONALITY_ALLOWED:
            _add(lib, program, refuse, "personality", lib.Arg(0, lib.MASKED_EQ, _TOP_BIT | bit, bit))
        _add(lib, program, refuse, "personality", lib.Arg(0, lib.MASKED_EQ, _TOP_BIT | bit, _TOP_BIT))


def _add(lib: Any, program: Any, action: int, name: str, *args: Any) -> None:
    try:
        number = lib.resolve_syscall(lib.Arch.NATIVE, name)
    except (OSError, ValueError):
        number = -1
    if number < 0:
        # A pseudo number means: this libseccomp or this architecture has no such call.
        if name not in _NUMBERS:
            return
        number = _NUMBERS[name]
    program.add_rule(action, number, *args)
