"""As much HTTP/1.1 as git speaks (RFC 9112), strictly: one request a connection, every part bounded."""

from __future__ import annotations

import asyncio
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_HEAD = 16 * 1024
_HEAD_SECONDS = 30.0
#: How long one piece of a body, or room for one of an answer, may take to come.
IDLE_SECONDS = 60.0
_PIECE = 64 * 1024
_REQUEST = re.compile(rb"(GET|POST) (/[\x21-\x7e]{0,4096}) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\t\x80-\xff]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\x20-\x7e]*)?\r\n")
_NUMBER = re.compile(r"[0-9]{1,15}")

_PHRASES = {
    200: "OK",
    307: "Temporary Redirect",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


class HttpError(Exception):
    """A request that is answered with ``status`` and one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. Header names are lower case, ``path`` and ``query`` as they came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: Body


class Body:
    """A request's content, read once; ``limit`` bounds it in bytes, decoded."""

    def __init__(self, stream: asyncio.StreamReader, headers: Mapping[str, str]) -> None:
        self._stream = stream
        self._chunked = "transfer-encoding" in headers
        self._left = int(headers.get("content-length", "0"))
        self._done = not self._chunked and self._left == 0
        self._in_chunk = False
        encoding = headers.get("content-encoding", "identity").lower()
        if encoding not in {"identity", "gzip", "x-gzip"}:
            raise HttpError(415, "a request's content may be gzip at most")
        self._unzip = None if encoding == "identity" else zlib.decompressobj(wbits=31)
        self._buffer = b""
        self.received = 0

    async def read(self) -> bytes:
        """Give the next piece, at most 64 KiB, ``b""`` at the end.

        Raises :class:`HttpError` or ``EOFError``.
        """
        if self._buffer:
            piece, self._buffer = self._buffer[:_PIECE], self._buffer[_PIECE:]
            return piece
        if self._unzip is None:
            piece = await self._raw()
        else:
            piece = await self._unzipped(self._unzip)
        self.received += len(piece)
        return piece

    @property
    def forsaken(self) -> bool:
        """Whether the client has gone: none of git's closes its end before it has its answer."""
        return self._stream.at_eof() or self._stream.exception() is not None

    async def exactly(self, count: int) -> bytes:
        """Give exactly ``count`` bytes; raises ``EOFError`` where there are fewer."""
        parts, have = [], 0
        while have < count:
            piece = await self.read()
            if not piece:
                raise EOFError("the request ended early")
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._buffer = data[count:] + self._buffer
        return data[:count]

    async def _unzipped(self, unzip: zlib._Decompress) -> bytes:
        while True:
            try:
                data = unzip.decompress(unzip.unconsumed_tail or await self._raw(), _PIECE)
            except zlib.error:
                raise HttpError(400, "the request's gzip content is broken") from None
            if data:
                return data
            if unzip.eof:
                if unzip.unused_data or await self._raw():
                    raise HttpError(400, "the request's gzip content has more behind it")
                return b""
            if self._done and not unzip.unconsumed_tail:
                raise EOFError("the request ended early")

    async def _raw(self) -> bytes:
        if self._done:
            return b""
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                return await self._piece()
        except TimeoutError:
            raise HttpError(408, "the request's content stopped coming") from None

    async def _piece(self) -> bytes:
        if self._chunked and self._left == 0:
            await self._next_chunk()
            if self._done:
                return b""
        piece = await self._stream.read(min(self._left, _PIECE))
        if not piece:
            raise EOFError("the request ended early")
        self._left -= len(piece)
        if not self._chunked and self._left == 0:
            self._done = True
        return piece

    async def _next_chunk(self) -> None:
        if self._in_chunk and await self._stream.readexactly(2) != b"\r\n":
            raise HttpError(400, "a chunk does not end where it should")
        match = _CHUNK.fullmatch(await self._stream.readuntil(b"\n"))
        if match is None:
            raise HttpError(400, "a chunk has no length")
        self._left, self._in_chunk = int(match[1], 16), True
        if self._left == 0:
            if await self._stream.readuntil(b"\n") != b"\r\n":
                raise HttpError(400, "trailers are not taken")
            self._done = True


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """Read a request's head, ``None`` where nobody asks; raises :class:`HttpError` or ``EOFError``."""
    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    except TimeoutError:
        raise HttpError(408, "the request's header did not come within 30 s") from None
    except asyncio.LimitOverrunError:
        raise HttpError(400, "the request's header is too long") from None
    if len(head) > _MAX_HEAD:
        raise HttpError(400, "the request's header is too long")
    first, *lines = head[:-4].split(b"\r\n")
    match = _REQUEST.fullmatch(first)
    if match is None:
        raise HttpError(400, "the gate takes GET and POST of HTTP/1.1 alone")
    headers = _headers(lines)
    path, _, query = match[2].decode("ascii").partition("?")
    body = Body(reader, headers)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return Request(method=match[1].decode(), path=path, query=query, headers=headers, body=body)


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise HttpError(400, "a header line is malformed")
        name, value = match[1].decode().lower(), match[2].decode("latin-1")
        if name in headers:
            # RFC 9110, 5.3: a list may come in several lines; of what frames a message only one is believed.
            if name in {"content-length", "transfer-encoding", "host", "content-encoding", "expect"}:
                raise HttpError(400, f"the header {name} comes twice")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise HttpError(400, "the request's length is ambiguous")
    elif not _NUMBER.fullmatch(headers.get("content-length", "0")):
        raise HttpError(400, "the request's length is no number")
    return headers


class Response:
    """An answer in the making: head first, then as many pieces as it takes; slow readers are let go."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.begun = False

    async def begin(self, content_type: str) -> None:
        """Write the head of a chunked 200."""
        self.begun = True
        await self._write(_head(200, (("Content-Type", content_type), ("Transfer-Encoding", "chunked"))))

    async def send(self, data: bytes) -> None:
        """Write one piece; raises ``ConnectionError`` or ``TimeoutError`` where nobody takes it."""
        if data:
            await self._write(b"%x\r\n%b\r\n" % (len(data), data))

    async def finish(self) -> None:
        """Write the last chunk."""
        await self._write(b"0\r\n\r\n")

    async def whole(self, status: int, content_type: str, data: bytes, *more: tuple[str, str]) -> None:
        """Write a whole answer at once."""
        self.begun = True
        fields = (("Content-Type", content_type), ("Content-Length", str(len(data))), *more)
        await self._write(_head(status, fields) + data)

    async def _write(self, data: bytes) -> None:
        if self._writer.is_closing():
            raise ConnectionResetError
        self._writer.write(data)
        async with asyncio.timeout(IDLE_SECONDS):
            await self._writer.drain()


def _head(status: int, fields: tuple[tuple[str, str], ...]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_PHRASES[status]}"]
    lines += [f"{name}: {value}" for name, value in fields]
    # gitprotocol-http(5): answers must not be cached.
    lines += ["Cache-Control: no-cache, max-age=0, must-revalidate", "Connection: close"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
