"""What stands for a credential inside the bottle, recognised where it is on its way to another host.

It opens nothing, so nothing is lost; but whoever sends it elsewhere took it for the credential, and that is
worth a refusal on record. Bodies are the content rules' to judge: a placeholder is named there in good faith.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bot_bottle.egress.request import EgressRequest
    from bot_bottle.egress.routes import EgressRoute

_NONE: frozenset[str] = frozenset()


class Placeholders:
    """The placeholders of one route table, by the variable whose credential each stands for."""

    __slots__ = ("_forms",)

    def __init__(self, routes: Iterable[EgressRoute]) -> None:
        found = {
            (text, route.auth.token_ref) for route in routes if route.auth for text in route.auth.placeholders
        }
        self._forms = tuple(
            (form, ref) for text, ref in sorted(found) for form in _forms(text.encode("utf-8"))
        )

    def __bool__(self) -> bool:
        return bool(self._forms)

    def seen(self, text: bytes) -> frozenset[str]:
        """Give the variables whose placeholders stand in ``text``: in clear, percent, base64 or hex."""
        if not self._forms:
            return _NONE
        if b"%" in text:
            # Both, since a percent sign may also be the placeholder's own.
            text += b"\n" + unquote_plus(unquote_plus(text.decode("latin-1"))).encode("utf-8")
        return frozenset(ref for form, ref in self._forms if form in text)

    def noted(self, request: EgressRequest, block: bytes) -> EgressRequest:
        """Give ``request`` with the placeholders that stand in its header lines."""
        seen = self.seen(block)
        return request._replace(placeholders=seen) if seen else request


def _forms(text: bytes) -> set[bytes]:
    forms = {text, text.hex().encode("ascii")}
    for offset in range(3):  # Basic credentials, whatever the user's name (RFC 7617, 2)
        digits = base64.b64encode(b"\0" * offset + text)[-(-8 * offset // 6) : 8 * (offset + len(text)) // 6]
        forms |= {digits, digits.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms
