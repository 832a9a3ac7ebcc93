"""What a launcher and an attached terminal say to each other: one message, one packet (unix(7), SEQPACKET).

The first byte says what it is, the rest is its content. Both ends are the operator's own; what is carried is
the agent's and is never looked into.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: The socket's name in the state folder.
SOCKET = "terminal"

#: From the terminal: the first word, what was typed, a new size.
HELLO, KEYS, SIZE = b"h", b"k", b"s"
#: From the launcher: taken on, refused in words, output, the agent's exit code, another terminal's turn.
WELCOME, REFUSED, OUTPUT, ENDED, TAKEN = b"w", b"r", b"o", b"e", b"t"

#: The largest packet, in bytes; the kernel's own bound is several times this.
MAX_PACKET = 1 << 15
PIECE = MAX_PACKET - 1

_SIZE = struct.Struct("!HH")
_CODE = struct.Struct("!B")
_YES, _NO = b"\1", b"\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who attaches: ``keys`` says that it is a terminal to type on, of ``size`` (rows, columns)."""

    size: tuple[int, int]
    keys: bool


def pieces(data: bytes) -> list[bytes]:
    """Cut output or typing into the content of packets."""
    return [data[start : start + PIECE] for start in range(0, len(data), PIECE)]


def hello(word: Hello) -> bytes:
    """Write the first word."""
    return HELLO + _SIZE.pack(*word.size) + (_YES if word.keys else _NO)


def read_hello(packet: bytes) -> Hello:
    """Read the first word; raises ``ValueError`` for anything else."""
    if packet[:1] != HELLO or len(packet) != 1 + _SIZE.size + 1 or packet[-1:] not in {_YES, _NO}:
        raise ValueError("not the first word of a terminal")
    return Hello(size=read_size(packet[:-1]), keys=packet[-1:] == _YES)


def size(rows: int, columns: int) -> bytes:
    """Write a new size."""
    return SIZE + _SIZE.pack(rows, columns)


def read_size(packet: bytes) -> tuple[int, int]:
    """Read a size as (rows, columns); raises ``ValueError`` for what is none."""
    if len(packet) != 1 + _SIZE.size:
        raise ValueError("not a terminal's size")
    rows, columns = _SIZE.unpack(packet[1:])
    if not rows or not columns:
        raise ValueError("a terminal without room")
    return rows, columns


def ended(code: int) -> bytes:
    """Write the agent's exit code (0 to 255)."""
    return ENDED + _CODE.pack(code & 0xFF)


def read_ended(packet: bytes) -> int:
    """Read an exit code; raises ``ValueError`` for what is none."""
    if len(packet) != 1 + _CODE.size:
        raise ValueError("not an exit code")
    code: int = _CODE.unpack(packet[1:])[0]
    return code


def welcome(*, terminal: bool) -> bytes:
    """Write that a terminal is taken on, and whether the agent has one to type on."""
    return WELCOME + (_YES if terminal else _NO)
