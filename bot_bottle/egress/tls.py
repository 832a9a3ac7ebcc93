"""The TLS contexts that egress answers with: one a host, made as hosts are asked for.

What OpenSSL must read from a path goes through an anonymous memory file, never a disk.
"""

from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bot_bottle.egress.hosts import HostError, normalise_host

if TYPE_CHECKING:
    from collections.abc import Callable

    from bot_bottle.egress.ca import CertificateAuthority

#: A leaf is made anew where the clock stands so far from when it was made, before or after.
_RENEW = timedelta(days=3)
_MAX_CONTEXTS = 256
_LOOPBACK = "127.0.0.1"


class SniSSLObject(ssl.SSLObject):
    """A TLS session that remembers the server name its client asked for (``None``: it named none)."""

    sni: str | None = None


class ServerContexts:
    """The server contexts of one bottle, held while they are in use and their leaves are fresh."""

    def __init__(
        self, ca: CertificateAuthority, *, speaks_http2: Callable[[str], bool] | None = None
    ) -> None:
        """Make leaves with ``ca``; ``speaks_http2`` says of a host whether its clients are offered HTTP/2."""
        self._ca = ca
        self._speaks_http2 = speaks_http2 or (lambda _host: False)
        self._transparent: tuple[ssl.SSLContext, datetime] | None = None
        self._contexts: OrderedDict[tuple[str, bool], tuple[ssl.SSLContext, datetime]] = OrderedDict()

    def context_for(self, host: str, *, now: datetime | None = None) -> ssl.SSLContext:
        """Give the server context with a leaf for ``host`` (normalised name or IP literal)."""
        moment = now or datetime.now(UTC)
        key = (host, self._speaks_http2(host))
        held = self._contexts.get(key)
        if held and abs(moment - held[1]) < _RENEW:
            self._contexts.move_to_end(key)
            return held[0]
        leaf = self._ca.leaf_pem(host, now=moment) + self._ca.leaf_key_pem
        context = _server_context(leaf, http2=key[1])
        self._contexts[key] = (context, moment)
        self._contexts.move_to_end(key)
        if len(self._contexts) > _MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        return context

    def transparent(self, *, now: datetime | None = None) -> ssl.SSLContext:
        """Give the context for clients that say the host only in their handshake.

        It turns into the named host's context there. Without a readable name the certificate is for the
        loopback address the client must have dialled, so that the refusal inside can be read.
        """
        moment = now or datetime.now(UTC)
        held = self._transparent
        if held and abs(moment - held[1]) < _RENEW:
            return held[0]
        context = _server_context(self._ca.leaf_pem(_LOOPBACK, now=moment) + self._ca.leaf_key_pem)
        context.sni_callback = self._choose
        self._transparent = (context, moment)
        return context

    def _choose(self, session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        if isinstance(session, SniSSLObject):
            session.sni = name
        try:
            session.context = self.context_for(normalise_host(name or _LOOPBACK))
        except (HostError, ValueError):
            session.context = self.context_for(_LOOPBACK)


def _server_context(chain_and_key: bytes, *, http2: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = SniSSLObject
    # No tickets: a resumed session could carry a name that was decided under another context.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
    context.sni_callback = _remember_sni
    fd = os.memfd_create("bot-bottle-leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, chain_and_key)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context


def _remember_sni(session: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    if isinstance(session, SniSSLObject):
        session.sni = name
