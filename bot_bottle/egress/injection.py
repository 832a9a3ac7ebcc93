"""How a route's credential enters a request on its way out: in a header, or as a parameter of its query."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot_bottle.egress.routes import RouteAuth
    from bot_bottle.secret import Secret

#: Parts of a query, and what may stand between them: some servers part at ``;`` as well.
_PARTS = re.compile(rb"[&;]")
#: PHP reads ``a.b`` and ``a b`` as ``a_b``, and ``a[x]`` as a part of ``a``.
_SAME_IN_PHP = str.maketrans(". ", "__")


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """One route's credential, ready to be written.

    ``header`` is the name (lower case) of the header it goes into and ``line`` that header whole, or
    ``parameter`` the query's parameter and ``value`` what stands behind its ``=``. ``derived`` are texts made
    of the credential that open as much as it does.
    """

    header: bytes = b""
    line: bytes = field(default=b"", repr=False)
    parameter: str = ""
    value: bytes = field(default=b"", repr=False)
    derived: tuple[bytes, ...] = field(default=(), repr=False)

    def aimed(self, target: bytes) -> bytes:
        """Give a target in origin form with this parameter, and with no other one that reads like it."""
        if not self.parameter or target == b"*":
            return target
        path, _, query = target.partition(b"?")
        name = plain_name(self.parameter)
        parts = [part for part in _PARTS.split(query) if part and plain_name(_text(part)) != name]
        own = quote(self.parameter, safe="").encode("ascii") + b"=" + self.value
        return path + b"?" + b"&".join((*parts, own))


def injection(auth: RouteAuth | None, secrets: Mapping[str, Secret]) -> Injection | None:
    """Make what ``auth`` adds; ``None`` where it says nothing or its credential is missing."""
    secret = secrets.get(auth.token_ref) if auth else None
    value = secret.reveal().strip() if secret else ""
    if auth is None or not value:
        return None
    if auth.scheme == "query":
        return Injection(parameter=auth.name, value=quote(value, safe="").encode("ascii"))
    if auth.scheme == "header":
        return _in_header(auth.name, value)
    if auth.scheme == "Basic":
        # RFC 7617, 2: without a user the value is user:password whole.
        pair = f"{auth.name}:{value}" if auth.name else value
        encoded = base64.b64encode(pair.encode("latin-1")).decode("ascii")
        password = pair.partition(":")[2].encode("latin-1")
        return _in_header("Authorization", f"Basic {encoded}", derived=(encoded.encode("ascii"), password))
    return _in_header("Authorization", f"{auth.scheme} {value}")


def _in_header(name: str, value: str, *, derived: tuple[bytes, ...] = ()) -> Injection:
    return Injection(
        header=name.lower().encode("ascii"),
        line=f"{name}: {value}".encode("latin-1"),
        derived=derived,
    )


def _text(part: bytes) -> str:
    return part.partition(b"=")[0].decode("latin-1")


def plain_name(text: str) -> str:
    """Give a parameter's name as the most generous server reads it."""
    for _ in range(3):  # some decode twice
        decoded = unquote_plus(text)
        if decoded == text:
            break
        text = decoded
    return text.lstrip().partition("[")[0].partition("\0")[0].lower().translate(_SAME_IN_PHP)
