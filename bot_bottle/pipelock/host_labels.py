"""A host name judged before it is looked up: a DNS query is a message to whoever runs the zone."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from bot_bottle.pipelock.finding import Finding, Where, mask
from bot_bottle.pipelock.numbers import entropy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bot_bottle.pipelock.own_secrets import OwnSecrets

_HEX = re.compile(rb"[0-9a-f]+")
_BASE32 = re.compile(rb"[a-z2-7]+=*")
_READABLE = re.compile(rb"[\x20-\x7e]{6,}")
_VOWEL_RUN = re.compile(rb"[^aeiouy\d-]{5,}")
#: Labels of load balancers, buckets and previews carry one id of up to this many characters.
_LONGEST_ID = 32
_LONGEST_MIXED_ID = 23
_MOST_OPAQUE = 2


def judge_host(host: str, own: OwnSecrets, *, zone: str = "") -> Finding | None:
    """Judge the labels of ``host`` (an A-label name, lower case) to the left of ``zone``.

    ``zone`` is what the operator wrote (``example.com`` of ``*.example.com``); empty for a host that no route
    covers. Pure; a name that is exactly a route's needs no judging. Gives the reason against it, or ``None``.
    """
    name = host.lower().rstrip(".").encode("ascii", "replace")
    suffix = zone.lower().removeprefix("*.").rstrip(".").encode("ascii", "replace")
    labels = name.removesuffix(suffix).rstrip(b".").split(b".") if suffix else _left_of_site(name)
    labels = [label for label in labels if label]
    found = own.search(b".".join(labels)) if labels else None
    if found is not None:
        where = Where(place="host", layers=found.layers)
        return Finding(kind="own_secret", rule=f"own-secret:{found.name}", where=where)
    if sum(map(len, labels)) > 150:
        return _finding("host-too-long", b".".join(labels), "the name carries more than a name needs")
    for token in (*labels, b"".join(labels)):
        if len(token) >= 10 and any(_READABLE.fullmatch(text) for text in _meanings(token)):
            return _finding("host-encoded-label", token, "a label is an encoded text")
    opaque = [label for label in labels if _looks_random(label)]
    if len(opaque) > _MOST_OPAQUE or any(_too_long(label) for label in opaque):
        return _finding(
            "host-opaque-label", b".".join(opaque), "the labels are made of random-looking tokens"
        )
    return None


def _too_long(label: bytes) -> bool:
    """Tell an id longer than platforms give: 16 bytes in hex, 23 letters and digits otherwise."""
    parts = [part for part in label.split(b"-") if _looks_random(part)]
    return any(len(part) > (_LONGEST_ID if _HEX.fullmatch(part) else _LONGEST_MIXED_ID) for part in parts)


def _left_of_site(name: bytes) -> list[bytes]:
    return name.split(b".")[:-2]


def _meanings(token: bytes) -> Iterator[bytes]:
    """Decode a label as far as DNS lets a text through: without upper case, only hex and base32 survive."""
    if len(token) % 2 == 0 and _HEX.fullmatch(token) and not token.isdigit():
        yield bytes.fromhex(token.decode("ascii"))
    compact = token.replace(b"-", b"")
    if len(compact) >= 16 and _BASE32.fullmatch(compact) and re.search(rb"\d", compact):
        bare = compact.upper().rstrip(b"=")
        usable = len(bare) - {1: 1, 3: 1, 6: 1}.get(len(bare) % 8, 0)
        try:
            yield base64.b32decode(bare[:usable] + b"=" * (-usable % 8))
        except binascii.Error:
            return


def _looks_random(label: bytes) -> bool:
    """Tell a label that nobody would say aloud."""
    if label.startswith(b"xn--") or len(label) < 8:
        return False
    if _HEX.fullmatch(label) and not label.isalpha():
        return True
    digits = sum(48 <= byte <= 57 for byte in label)
    if len(label) < 16 or digits < 3:
        return False
    changes = len(re.findall(rb"(?<=[a-z])\d|(?<=\d)[a-z]", label))
    pronounceable = not _VOWEL_RUN.search(label) and changes < 4
    return entropy(label) >= 3.4 and not pronounceable and changes >= 3


def _finding(rule: str, token: bytes, message: str) -> Finding:
    return Finding(
        kind="opaque_token", rule=rule, where=Where(place="host"), excerpt=mask(token), message=message
    )
