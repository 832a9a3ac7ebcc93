"""How long a message's body is, read off its framing (RFC 9112, 6 and 7).

A decoder is given what arrives and says which of it is the body's own bytes and where the message ends.
"""

from __future__ import annotations

import re
from typing import Protocol

from bot_bottle.egress.grammar import BadMessageError, read_field_line

#: A chunk's size; extensions are read over and dropped. More than 15 digits would overflow other readers.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")

#: Fields that must stand in the head (RFC 9110, 6.5.1).
_NO_TRAILERS = frozenset({b"content-length", b"host", b"transfer-encoding"})

_MAX_LINE = 4096
_MAX_TRAILERS = 16 * 1024


class Body(Protocol):
    """A body being read; ``done`` says that its end has been seen."""

    done: bool

    def take(self, data: bytes, start: int) -> tuple[bytes, int]:
        """Give the body's bytes in ``data`` from ``start`` and where what is left of ``data`` begins."""


class LengthBody:
    """A body of a known number of bytes."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length

    def take(self, data: bytes, start: int) -> tuple[bytes, int]:
        """Give the body's bytes in ``data`` from ``start`` and where what is left of ``data`` begins."""
        end = min(start + self._left, len(data))
        self._left -= end - start
        self.done = not self._left
        return (data if end - start == len(data) else data[start:end]), end


class EndlessBody:
    """A body that ends with its connection."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def take(self, data: bytes, start: int) -> tuple[bytes, int]:
        """Give all of ``data`` from ``start``."""
        return (data[start:] if start else data), len(data)


class ChunkedBody:
    """A chunked body; extensions and trailers are checked and dropped. Raises :class:`BadMessageError`."""

    __slots__ = ("_left", "_line", "_state", "_trailers", "done")

    def __init__(self) -> None:
        self.done = False
        self._state = _SIZE
        self._left = 0
        self._line = b""
        self._trailers = 0

    def take(self, data: bytes, start: int) -> tuple[bytes, int]:
        """Give the body's bytes in ``data`` from ``start`` and where what is left of ``data`` begins."""
        pieces: list[bytes] = []
        position, size = start, len(data)
        while position < size and not self.done:
            if self._state is _DATA:
                end = min(size, position + self._left)
                pieces.append(data[position:end])
                self._left -= end - position
                position = end
                if not self._left:
                    self._state = _AFTER
                continue
            end = data.find(b"\n", position) + 1
            if not end:
                self._line += data[position:]
                position = size
                if len(self._line) > _MAX_LINE:
                    raise BadMessageError("a line of the chunked body is too long")
                break
            self._on_line(self._line + data[position:end])
            self._line = b""
            position = end
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), position

    def _on_line(self, line: bytes) -> None:
        if len(line) > _MAX_LINE:
            raise BadMessageError("a line of the chunked body is too long")
        if self._state is _SIZE:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise BadMessageError("a chunk's size is not one hexadecimal number", reason="smuggling")
            self._left = int(match[1], 16)
            self._state = _DATA if self._left else _TRAILERS
        elif self._state is _AFTER:
            if line != b"\r\n":
                raise BadMessageError("a chunk is longer than its size", reason="smuggling")
            self._state = _SIZE
        elif line == b"\r\n":
            self.done = True
        else:
            self._trailers += len(line)
            if not line.endswith(b"\r\n") or self._trailers > _MAX_TRAILERS:
                raise BadMessageError("the trailers of the chunked body are not well-formed")
            if read_field_line(line[:-2]).name in _NO_TRAILERS:
                raise BadMessageError("a trailer would change how the message is read", reason="smuggling")


_SIZE, _DATA, _AFTER, _TRAILERS = range(4)


def chunk(data: bytes) -> bytes:
    """Write one chunk; ``data`` is not empty, since an empty chunk ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
