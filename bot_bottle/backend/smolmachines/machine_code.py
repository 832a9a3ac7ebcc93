"""Static ELF programs of a few kilobytes for x86-64, made byte by byte (System V ABI, AMD64 supplement).

An image need not bring a program for what root does in a machine, and no compiler is at hand. Each of these
is one line of system calls, with the data that they point to behind it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: The architecture that these programs are for.
MACHINE = "x86_64"

_BASE = 0x400000
_ELF_HEADER, _PROGRAM_HEADER = 64, 56
_CODE = _ELF_HEADER + _PROGRAM_HEADER

# <asm/unistd_64.h>
_EXECVE, _EXIT = 59, 60

# mov edi/esi/edx/r10d/r8d, imm32; each clears the upper half
_ARGUMENTS = (b"\xbf", b"\xbe", b"\xba", b"\x41\xba", b"\x41\xb8")


class Address:
    """Where some of a program's data stands, known once all of its code is."""


class Code:
    """A program under construction."""

    def __init__(self) -> None:
        self._code = bytearray()
        self._jumps: list[int] = []
        self._spots: list[tuple[int, Address]] = []
        self._data: list[tuple[Address, Callable[[int], bytes], int]] = []
        self._texts: dict[str, Address] = {}

    def call(self, number: int, *arguments: int | Address) -> None:
        """Make a system call whatever comes of it."""
        self._code += b"\xb8" + struct.pack("<I", number)  # mov eax, number
        for register, argument in zip(_ARGUMENTS, arguments, strict=False):
            self._code += register
            if isinstance(argument, Address):
                self._spots.append((len(self._code), argument))
            self._code += struct.pack("<I", 0 if isinstance(argument, Address) else argument)
        self._code += b"\x0f\x05"  # syscall

    def must(self, number: int, *arguments: int | Address) -> None:
        """Make a system call that ends the program where it fails."""
        self.call(number, *arguments)
        self._end_on(b"\x0f\x88")  # js

    def must_fail(self, number: int, *arguments: int | Address) -> None:
        """Make a system call that ends the program where it does not fail."""
        self.call(number, *arguments)
        self._end_on(b"\x0f\x89")  # jns

    def number(self, step: int) -> None:
        """Let a program that ends from here on end with this exit code (see :meth:`end_with_step`)."""
        self._code += b"\xbd" + struct.pack("<I", step)  # mov ebp, step: no system call changes it

    def become_arguments(self) -> None:
        """Replace the program by the one its arguments name, in the same environment, or end."""
        self._code += (
            b"\x48\x8b\x0c\x24"  # mov rcx, [rsp]: how many arguments
            b"\x48\x8b\x7c\x24\x10"  # mov rdi, [rsp+16]: the first behind our own name
            b"\x48\x8d\x74\x24\x10"  # lea rsi, [rsp+16]
            b"\x48\x8d\x54\xcc\x10"  # lea rdx, [rsp+rcx*8+16]: the environment
            b"\xb8" + struct.pack("<I", _EXECVE) + b"\x0f\x05"
        )

    def end_with(self, code: int) -> None:
        """End with ``code`` here, and where something before failed."""
        self._land()
        self.call(_EXIT, code)

    def end_with_step(self) -> None:
        """End with 0 here, and with the step's number where something before failed."""
        self.call(_EXIT, 0)
        self._land()
        self._code += b"\x89\xef\xb8" + struct.pack("<I", _EXIT) + b"\x0f\x05"  # mov edi, ebp; exit

    def data(self, content: Callable[[int], bytes], *, align: int = 1) -> Address:
        """Have ``content`` stand behind the code, where it is told its own address."""
        place = Address()
        self._data.append((place, content, align))
        return place

    def text(self, text: str) -> Address:
        """Have a text stand there, ended by a zero; raises ``ValueError`` for one that holds a zero."""
        if "\0" in text:
            raise ValueError("a text for a system call holds no zero byte")
        if text not in self._texts:
            self._texts[text] = self.data(lambda _: text.encode("utf-8") + b"\0")
        return self._texts[text]

    def program(self) -> bytes:
        """Give the whole executable."""
        places: dict[Address, int] = {}
        whole = bytearray(self._code)
        for place, content, align in self._data:
            whole += bytes(-(_CODE + len(whole)) % align)
            places[place] = _BASE + _CODE + len(whole)
            whole += content(places[place])
        for spot, place in self._spots:
            whole[spot : spot + 4] = struct.pack("<I", places[place])
        size = _CODE + len(whole)
        header = struct.pack(
            "<4sBBBB8xHHIQQQIHHHHHH",
            *(b"\x7fELF", 2, 1, 1, 0),  # 64 bits, little-endian
            *(2, 62, 1, _BASE + _CODE),  # an executable for AMD64
            *(_ELF_HEADER, 0, 0, _ELF_HEADER, _PROGRAM_HEADER, 1, 0, 0, 0),
        )
        # PT_LOAD, read and execute
        segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
        return header + segment + bytes(whole)

    def _end_on(self, jump: bytes) -> None:
        self._code += b"\x48\x85\xc0" + jump  # test rax, rax
        self._jumps.append(len(self._code))
        self._code += bytes(4)

    def _land(self) -> None:
        """Let every jump so far lead here."""
        for jump in self._jumps:
            self._code[jump : jump + 4] = struct.pack("<i", len(self._code) - jump - 4)
        self._jumps.clear()
