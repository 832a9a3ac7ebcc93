"""What the MCP process does to itself before it reads anything of an agent's (Linux).

It needs its two kinds of sockets and the Python files it was started from. So: no new process, no file
written, no core, nobody looking in; where the kernel has Landlock, no file read but libraries
(landlock(7)); where libseccomp is at hand, no socket of its own, no program started, nothing traced.
What a kernel does not offer is left out: these stand behind the fact that the process holds no secret.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import site
import sys
import sysconfig
from pathlib import Path
from typing import Any

from bot_bottle.sidecar.harden import conceal, ignore_keys, prctl

_PR_SET_NO_NEW_PRIVS = 38
_MAX_MEMORY = 1 << 30
_MAX_FILES = 256

_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_RULE_PATH_BENEATH = 1
_CREATE_RULESET_VERSION = 1
#: How many access rights each version of the kernel's interface has (linux/landlock.h).
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3

_REFUSED = (
    "socket", "connect", "bind", "listen", "accept", "accept4", "execve", "execveat", "fork", "vfork",
    "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_open", "pidfd_getfd", "kill", "tkill",
    "io_uring_setup", "io_uring_enter", "io_uring_register", "bpf", "keyctl", "add_key", "request_key",
    "mount", "umount2", "unshare", "setns", "chmod", "fchmod", "unlink", "unlinkat", "rename", "renameat2",
    "link", "linkat", "symlink", "symlinkat", "userfaultfd", "perf_event_open",
)  # fmt: skip


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def confine() -> None:
    """Shut this process in; everything it needs is loaded and open. Raises ``OSError``."""
    libc = ctypes.CDLL(None, use_errno=True)
    conceal(libc)
    ignore_keys()
    for limit, value in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, _MAX_MEMORY),
        (resource.RLIMIT_NOFILE, _MAX_FILES),
    ):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))
    prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    system_calls = _seccomp()  # loading libseccomp reads files that are out of reach afterwards
    _landlock(libc)
    if system_calls is not None:
        system_calls.load()


def _landlock(libc: ctypes.CDLL) -> None:
    version = libc.syscall(_SYS_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)
    if version < 1:
        return  # not in this kernel
    rights = ctypes.c_uint64((1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1)
    ruleset = libc.syscall(_SYS_CREATE_RULESET, ctypes.byref(rights), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return
    try:
        for folder in _libraries():
            with contextlib.suppress(OSError):
                parent = os.open(folder, os.O_PATH | os.O_CLOEXEC)
                rule = _PathBeneath(_READ_FILE | _READ_DIR, parent)
                libc.syscall(_SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
                os.close(parent)
        if libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"landlock: {os.strerror(code)}")
    finally:
        os.close(ruleset)


def _libraries() -> tuple[str, ...]:
    here = str(Path(__file__).resolve().parent.parent)
    paths = sysconfig.get_paths()
    own = [paths["stdlib"], paths["platstdlib"], paths["purelib"], paths["platlib"], here]
    return tuple(dict.fromkeys([*own, *site.getsitepackages(), f"{sys.base_prefix}/lib", "/lib", "/usr/lib"]))


def _seccomp() -> Any:
    try:
        import pyseccomp  # noqa: PLC0415 - not in every installation
    except (ImportError, OSError, RuntimeError):
        return None
    allowed = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    for name in _REFUSED:
        with contextlib.suppress(ValueError, OSError):  # not a call of this architecture
            allowed.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    return allowed
