"""What an exchange needs of its client: a connection that speaks HTTP/1.1, or one stream of HTTP/2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bot_bottle.egress.answering import Answering
    from bot_bottle.egress.proxy import EgressProxy
    from bot_bottle.egress.target import Arrival


class Client(Protocol):
    """Who asks and is answered.

    ``arrival`` is how its connection came; ``write_paused`` says that it does not keep up with its answer.
    """

    @property
    def proxy(self) -> EgressProxy:
        """The egress it came to."""

    @property
    def arrival(self) -> Arrival:
        """How it came."""

    @property
    def write_paused(self) -> bool:
        """Whether nothing more should be sent for now."""

    def send(self, data: bytes) -> None:
        """Gather bytes for the client; :meth:`flush` sends them."""

    def flush(self) -> None:
        """Send what was gathered."""

    def finish(self) -> None:
        """Send what is waiting and close."""

    def abort(self) -> None:
        """Drop the answer, and whatever it is part of that cannot go on without it."""

    def hold_reading(self, exchange: Answering, *, hold: bool) -> None:
        """Stop or go on reading, as ``exchange`` can take more of its request or not."""

    def enter_tunnel(self, exchange: Answering) -> None:
        """From here on bytes belong to ``exchange``'s upgraded connection."""

    def exchange_done(self, exchange: Answering) -> None:
        """Hear that ``exchange`` is over."""
