"""HTTP/2 on both sides of egress (RFC 9113), for routes that say ``http2: true``.

The `h2` library keeps the protocol's state; what it does not bound is bounded here before it sees a byte
(:mod:`~bot_bottle.egress.http2.frames`). A request becomes the lines that HTTP/1.1 would have
(:mod:`~bot_bottle.egress.http2.messages`) and is from there on an
:class:`~bot_bottle.egress.exchange.Exchange` like any other: one way to be judged, scanned, recorded and
given a credential. Only what speaks HTTP/2 imports these modules.
"""
