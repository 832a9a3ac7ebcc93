"""Where messages end in a gRPC body (gRPC over HTTP/2, Length-Prefixed-Message); pure.

A call may wait for the answer to a message before it says the next one, so nothing of a whole message may be
held back for what comes behind it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX_BYTES = 5


def is_grpc(content_type: bytes) -> bool:
    """Tell whether a Content-Type is gRPC's own (its relatives for browsers frame and end differently)."""
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == b"application/grpc" or kind.startswith(b"application/grpc+")


class MessageEnds:
    """Finds the messages in a body that comes in any pieces."""

    __slots__ = ("_left", "_prefix")

    def __init__(self) -> None:
        self._prefix = b""
        self._left = 0

    def cut(self, data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
        """Give ``data`` as (prefix, content, end): where a message begins its prefix, and whether it ends.

        A prefix's first byte says whether the message is compressed by itself.
        """
        position, size = 0, len(data)
        while position < size:
            prefix = b""
            if not self._left:
                step = min(_PREFIX_BYTES - len(self._prefix), size - position)
                self._prefix += data[position : position + step]
                position += step
                if len(self._prefix) < _PREFIX_BYTES:
                    return
                prefix, self._prefix = self._prefix, b""
                self._left = int.from_bytes(prefix[1:], "big")
            step = min(self._left, size - position)
            self._left -= step
            yield prefix, data[position : position + step], not self._left
            position += step

    def rest(self) -> bytes:
        """Give what is left at the end of the body: a prefix that is not whole."""
        rest, self._prefix = self._prefix, b""
        return rest
