"""What a server answers on a route with a credential: read through, so that no echo brings the credential in.

Stands between a server and an exchange. Content is asked for unencoded (see ``headers.head_tail``); what
comes encoded all the same is decoded, or refused where that cannot be done; so is text in a charset in which
a credential would not be known again. What is held back goes on where a line ends, where a message ends, or
once the server has said nothing for a while that no client brought about.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from bot_bottle.decision import Deny
from bot_bottle.egress.grpc import MessageEnds, is_grpc
from bot_bottle.egress.passing import PassingOn
from bot_bottle.egress.redact import Redactor
from bot_bottle.egress.upstream import ResponseSink
from bot_bottle.pipelock.unpack import BombError, OpaqueError, unpacker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bot_bottle.egress.grammar import StatusLine
    from bot_bottle.egress.headers import ResponseHeaders
    from bot_bottle.egress.redact import Needles
    from bot_bottle.egress.upstream import UpstreamError
    from bot_bottle.pipelock.unpack import Unpacker

_RULE = "egress.reflection"
#: How long a server says nothing before what was held back of what it said goes on: up to the last word, and
#: that as well.
LINGER_SECONDS = 0.2
LONG_SECONDS = 5.0
#: What compresses messages one by one, in the Connect protocol and gRPC.
_CONNECT = b"application/connect+"
_GRPC_PACKED = re.compile(rb"(?i)(?:grpc|connect-content)-encoding:[ \t]*(?!identity[ \t]*$)")


class Answered(ResponseSink, Protocol):
    """An exchange: hears the response, and can still refuse instead."""

    @property
    def behind(self) -> bool:
        """Whether the client does not keep up, or has only just begun to again."""

    @property
    def over(self) -> bool:
        """Whether nobody hears any more."""

    def refuse(self, status: int, deny: Deny) -> None:
        """Answer with a refusal, or break off where an answer has begun."""


class Reflection(PassingOn):
    """One response, without the credentials that ``needles`` knows.

    ``note`` is told once what was taken out of this response, or why it was cut off in its middle.
    """

    __slots__ = (
        "_body",
        "_head",
        "_head_request",
        "_later",
        "_messages",
        "_needles",
        "_note",
        "_noted",
        "_over",
        "_plain",
        "_spoke",
        "_waits",
    )

    def __init__(
        self,
        exchange: Answered,
        needles: Needles,
        *,
        head_request: bool,
        note: Callable[[str], None],
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        """Read an answer for ``exchange``; ``later`` calls back after so many seconds (an event loop's)."""
        super().__init__(exchange)
        self._needles = needles
        self._head_request = head_request
        self._note = note
        self._later = later
        self._waits = self._spoke = False
        self._noted = False
        self._over = False
        self._body = Redactor(needles)
        self._plain: Unpacker | None = None
        self._messages: MessageEnds | None = None
        #: Kept back until its encoded content has proven readable.
        self._head: tuple[StatusLine, ResponseHeaders] | None = None

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """Take the credentials out of a head and see how its content can be read."""
        line, headers, said = self._masked(line, headers)
        if line.status < 200:
            self._exchange.on_response_head(line, headers)
            return
        if line.status in {206, 226}:
            # Neither a range nor a difference (RFC 3229) was asked for, and in pieces a credential could be
            # read without ever being seen.
            self._refuse("response_partial", "the server sent a part of its content that nobody asked for")
            return
        if b"charset" in said and (charset := _unsearchable(headers)):
            self._refuse("response_unreadable", f"the server's answer is in the charset {charset}")
            return
        if b"grpc" not in said and b"content-encoding" not in said and _CONNECT not in said:
            self._exchange.on_response_head(line, headers)
            return
        if any(_GRPC_PACKED.match(one) for one in headers.kept):
            # Its messages are compressed one by one, inside of content that itself is not.
            self._refuse("response_unreadable", "the server's messages are compressed unasked")
            return
        kinds = _values(headers, b"content-type")
        if any(is_grpc(value) or value.lower().startswith(_CONNECT) for value in kinds):
            self._messages = MessageEnds()
        try:
            self._plain = unpacker(_encoding(headers))
        except OpaqueError as error:
            self._refuse("response_unreadable", f"the server's answer cannot be searched: {error}")
            return
        if self._plain is None:
            self._exchange.on_response_head(line, headers)
            return
        kept = [one for one in headers.kept if not _is_encoding(one)]
        headers = replace(headers, kept=kept, content_length=None)
        if self._head_request or line.status in {204, 304}:
            self._exchange.on_response_head(line, headers)
        else:
            self._head = line, headers

    def on_response_body(self, data: bytes) -> None:
        """Pass on what is sure of the content so far."""
        if self._over:
            return
        self._spoke = True
        if self._plain is not None:
            try:
                data = self._plain.feed(data)
            except OpaqueError as error:
                self._unreadable(error)
                return
            if not data:
                return
            self._send_head()
        if self._messages is None:
            self._send(self._body.feed(data))
            return
        for prefix, content, ended in self._messages.cut(data):
            if prefix and prefix[0] & 1:  # both protocols' bit; Connect marks its last message by another
                self._unreadable(OpaqueError("a message is compressed by itself"))
                return
            self._send(prefix + self._body.feed(content))
            if ended:  # its reader may say nothing before it has all of it
                self._send(self._body.finish())

    def on_response_end(self, trailers: Sequence[bytes] = ()) -> None:
        """Pass on what was held back, and the end."""
        if self._over:
            return
        if self._plain is not None and not self._head_request:
            try:
                rest = self._plain.finish()
            except OpaqueError as error:
                self._unreadable(error)
                return
            self._send_head()
            self._send(self._body.feed(rest) if rest else b"")
        self._send(self._body.finish())
        if self._messages is not None:
            self._send(self._messages.rest())
        self._exchange.on_response_end([self._needles.masked(one) for one in trailers])

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """Pass on that the connection ended early; what is held back is never shown."""
        if not self._over:
            self._over = True
            self._exchange.on_upstream_lost(error)

    def flush(self) -> None:
        """Send what there is; where more is held back, see to it that it does not wait for ever."""
        if self._body.waiting and not self._waits:
            self._wait()
        self._exchange.flush()

    def _wait(self, *, long: bool = False) -> None:
        if self._later is not None:
            self._waits, self._spoke = True, False
            self._later(LONG_SECONDS if long else LINGER_SECONDS, partial(self._on_silence, long=long))

    def _on_silence(self, *, long: bool) -> None:
        """Let on what is held, if the server has said nothing since and the client was ready for it."""
        self._waits = False
        if self._over or self._exchange.over or not self._body.waiting:
            return
        if self._spoke or self._exchange.behind:
            # Where a client does not read, the server stops where that client wants: inside of a credential.
            self._wait()
            return
        self._send(self._body.linger(long=long))
        self._exchange.flush()
        if not long and self._body.waiting:
            self._wait(long=True)

    def _masked(
        self, line: StatusLine, headers: ResponseHeaders
    ) -> tuple[StatusLine, ResponseHeaders, bytes]:
        """Give the head without its credentials, and all of it in lower case."""
        text = b"\r\n".join((line.line, *headers.kept))
        masked = self._needles.masked(text)
        if masked is text:
            return line, headers, text.lower()
        self._tell(found=True)
        first, *kept = masked.split(b"\r\n")
        return line._replace(line=first), replace(headers, kept=kept), masked.lower()

    def _send_head(self) -> None:
        if self._head is not None:
            line, headers = self._head
            self._head = None
            self._exchange.on_response_head(line, headers)

    def _send(self, data: bytes) -> None:
        self._tell()
        if data:
            self._exchange.on_response_body(data)

    def _tell(self, *, found: bool = False) -> None:
        if (found or self._body.found) and not self._noted:
            self._noted = True
            self._note("a credential was taken out of the answer")

    def _unreadable(self, error: OpaqueError) -> None:
        if self._head is None:
            self._note(f"the answer was cut off: {error}")  # no refusal can be written into it any more
        reason = "response_too_large" if isinstance(error, BombError) else "response_unreadable"
        self._refuse(reason, f"the server's answer cannot be searched: {error}")

    def _refuse(self, reason: str, message: str) -> None:
        self._over = True
        self._head = None
        deny = Deny(
            reason=reason,
            rule=_RULE,
            message=f"{message}, and on a route with a credential it could show it",
            next_step="Ask for the content unencoded, or have the operator ask the server's owner",
        )
        self._exchange.refuse(502, deny)


def shows_nothing(
    needles: Needles, line: StatusLine, headers: ResponseHeaders, message: bytes, head: int
) -> bool:
    """Tell of a response that came at once that :class:`Reflection` would pass it on as it is.

    Of an answer that is not passed on so, nothing was shown by then.
    """
    if line.status in {206, 226} or line.http_1_0:
        return False
    said = message[:head].lower()
    if b"grpc" in said or b"content-encoding" in said or _CONNECT in said:
        return False
    if b"charset" in said and _unsearchable(headers):
        return False
    # A credential's beginning counts at the end of the content alone; its head ends in nothing but a line.
    return not needles.stand_in(message) and not needles.begun(message[head:])


def _values(headers: ResponseHeaders, name: bytes) -> list[bytes]:
    lines = (one.partition(b":") for one in headers.kept)
    return [value.strip() for found, _colon, value in lines if found.lower() == name]


def _unsearchable(headers: ResponseHeaders) -> str:
    """Name the charset of an answer in which ASCII is not ASCII, or that nobody knows; UTF-16 is searched."""
    for value in _values(headers, b"content-type"):
        for match in _CHARSET.finditer(value):
            charset = match[1].decode("latin-1").lower()
            if charset not in _SEARCHED and not _is_ascii(charset):
                return charset[:40] or "of no name"
    return ""


_CHARSET = re.compile(rb"(?i)charset[ \t]*=[ \t]*[\"']?([^\"';, \t]*)")
_SEARCHED = frozenset(("", "binary", "utf-16", "utf-16le", "utf-16be"))
_ASCII = bytes(range(0x20, 0x7F))


def _is_ascii(charset: str) -> bool:
    """Tell whether ASCII's characters have ASCII's bytes in a charset, and in no other way."""
    try:
        text = _ASCII.decode(charset)
        return text == _ASCII.decode("ascii") and text.encode(charset) == _ASCII
    except (LookupError, ValueError):
        return False


def _encoding(headers: ResponseHeaders) -> str:
    values = [one.partition(b":")[2].strip().decode("latin-1") for one in headers.kept if _is_encoding(one)]
    return ",".join(values)


def _is_encoding(line: bytes) -> bool:
    return line[:17].lower() == b"content-encoding:"
