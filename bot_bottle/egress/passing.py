"""What stands between a server and an exchange and has nothing to say of most that it hears."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bot_bottle.egress.reflection import Answered


class PassingOn:
    """Passes on what does not belong to an answer's head or content."""

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

    def on_tunnel_data(self, data: bytes) -> None:
        """Pass on bytes of an upgraded connection; who reads its messages is the conversation."""
        self._exchange.on_tunnel_data(data)

    def on_upstream_writable(self, *, writable: bool) -> None:
        """Pass on whether the server keeps up."""
        self._exchange.on_upstream_writable(writable=writable)

    def flush(self) -> None:
        """Pass on that it is time to send."""
        self._exchange.flush()
