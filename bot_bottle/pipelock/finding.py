"""What a scan says: where something was found and by which rule, never the value itself."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Place: TypeAlias = Literal[
    "method", "host", "path", "query", "header", "cookie", "body", "trailer", "websocket", "file"
]

#: ``own_secret``: a value the sidecar guards. ``credential``: somebody's key by its form. ``financial``: card
#: and account numbers, wallet keys. ``opaque_token``: a value made to be unreadable where a name belongs.
#: ``opaque``: content that could not be read; the route's ``on_opaque`` decides. ``error``: the scanner broke
#: or took too long; always a refusal.
Kind: TypeAlias = Literal["own_secret", "credential", "financial", "opaque_token", "opaque", "error"]

_SHOWN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What is known of a piece of content.

    ``field`` is the header, parameter or form field, ``path`` a file's name (git gate). ``content_type`` and
    ``encoding`` are the header values of a body. With ``rules`` off (``tls_passthrough``) only the own
    secrets are looked for.
    """

    place: Place = "body"
    field: str = ""
    path: str = ""
    content_type: str = ""
    encoding: str = ""
    rules: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """A spot: the ``place`` and ``field``, the byte ``offset`` in that place's content (-1: not one spot).

    ``layers`` lists what had to be undone to see it, outermost first: ``("percent", "base64")``.
    """

    place: Place
    field: str = ""
    offset: int = -1
    layers: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.place} {self.field!r}" if self.field else self.place
        if self.layers:
            text += f" under {' and '.join(self.layers)}"
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found. ``excerpt`` is masked and safe to log, as is everything else here.

    ``value_id`` is the same for the same value in this process and says nothing about it; empty where a
    finding is no value that could be known again.
    """

    kind: Kind
    rule: str
    where: Where
    excerpt: str = ""
    message: str = ""
    value_id: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.rule} in {self.where}" + (f" ({self.excerpt})" if self.excerpt else "")


#: Without it nobody can tell a value by its id, however few values there are to try.
_KEY = os.urandom(32)


def value_id(value: bytes) -> str:
    """Give what a value is known again by."""
    return hashlib.blake2b(value, digest_size=12, key=_KEY).hexdigest()


def mask(value: bytes) -> str:
    """Show the first characters of a value long enough that they tell nothing, and its length."""
    shown = value[:_SHOWN].decode("ascii", "replace") if len(value) >= 4 * _SHOWN else ""
    printable = "".join(char if char.isprintable() else "." for char in shown)
    return f"{printable}… {len(value)} bytes"
