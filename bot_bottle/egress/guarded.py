"""An answer on its way to an exchange, behind who searches it for credentials and who reads it for orders.

Most answers come at once, whole, and hold nothing that anyone objects to. That is seen by looking at them
once; only what is not plainly so is read by those who can follow an answer in any pieces, and change it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.egress.answers import orders_nothing, read_for
from bot_bottle.egress.passing import PassingOn
from bot_bottle.egress.reflection import Reflection, shows_nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.egress.answers import Record
    from bot_bottle.egress.grammar import StatusLine
    from bot_bottle.egress.headers import ResponseHeaders
    from bot_bottle.egress.pool import Destination
    from bot_bottle.egress.reflection import Answered
    from bot_bottle.pipelock.instructions import Reader

#: What is longer is read in pieces, as it comes.
_MOST_AT_ONCE = 64 * 1024


class Guarded(PassingOn):
    """One response; those who read it closely are made once one must."""

    __slots__ = ("_destination", "_head_request", "_later", "_reader", "_record")

    def __init__(
        self,
        exchange: Answered,
        reader: Reader | None,
        destination: Destination,
        *,
        head_request: bool,
        record: Record,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """Stand before ``exchange``; ``reader`` looks for orders, where anyone does.

        ``record`` is told what was seen, ``later`` calls back after so many seconds (an event loop's).
        """
        super().__init__(exchange)
        self._reader: Reader | None = reader
        self._destination: Destination | None = destination
        self._head_request = head_request
        self._record = record
        self._later = later

    def on_whole_response(
        self, line: StatusLine, headers: ResponseHeaders, message: bytes, head: int
    ) -> None:
        """Pass on an answer in which there is nothing, or let it be read closely."""
        if self._destination is not None and self._is_clean(line, headers, message, head):
            self._exchange.on_whole_response(line, headers, message, head)
        else:
            super().on_whole_response(line, headers, message, head)

    def on_response_head(self, line: StatusLine, headers: ResponseHeaders) -> None:
        """Have what begins here read closely."""
        if self._destination is not None:
            self._read_closely(self._destination)
        self._exchange.on_response_head(line, headers)

    def _is_clean(self, line: StatusLine, headers: ResponseHeaders, message: bytes, head: int) -> bool:
        """Tell that none of those who read closely would change, hold or note anything."""
        needles = self._destination.needles if self._destination is not None else None
        if len(message) > _MOST_AT_ONCE or self._head_request:
            return False
        try:
            return (needles is None or shows_nothing(needles, line, headers, message, head)) and (
                self._reader is None or orders_nothing(self._reader, line, headers, message, head)
            )
        except Exception:  # noqa: BLE001 - who reads closely meets it again, and says what comes of it
            return False

    def _read_closely(self, destination: Destination) -> None:
        exchange, record, head_request = self._exchange, self._record, self._head_request
        self._destination = None
        if self._reader is not None:
            exchange = read_for(exchange, self._reader, destination, head_request=head_request, record=record)
        if destination.needles is not None:

            def note(message: str) -> None:
                record("answer", host=destination.host, message=message)

            exchange = Reflection(
                exchange, destination.needles, head_request=head_request, note=note, later=self._later
            )
        self._exchange = exchange
