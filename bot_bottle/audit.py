"""The audit log: one JSON line a decision, hash-chained, without secrets.

Each line holds ``seq`` (from 0), ``time`` (UTC, RFC 3339), ``event``, the event's fields, ``prev`` (the
previous line's ``hash``, 64 zeros for the first) and ``hash``: the SHA-256 of the line's canonical JSON
(sorted keys, no spaces, ASCII) without ``hash`` itself. A changed, dropped, added or reordered line breaks
the chain. A clean end writes an ``end`` event, so a log cut short is told from one that is whole.
"""
