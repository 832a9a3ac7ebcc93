"""TLS on a connected transport: a protocol to the socket below, a transport to the protocol above.

The event loop's own TLS layer drops what it has decrypted and not delivered when it is paused as the stream
ends, closes both ways at the first close_notify, and sets 256 KiB a connection aside. This one holds no
plain text: what arrives is decrypted and delivered before the call returns, and a pause stops the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

#: The most that one record carries (RFC 8446, 5.1); in such pieces OpenSSL's buffers stay small.
_RECORD_BYTES = 16 * 1024
#: How much of what came is decrypted and delivered at a time.
_PIECE_BYTES = 64 * 1024
#: How much of it is given to OpenSSL at a time: its buffer grows to what it ever held, and stays.
_GIVEN_BYTES = 16 * 1024


class TlsStream(asyncio.Protocol, asyncio.Transport):
    """One TLS connection, client's or server's side."""

    def __init__(
        self,
        app: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        loop: asyncio.AbstractEventLoop,
        handshake_seconds: float,
        server_hostname: str | None = None,
        done: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        """Let ``app`` speak through TLS: a client's where ``server_hostname`` says whose, else a server's.

        ``app`` is connected once the handshake is over. Then, or when it fails, ``done`` is called, with
        what went wrong. The handshake begins with :meth:`connection_made`.
        """
        self._app = app
        self._loop = loop
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self._read = self._session.read
        self._encrypt = self._session.write
        self._handshake_seconds = handshake_seconds
        self._done = done
        self._raw: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._up = False
        self._ended = False
        self._closing = False

    # The protocol's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        self._raw = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(self._handshake_seconds, self._time_out)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Decrypt what came and deliver it."""
        if len(data) <= _GIVEN_BYTES:
            self._take((data,))
            return
        view = memoryview(data)
        for start in range(0, len(data), _PIECE_BYTES):
            end = min(len(data), start + _PIECE_BYTES)
            self._take([view[at : min(end, at + _GIVEN_BYTES)] for at in range(start, end, _GIVEN_BYTES)])

    def _take(self, parts: Sequence[bytes | memoryview]) -> None:
        """Decrypt ``parts`` and deliver at once what is in them."""
        if self._is_deaf():
            return
        pieces: list[bytes] = []
        try:
            for part in parts:
                self._incoming.write(part)
                if not self._up:
                    self._shake_hands()
                if self._up:
                    self._decrypt(pieces)
                if self._is_deaf():
                    break
        except ssl.SSLError:
            self.abort()
            return
        if not self._up:
            return
        if self._outgoing.pending and self._raw is not None:
            self._raw.write(self._outgoing.read())  # an answer of TLS itself, such as to a key update
        if pieces:
            self._app.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if self._ended and not self._app.eof_received():
            self.close()

    def _is_deaf(self) -> bool:
        return self._ended or self._closing

    def _decrypt(self, pieces: list[bytes]) -> None:
        """Add what can be read by now to ``pieces``; raises ``ssl.SSLError``."""
        incoming, read = self._incoming, self._read
        try:
            while incoming.pending:
                piece = read(_RECORD_BYTES)
                if not piece:
                    self._ended = True
                    return
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        except ssl.SSLZeroReturnError:
            self._ended = True  # what an empty piece says, where we have sent our own close_notify before

    def eof_received(self) -> bool:
        """Take the end of the socket's stream: a cut where no close_notify came first (RFC 8446, 6.1)."""
        return self._ended and self._up and not self._closing

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the protocol above, or whoever waits for the handshake."""
        self._raw = None
        self._closing = True
        if self._up:
            self._app.connection_lost(exc)
        else:
            self._fail(exc or ConnectionResetError("the connection ended in the TLS handshake"))

    def pause_writing(self) -> None:
        """Tell the protocol above that the peer does not keep up."""
        if self._up:
            self._app.pause_writing()

    def resume_writing(self) -> None:
        """Tell the protocol above that the peer keeps up again."""
        if self._up:
            self._app.resume_writing()

    # The handshake.

    def _shake_hands(self) -> None:
        raw = self._raw
        if raw is None:
            return
        error: BaseException | None = None
        try:
            self._session.do_handshake()
            self._up = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLError, ssl.CertificateError, OSError, ValueError) as failure:
            error = failure
        if self._outgoing.pending:
            raw.write(self._outgoing.read())
        if error is not None:
            self._fail(error)
            raw.close()  # behind the alert that says why
        elif self._up:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._app.connection_made(self)
            done, self._done = self._done, None
            if done is not None:
                done(None)

    def _time_out(self) -> None:
        self._fail(TimeoutError("the TLS handshake took too long"))
        self.abort()

    def _fail(self, error: BaseException) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._closing = True
        done, self._done = self._done, None
        if done is not None:
            done(error)

    # The transport's side.

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Encrypt and send."""
        raw = self._raw
        if raw is None or self._closing:
            return
        try:
            if len(data) <= _RECORD_BYTES:
                self._encrypt(data)
                raw.write(self._outgoing.read())
                return
            view = memoryview(data)
            records = []
            for start in range(0, len(data), _RECORD_BYTES):
                self._encrypt(view[start : start + _RECORD_BYTES])
                records.append(self._outgoing.read())
            raw.writelines(records)
        except ssl.SSLError:
            self.abort()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Encrypt and send several pieces."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """Tell that one direction can be closed by itself."""
        return True

    def write_eof(self) -> None:
        """Say that nothing more will be sent; what the peer still says is delivered."""
        if self._raw is not None and not self._closing:
            self._say_goodbye(self._raw)
            if self._raw.can_write_eof():
                self._raw.write_eof()

    def close(self) -> None:
        """Send what is waiting and a close_notify, then close."""
        if self._raw is None or self._closing:
            return
        self._closing = True
        if self._up:
            self._say_goodbye(self._raw)
        self._raw.close()

    def _say_goodbye(self, raw: asyncio.Transport) -> None:
        # It complains that the peer has not said its own close_notify, which nobody waits for.
        with contextlib.suppress(ssl.SSLError):
            self._session.unwrap()
        if self._outgoing.pending:
            raw.write(self._outgoing.read())

    def abort(self) -> None:
        """Drop the connection at once."""
        self._closing = True
        if self._raw is not None:
            self._raw.abort()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Let another protocol speak from here on."""
        self._app = cast("asyncio.Protocol", protocol)

    @property
    def speaks_http2(self) -> bool:
        """Whether both sides chose HTTP/2 in their handshake (ALPN ``h2``, RFC 7301)."""
        return self._up and self._session.selected_alpn_protocol() == "h2"

    def is_closing(self) -> bool:
        """Tell whether the connection is closed or about to be."""
        return self._closing or self._raw is None or self._raw.is_closing()

    def pause_reading(self) -> None:
        """Leave what comes in the kernel."""
        if self._raw is not None and not self._raw.is_closing():
            self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Take what comes again."""
        if self._raw is not None and not self._raw.is_closing():
            self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Say how much may wait to be sent before :meth:`pause_writing` of the protocol above is called."""
        if self._raw is not None:
            self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Tell how many bytes wait to be sent."""
        return self._raw.get_write_buffer_size() if self._raw is not None else 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give ``ssl_object``, or what the transport below knows under ``name``."""
        if name == "ssl_object":
            return self._session
        return self._raw.get_extra_info(name, default) if self._raw is not None else default
