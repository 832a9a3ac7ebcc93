"""A host name judged before it is looked up: a DNS query is a message to whoever runs the zone."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from bot_bottle.pipelock.finding import Finding, Where, mask
from bot_bottle.pipelock.numbers import entropy, is_card_number

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
#: Reversed IPv4 addresses have four, with a port or an id beside them.
_MOST_NUMBERS = 5
_TURNS = re.compile(rb"(?<=[a-z])\d|(?<=\d)[a-z]")
_MANY_TURNS = 6
#: In small letters: AWS key ids, GitHub's tokens, the head of a web token.
_KEY = re.compile(
    rb"a[ks]ia(?=[a-z]{0,15}\d)[a-z0-9]{16}|\bgh[oprsu][_-]?(?=[a-z]{0,35}\d)[a-z0-9]{34,36}\b|^eyj[a-z0-9_]{12,}"
)
_NAMED_KEY = re.compile(rb"(?:secret|password|passwd|token|api-?key|access-?key)[a-z-]{0,12}-[a-z0-9]{20,}")


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
    if len([label for label in labels if _is_short_text(label)]) > 1:
        return _finding("host-encoded-label", b".".join(labels), "the labels are an encoded text")
    if (key := _key_shaped(labels)) is not None:
        return _finding("host-encoded-label", key, "the labels have the form of a credential")
    if _are_numbers(labels):
        return _finding("host-opaque-label", b".".join(labels), "the labels are numbers")
    opaque = [label for label in labels if _looks_random(label)]
    patched = [label for label in opaque or labels if _is_patched(label)]
    if len(opaque) > _MOST_OPAQUE or len(patched) > 1 or any(_too_long(label) for label in opaque):
        return _finding(
            "host-opaque-label", b".".join(opaque), "the labels are made of random-looking tokens"
        )
    return None


def _too_long(label: bytes) -> bool:
    """Tell an id longer than platforms give: 16 bytes in hex, 23 letters and digits otherwise."""
    parts = [part for part in label.split(b"-") if _looks_random(part)]
    return any(len(part) > (_LONGEST_ID if _HEX.fullmatch(part) else _LONGEST_MIXED_ID) for part in parts)


def _is_short_text(label: bytes) -> bool:
    """Tell a label of few hex digits that spells letters; two by chance are one in a hundred thousand."""
    if not 6 <= len(label) <= 32 or len(label) % 2 or not _HEX.fullmatch(label) or label.isalpha():
        return False
    return bytes.fromhex(label.decode("ascii")).isalnum()


def _key_shaped(labels: list[bytes]) -> bytes | None:
    """Give what looks like a key in the small letters that a name allows, also over several labels."""
    for token in (*labels, b"".join(labels).replace(b"-", b"")):
        if _KEY.search(token) is not None:
            return token
    return next((label for label in labels if _NAMED_KEY.search(label)), None)


def _are_numbers(labels: list[bytes]) -> bool:
    """Tell a card's number, or letters by their numbers: more of them than an address has."""
    numbers = [label for label in labels if label.isdigit()]
    return len(numbers) > _MOST_NUMBERS or any(len(one) > 12 and is_card_number(one) for one in numbers)


def _is_patched(label: bytes) -> bool:
    """Tell a label whose letters and digits take turns, as no name's do."""
    return len(label) >= 10 and b"-" not in label and len(_TURNS.findall(label)) >= _MANY_TURNS


def _left_of_site(name: bytes) -> list[bytes]:
    return name.split(b".")[:-2]


def _meanings(token: bytes) -> Iterator[bytes]:
    """Decode a label as far as DNS lets a text through: without upper case, only hex and base32 survive."""
    if len(token) % 2 == 0 and _HEX.fullmatch(token) and not token.isdigit():
        yield bytes.fromhex(token.decode("ascii"))
    compact = token.replace(b"-", b"")
    if compact != token and len(compact) % 2 == 0 and _HEX.fullmatch(compact) and not compact.isdigit():
        yield bytes.fromhex(compact.decode("ascii"))
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
    changes = len(_TURNS.findall(label))
    pronounceable = not _VOWEL_RUN.search(label) and changes < 4
    return entropy(label) >= 3.4 and not pronounceable and changes >= 3


def _finding(rule: str, token: bytes, message: str) -> Finding:
    return Finding(
        kind="opaque_token", rule=rule, where=Where(place="host"), excerpt=mask(token), message=message
    )
