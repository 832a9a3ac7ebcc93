"""An upgraded connection between a client and its server: what may pass of each side's bytes, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot_bottle.egress.frames import close_frame

if TYPE_CHECKING:
    from bot_bottle.decision import Deny
    from bot_bottle.egress.client import Client
    from bot_bottle.egress.counters import Tally
    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.upstream import Upstream
    from bot_bottle.egress.websocket import Conversation

_POLICY_VIOLATION = 1008
_PROTOCOL_ERROR = 1002


class Tunnel:
    """Carries one WebSocket whose handshake was ``request``; ``frames`` reads and judges both sides."""

    __slots__ = ("_client", "_frames", "_over", "_recorded", "_request", "_tally", "_upstream")

    def __init__(
        self,
        frames: Conversation,
        *,
        client: Client,
        upstream: Upstream,
        request: EgressRequest,
        tally: Tally | None,
    ) -> None:
        self._frames = frames
        self._client = client
        self._upstream = upstream
        self._request = request
        self._tally = tally
        self._over = False
        self._recorded = False

    def from_client(self, data: bytes) -> None:
        """Pass on what may leave of the client's bytes."""
        if self._over:
            return
        passed, deny = self._frames.from_client(data)
        if self._frames.notices:
            said, self._frames.notices = self._frames.notices, ()
            unrecorded = self._client.proxy.record_notices(self._request, said)
            if unrecorded is not None:
                passed, deny = b"", unrecorded
        if self._tally is not None:
            self._tally.bytes_out += len(passed)
        if passed:
            self._upstream.write(passed)
        if deny is not None:
            self._refuse(deny)

    def from_server(self, data: bytes) -> None:
        """Pass back what may be seen of the server's bytes."""
        if self._over:
            return
        passed, deny = self._frames.from_server(data)
        if self._tally is not None:
            self._tally.bytes_in += len(passed)
        if passed:
            self._client.send(passed)
        if deny is not None:
            self._refuse(deny)

    def on_server_lost(self) -> None:
        """Close the client's side, since the server's is gone."""
        self._over = True
        self._record()
        self._client.finish()

    def on_client_lost(self) -> None:
        """Close the server's side, since the client's is gone."""
        self._record()
        if not self._over:
            self._over = True
            self._upstream.finish()

    def _refuse(self, deny: Deny) -> None:
        """Close both sides for what was said (RFC 6455, 7.4.1: 1008 is a policy's)."""
        self._over = True
        self._client.proxy.record_content(self._request, deny)
        self._upstream.abort()
        code = _PROTOCOL_ERROR if deny.reason == "websocket_protocol" else _POLICY_VIOLATION
        self._client.send(close_frame(code, f"{deny.reason}: {deny.rule}"))
        self._client.finish()

    def _record(self) -> None:
        """Put on record, once, what went through."""
        if self._recorded:
            return
        self._recorded = True
        proxy, host = self._client.proxy, self._request.host
        if self._frames.found:
            proxy.record_event("answer", host=host, message="a credential was taken out of the answer")
        proxy.record_event("websocket", host=host, **self._frames.summary())
