"""The program that stands before each command of the agent's in a machine, made here byte by byte.

An image need not bring anything that drops rights and loads a system-call filter, and no compiler is at hand,
so this writes a static ELF program of a few kilobytes for x86-64 (System V ABI, AMD64 supplement): it gives
up every capability, becomes the agent's account, promises to gain no rights, loads the filter and becomes the
program its arguments name. Whatever of that fails, nothing is run.
"""

from __future__ import annotations

import struct

#: The architecture that :func:`starter_program` knows.
MACHINE = "x86_64"

_BASE = 0x400000
_ELF_HEADER, _PROGRAM_HEADER = 64, 56
_CODE = _ELF_HEADER + _PROGRAM_HEADER

# <asm/unistd_64.h>, <linux/prctl.h>, <linux/seccomp.h>, <linux/capability.h>
_EXECVE, _EXIT, _FCHOWN, _SETSID = 59, 60, 93, 112
_SETGROUPS, _SETRESUID, _SETRESGID, _PRCTL = 116, 117, 119, 157
_SET_SECCOMP, _CAPBSET_DROP, _SET_NO_NEW_PRIVS, _CAP_AMBIENT, _CLEAR_ALL = 22, 24, 38, 47, 4
_MODE_FILTER = 2
_CAPABILITIES = 64
_CANNOT = 126
_MAX_FILTER = 4096

# mov edi/esi/edx/r10d/r8d, imm32; each clears the upper half
_ARGUMENTS = (b"\xbf", b"\xbe", b"\xba", b"\x41\xba", b"\x41\xb8")


def starter_program(account: int, filter_program: bytes, *, terminal: bool) -> bytes:
    """Give the program that starts commands as ``account`` (user and group) behind a seccomp filter.

    ``filter_program`` is classic BPF. On a ``terminal`` the account gets the terminal, whose session the
    engine made; elsewhere the command leads a new session, by which all it starts can be found. Raises
    ``ValueError`` for what is no filter.
    """
    count, rest = divmod(len(filter_program), 8)
    if rest or not 0 < count <= _MAX_FILTER:
        raise ValueError("a seccomp filter has 1 to 4096 instructions of 8 bytes")
    code = _Code()
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
    code.must(_PRCTL, _SET_SECCOMP, _MODE_FILTER, code.later("filter"))
    code.become_arguments()
    # struct sock_fprog: the count, padding, a pointer to the instructions
    place = code.place("filter", 16)
    data = struct.pack("<HxxxxxxQ", count, place + 16) + filter_program
    text = code.finish() + data
    size = _CODE + len(text)
    header = struct.pack(
        "<4sBBBB8xHHIQQQIHHHHHH",
        *(b"\x7fELF", 2, 1, 1, 0),  # 64 bits, little-endian
        *(2, 62, 1, _BASE + _CODE),  # an executable for AMD64
        *(_ELF_HEADER, 0, 0, _ELF_HEADER, _PROGRAM_HEADER, 1, 0, 0, 0),
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # PT_LOAD, read and execute
    return header + segment + text


class _Code:
    """Machine code under construction; jumps to the end and addresses behind it are filled in last."""

    def __init__(self) -> None:
        self._code = bytearray()
        self._jumps: list[int] = []
        self._names: dict[str, list[int]] = {}
        self._places: dict[str, int] = {}

    def later(self, name: str) -> str:
        """Stand for the address that :meth:`place` will give ``name``."""
        return name

    def call(self, number: int, *arguments: int | str) -> None:
        """Make a system call whatever comes of it."""
        self._code += b"\xb8" + struct.pack("<I", number)  # mov eax, number
        for register, argument in zip(_ARGUMENTS, arguments, strict=False):
            self._code += register
            if isinstance(argument, str):
                self._names.setdefault(argument, []).append(len(self._code))
            self._code += struct.pack("<I", 0 if isinstance(argument, str) else argument)
        self._code += b"\x0f\x05"  # syscall

    def must(self, number: int, *arguments: int | str) -> None:
        """Make a system call that ends the program where it fails."""
        self.call(number, *arguments)
        self._code += b"\x48\x85\xc0\x0f\x88"  # test rax, rax; js end
        self._jumps.append(len(self._code))
        self._code += bytes(4)

    def become_arguments(self) -> None:
        """Replace the program by the one its arguments name, in the same environment, or end."""
        self._code += (
            b"\x48\x8b\x0c\x24"  # mov rcx, [rsp]: how many arguments
            b"\x48\x8b\x7c\x24\x10"  # mov rdi, [rsp+16]: the first behind our own name
            b"\x48\x8d\x74\x24\x10"  # lea rsi, [rsp+16]
            b"\x48\x8d\x54\xcc\x10"  # lea rdx, [rsp+rcx*8+16]: the environment
            b"\xb8" + struct.pack("<I", _EXECVE) + b"\x0f\x05"
        )
        end = len(self._code)
        self.call(_EXIT, _CANNOT)
        for jump in self._jumps:
            self._code[jump : jump + 4] = struct.pack("<i", end - jump - 4)

    def place(self, name: str, align: int) -> int:
        """Give ``name`` the next free address; what follows the code stands there."""
        self._code += bytes(-(_CODE + len(self._code)) % align)
        self._places[name] = _BASE + _CODE + len(self._code)
        return self._places[name]

    def finish(self) -> bytes:
        """Fill in the addresses and give the code."""
        for name, spots in self._names.items():
            for spot in spots:
                self._code[spot : spot + 4] = struct.pack("<I", self._places[name])
        return bytes(self._code)
