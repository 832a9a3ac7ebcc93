"""The strict grammar of HTTP/1.1 heads (RFC 9112): lines out of bytes, or a refusal, never a guess.

A line ends in CRLF and holds neither of the two; a name is a token that ends at its colon; a value has no
control characters; nothing is folded. What passes is what every other reader of HTTP/1.1 reads too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle.decision import Deny

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADER_LINES = 200

#: The registered methods (RFC 9110, 16.1.1) and those of UPnP and of caches. Another word, "get" among them,
#: is read differently by different servers. PRI begins an HTTP/2 connection and is none.
METHODS = frozenset(
    (
        b"ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK M-SEARCH "
        b"MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE NOTIFY OPTIONS ORDERPATCH PATCH "
        b"POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND "
        b"UNCHECKOUT UNLINK UNLOCK UNSUBSCRIBE UPDATE UPDATEREDIRECTREF VERSION-CONTROL"
    ).split()
)

#: What may stand in a request target, a field name, a field line and a head as a whole. ``bytes.translate``
#: with one of these deleted leaves what may not, faster than any pattern.
_TARGET_BYTES = bytes(range(0x21, 0x7F))
_ORIGIN_BYTES = _TARGET_BYTES.replace(b"#", b"")
_TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LINE_BYTES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
_HEAD_BYTES = _LINE_BYTES + b"\r\n"

_CACHED_LINE = 128


class BadMessageError(ValueError):
    """A message that cannot be read in one way only; carries the HTTP status and the refusal."""

    def __init__(self, message: str, *, reason: str = "bad_request", status: int = 400) -> None:
        super().__init__(message)
        self.status = status
        self.deny = Deny(
            reason=reason,
            rule="egress.http",
            message=message,
            next_step="Send one well-formed HTTP/1.1 request (RFC 9112)",
        )


class RequestLine(NamedTuple):
    """A request line; ``target`` is printable ASCII."""

    method: bytes
    target: bytes
    http_1_0: bool


class StatusLine(NamedTuple):
    """A status line; ``line`` is how it goes on to the client."""

    status: int
    line: bytes
    http_1_0: bool


class FieldLine(NamedTuple):
    """One header line: the name in lower case, the value without the space around it, and both as written.

    ``line`` is ``Name: value`` in its one spelling, ready to be sent on.
    """

    name: bytes
    value: bytes
    line: bytes


def header_too_large() -> BadMessageError:
    """Give the refusal of a request whose header passes the bounds."""
    return BadMessageError(
        "the header is over its bounds (64 KiB, 200 lines)", reason="too_large", status=431
    )


def good_target(target: bytes) -> bool:
    """Tell whether a request target is printable ASCII and more than nothing."""
    return bool(target) and not target.translate(None, _TARGET_BYTES)


def is_origin_form(target: bytes) -> bool:
    """Tell whether a request target is a path and perhaps a query, without a fragment."""
    return target[:1] == b"/" and not target.translate(None, _ORIGIN_BYTES)


def read_request_line(line: bytes) -> RequestLine:
    """Read ``METHOD target HTTP/1.x``; raises :class:`BadMessageError`."""
    parts = line.split(b" ")
    if len(parts) == 3 and parts[0] in METHODS and good_target(parts[1]):
        version = parts[2]
        if version == b"HTTP/1.1":
            return RequestLine(parts[0], parts[1], http_1_0=False)
        if version == b"HTTP/1.0":
            return RequestLine(parts[0], parts[1], http_1_0=True)
        if len(version) == 8 and version.startswith(b"HTTP/") and version[5:6].isdigit():
            raise BadMessageError(
                f"{version.decode('latin-1')} is not spoken here", reason="http_version", status=505
            )
    if line.startswith(b"CONNECT "):
        raise BadMessageError("the CONNECT line names no one host:port", reason="bad_authority", status=403)
    raise BadMessageError("the request line is not 'METHOD target HTTP/1.1'")


def read_status_line(line: bytes) -> StatusLine:
    """Read ``HTTP/1.x status phrase``; raises :class:`BadMessageError`."""
    return _read_status_line(line) if len(line) <= _CACHED_LINE else _status_line(line)


def _status_line(line: bytes) -> StatusLine:
    version, code, phrase = line[:9], line[9:12], line[13:]
    known = version in {b"HTTP/1.1 ", b"HTTP/1.0 "}
    if not known or len(code) != 3 or not code.isdigit() or line[12:13] not in {b" ", b""}:
        raise BadMessageError("the server's answer is not HTTP/1.1", status=502)
    if line.translate(None, _LINE_BYTES):
        raise BadMessageError("the server's status line has control characters", status=502)
    if code < b"100":  # RFC 9110, 15: none of these is a status, and nothing says whether more follows it
        raise BadMessageError("the server's answer has no status of HTTP's", status=502)
    return StatusLine(int(code), b"HTTP/1.1 %b %b" % (code, phrase), http_1_0=version == b"HTTP/1.0 ")


_read_status_line = lru_cache(maxsize=128)(_status_line)


def split_lines(block: bytes) -> list[bytes]:
    """Split header lines at their CRLF.

    Raises :class:`BadMessageError` for a CR or LF by itself and for any other control character but tab.
    """
    if not block:
        return []
    lines = block.split(b"\r\n")
    # What is left without the allowed bytes must be the very CRLFs that were split at, and nothing else.
    if block.translate(None, _LINE_BYTES) != b"\r\n" * (len(lines) - 1):
        raise BadMessageError("a header has control characters, or a CR or LF by itself")
    return lines


def read_field_line(line: bytes) -> FieldLine:
    """Read one header line; raises :class:`BadMessageError` where it is no ``name: value``."""
    # Clients repeat their lines word for word; what one says was found out before.
    return _read_field_line(line) if len(line) <= _CACHED_LINE else _field_line(line)


def _field_line(line: bytes) -> FieldLine:
    name, colon, raw = line.partition(b":")
    if not colon or not is_token(name):
        # RFC 9112, 5.1 and 5.2: no space before the colon, and no line that goes on with the one before.
        raise BadMessageError("a header line is not 'Name: value'")
    if raw.translate(None, _LINE_BYTES):
        raise BadMessageError("a header value has control characters")
    value = raw.strip(b" \t")
    return FieldLine(name.lower(), value, name + b": " + value)


_read_field_line = lru_cache(maxsize=1024)(_field_line)


def is_token(name: bytes) -> bool:
    """Tell whether ``name`` is a token (RFC 9110, 5.6.2)."""
    return bool(name) and not name.translate(None, _TOKEN_BYTES)


def has_control(block: bytes) -> bool:
    """Tell whether header lines hold a control character other than tab and line ends."""
    return bool(block.translate(None, _HEAD_BYTES))


class HeadBuffer:
    """A head that arrives in pieces. What has been looked at once is not looked at again."""

    __slots__ = ("_limit", "_looked", "_read_line", "_seen_line", "data")

    def __init__(self, read_line: Callable[[bytes], object], *, limit: int = MAX_HEAD_BYTES) -> None:
        """Hold a head of at most ``limit`` bytes whose first line ``read_line`` takes or refuses."""
        self.data = bytearray()
        self._read_line = read_line
        self._limit = limit
        self._looked = 0
        self._seen_line = False

    def set(self, data: bytes) -> None:
        """Start with ``data``."""
        self.data = bytearray(data)
        self._looked = 0
        self._seen_line = False

    def clear(self) -> None:
        """Forget everything."""
        if self.data:
            self.set(b"")

    def end(self) -> int:
        """Give where the empty line begins that ends the head, -1 if it has not come yet."""
        return self.data.find(b"\r\n\r\n", max(0, self._looked - 3))

    def check(self) -> None:
        """Refuse what can no longer become a head, without waiting for its end.

        Raises :class:`BadMessageError`, also where the head is too large already.
        """
        data, looked = self.data, self._looked
        self._looked = len(data)
        if len(data) > self._limit:
            raise header_too_large()
        fresh = max(0, looked - 1)
        piece = bytes(data[fresh:])
        if has_control(piece):
            raise BadMessageError("a header has control characters")
        # A trailing CR may be half of a line's end.
        pairs = piece.count(b"\r\n")
        loose = fresh > 0 and piece.startswith(b"\n") and data[fresh - 1] == 0x0D
        if piece.count(b"\n") != pairs + loose or piece.removesuffix(b"\r").count(b"\r") != pairs:
            raise BadMessageError("a CR or LF stands by itself")
        if not self._seen_line:
            line, found, _rest = data.partition(b"\r\n")
            if found:
                self._seen_line = True
                self._read_line(bytes(line))
