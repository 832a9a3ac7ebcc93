"""What a bottle may not ask of the kernel, as data; each backend makes of it what its isolation takes.

The default is to allow; what is refused is what an agent never needs and what escapes were built from:
new namespaces, mounting, tracing others, kernel-wide settings, and young kernel interfaces that act outside
the filter's view (io_uring performs operations that no filter sees). A refused call fails with ``EPERM``,
``clone3`` with ``ENOSYS`` so that a C library falls back to ``clone``, whose flags a filter can read.

Together the rules refuse at least what a container engine's usual profile refuses to a process without
capabilities.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: ``masked``: the argument, cut down by ``mask``, equals ``value``.
Comparison: TypeAlias = Literal["eq", "ne", "ge", "masked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A test of one argument, counted from 0; ``mask`` is for ``masked`` alone."""

    index: int
    test: Comparison
    value: int
    mask: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Calls that fail with ``errno`` where all ``conditions`` hold."""

    names: tuple[str, ...]
    errno: int = errno.EPERM
    conditions: tuple[Condition, ...] = ()


#: Calls refused whatever their arguments.
REFUSED: tuple[str, ...] = (
    # mounting, old and new interfaces
    "mount", "umount2", "umount", "pivot_root", "move_mount", "open_tree", "open_tree_attr", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "chroot", "swapon", "swapoff",
    "quotactl", "quotactl_fd", "nfsservctl",
    # namespaces and what names them
    "unshare", "setns", "sethostname", "setdomainname",
    # looking into or steering other processes
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd",
    "kcmp", "move_pages", "migrate_pages", "lookup_dcookie", "perf_event_open",
    # which of the machine's memory is used, shared with everything else on it
    "mbind", "get_mempolicy", "set_mempolicy", "set_mempolicy_home_node",
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
NUMBERS = {
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
    "set_mempolicy_home_node": 450,
    "open_tree_attr": 467,
}

#: ``clone`` flags that make a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_CLONE_NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_FAMILIES = (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK)
_FAMILY_BOUND = 64
_SOCKET_CALLS = ("socket", "socketpair")

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_U32 = 0xFFFFFFFF

#: The only personality flag a program may set for itself: UNAME26; and 0xffffffff only asks.
_PERSONALITY_ALLOWED = 0x0020000
_TOP_BIT = 0x80000000


def _family_rules() -> tuple[Rule, ...]:
    """Leave local sockets, both internet families, and netlink for listing interfaces."""
    refused = [family for family in range(_FAMILY_BOUND) if family not in _FAMILIES]
    return (
        *(
            Rule(names=_SOCKET_CALLS, conditions=(Condition(index=0, test="eq", value=family),))
            for family in refused
        ),
        # Also catches any value with high bits set, which the kernel would cut down to a family below.
        Rule(names=_SOCKET_CALLS, conditions=(Condition(index=0, test="ge", value=_FAMILY_BOUND),)),
        # NETLINK_ROUTE is protocol 0; the C library lists its interfaces through it.
        Rule(
            names=_SOCKET_CALLS,
            conditions=(
                Condition(index=0, test="eq", value=_AF_NETLINK),
                Condition(index=2, test="ne", value=0),
            ),
        ),
    )


def _personality_rules() -> tuple[Rule, ...]:
    """Leave 0, UNAME26 and the question 0xffffffff.

    A rule can test one masked value only, so "neither of these" is spelled out bit by bit: without the top
    bit no other bit than UNAME26 may be set, with it none may be clear.
    """
    rules = []
    for bit in (1 << shift for shift in range(31)):
        values = (_TOP_BIT,) if bit == _PERSONALITY_ALLOWED else (bit, _TOP_BIT)
        rules += [
            Rule(
                names=("personality",),
                conditions=(Condition(index=0, test="masked", mask=_TOP_BIT | bit, value=value),),
            )
            for value in values
        ]
    return tuple(rules)


#: Everything that is refused, in no particular order.
RULES: tuple[Rule, ...] = (
    Rule(names=REFUSED),
    Rule(names=("clone3",), errno=errno.ENOSYS),
    *(
        Rule(names=("clone",), conditions=(Condition(index=0, test="masked", mask=flag, value=flag),))
        for flag in _CLONE_NEW
    ),
    # The kernel looks at the low 32 bits only (CVE-2019-10063), so does the rule.
    *(
        Rule(names=("ioctl",), conditions=(Condition(index=1, test="masked", mask=_U32, value=request),))
        for request in (_TIOCSTI, _TIOCLINUX)
    ),
    *_family_rules(),
    *_personality_rules(),
)
