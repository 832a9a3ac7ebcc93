"""The program that stands before each command of the agent's in a machine.

It gives up every capability, becomes the agent's account, promises to gain no rights, loads the filter and
becomes the program its arguments name. Whatever of that fails, nothing is run.
"""

from __future__ import annotations

import struct

from bot_bottle.backend.smolmachines.machine_code import Code

# <asm/unistd_64.h>, <linux/prctl.h>, <linux/seccomp.h>, <linux/capability.h>
_FCHOWN, _SETSID = 93, 112
_SETGROUPS, _SETRESUID, _SETRESGID, _PRCTL = 116, 117, 119, 157
_SET_SECCOMP, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT, _CLEAR_ALL = 22, 24, 38, 47, 4
_MODE_FILTER = 2
_CAPABILITIES = 64
_CANNOT = 126
_MAX_FILTER = 4096


def starter_program(account: int, filter_program: bytes, *, terminal: bool) -> bytes:
    """Give the program that starts commands as ``account`` (user and group) behind a seccomp filter.

    ``filter_program`` is classic BPF. On a ``terminal`` the account gets the terminal, whose session the
    engine made; elsewhere the command leads a new session, by which all it starts can be found. Raises
    ``ValueError`` for what is no filter.
    """
    count, rest = divmod(len(filter_program), 8)
    if rest or not 0 < count <= _MAX_FILTER:
        raise ValueError("a seccomp filter has 1 to 4096 instructions of 8 bytes")
    code = Code()
    for capability in range(_CAPABILITIES):
        code.call(_PRCTL, _CAPBSET_DROP, capability)  # the kernel refuses numbers it does not know
    code.call(_PRCTL, _CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    if terminal:
        code.call(_FCHOWN, 0, account, account)
    code.must(_SETGROUPS, 0, 0)
    code.must(_SETRESGID, account, account, account)
    code.must(_SETRESUID, account, account, account)
    if not terminal:
        code.call(_SETSID)
    code.must(_PRCTL, _SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # struct sock_fprog: the count, padding, a pointer to the instructions
    sock_fprog = code.data(lambda at: struct.pack("<HxxxxxxQ", count, at + 16) + filter_program, align=16)
    code.must(_PRCTL, _SET_SECCOMP, _MODE_FILTER, sock_fprog)
    code.become_arguments()
    code.end_with(_CANNOT)
    return code.program()
