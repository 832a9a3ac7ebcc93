"""Git's framing (gitprotocol-common(5), "pkt-line format"): four hex digits of length, then the payload."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The longest line, its length digits included.
MAX_LINE = 65520
FLUSH = b"0000"
_LENGTH = re.compile(rb"[0-9a-fA-F]{4}")

#: Side-band channels (gitprotocol-pack(5)): data, progress shown as ``remote: ...``, a fatal error.
DATA, PROGRESS, FATAL = 1, 2, 3
_BAND_BYTES = 65515


class PktLineError(ValueError):
    """What came is no pkt-line stream."""


def packet(payload: bytes) -> bytes:
    """Frame one payload; raises ``ValueError`` for one that no line can hold."""
    if len(payload) > MAX_LINE - 4:
        raise ValueError("a pkt-line holds at most 65516 bytes")
    return b"%04x" % (len(payload) + 4) + payload


def band(channel: int, data: bytes) -> bytes:
    """Frame ``data`` for one side-band channel, in as many lines as it takes."""
    marks = range(0, len(data), _BAND_BYTES)
    return b"".join(packet(bytes([channel]) + data[at : at + _BAND_BYTES]) for at in marks)


def payload_length(digits: bytes) -> int | None:
    """Read a line's four digits: the payload's length, ``None`` for a flush.

    Delimiters (0001) and response ends (0002) belong to other messages than a push. Raises
    :class:`PktLineError`.
    """
    if not _LENGTH.fullmatch(digits):
        raise PktLineError("a line's length is four hexadecimal digits")
    length = int(digits, 16)
    if length == 0:
        return None
    if not 4 <= length <= MAX_LINE:
        raise PktLineError("a line has an impossible length")
    return length - 4


def packets(data: bytes) -> Iterator[bytes | None]:
    """Take a whole message apart, ``None`` for each flush; raises :class:`PktLineError` for a torn one."""
    at = 0
    while at < len(data):
        length = payload_length(data[at : at + 4])
        at += 4
        if length is None:
            yield None
            continue
        if at + length > len(data):
            raise PktLineError("a line is cut short")
        yield data[at : at + length]
        at += length
