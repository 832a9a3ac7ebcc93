"""What stands between a server and an exchange and has nothing to say of most that it hears."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot_bottle.decision import Deny
    from bot_bottle.egress.grammar import StatusLine
    from bot_bottle.egress.headers import ResponseHeaders
    from bot_bottle.egress.reflection import Answered
    from bot_bottle.egress.upstream import UpstreamError


class PassingOn:
    """Passes on whatever it hears."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Answered) -> None:
        self._exchange = exchange

    @property
    def behind(self) -> bool:
        """Whether the client does not keep up, or has only just begun to again."""
        return self._exchange.behind

    @property
    def over(self) -> bool:
        """Whether nobody hears any more."""
        return self._exchange.over

    def on_whole_response(
        self, line: StatusLine, headers: ResponseHeaders, message: bytes, head: int
    ) -> None:
        """Take an answer that came at once like one that comes in pieces."""
        self.on_response_head(line, headers)
        if head < len(message):
            self.on_response_body(message[head:])
        self.on_response_end()

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """Pass on a head."""
        self._exchange.on_response_head(line, headers)

    def on_response_body(self, data: bytes) -> None:
        """Pass on a piece of the content."""
        self._exchange.on_response_body(data)

    def on_response_end(self, trailers: Sequence[bytes] = ()) -> None:
        """Pass on the end."""
        self._exchange.on_response_end(trailers)

    def on_upstream_lost(self, error: UpstreamError) -> None:
        """Pass on that the connection ended early."""
        self._exchange.on_upstream_lost(error)

    def refuse(self, status: int, deny: Deny) -> None:
        """Pass on a refusal in the answer's place."""
        self._exchange.refuse(status, deny)

    def on_tunnel_data(self, data: bytes) -> None:
        """Pass on bytes of an upgraded connection; who reads its messages is the conversation."""
        self._exchange.on_tunnel_data(data)

    def on_upstream_writable(self, *, writable: bool) -> None:
        """Pass on whether the server keeps up."""
        self._exchange.on_upstream_writable(writable=writable)

    def flush(self) -> None:
        """Pass on that it is time to send."""
        self._exchange.flush()
