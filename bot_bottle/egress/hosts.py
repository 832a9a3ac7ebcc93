"""Host names as policy sees them: one spelling a name, or no name at all.

Every host that reaches the policy (CONNECT authority, SNI, Host, absolute URI, manifest) passes through
:func:`normalise_host` exactly once. Whatever could be read in two ways is refused, not guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address

#: The name that egress answers itself; it never leaves the sidecar.
EGRESS_LOCAL_HOST = "_egress.local"

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)

#: Letters that IDNA 2003 (Python's codec) and IDNA 2008 (browsers) map to different names (UTS #46, 2).
_DEVIATIONS = frozenset("\u00df\u1e9e\u03c2\u200c\u200d")

_CACHE_SIZE = 2048


class HostError(ValueError):
    """The text names no host, or more than one, depending on who reads it."""


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and the port beside it. ``port`` is ``None`` where the text gave none."""

    host: str
    port: int | None


@lru_cache(maxsize=_CACHE_SIZE)
def normalise_host(text: str) -> str:
    """Give the one spelling of a host name or IP literal.

    Names become lower case A-labels without the trailing dot; IPv4 literals in any spelling that
    ``inet_aton`` takes (``0x7f.1``, ``2130706433``, ``0177.0.0.1``) become dotted decimal; IPv6 literals,
    with or without brackets, become the RFC 5952 form without brackets. Underscores are kept, since names
    in use have them. Raises :class:`HostError` for anything else: user information, percent-encoding, NUL
    or space, ports, zone ids, empty labels, over-long names, numbers that are no address.
    """
    if ":" in text or text.startswith("["):
        return _ipv6_text(_ipv6(text))
    name = text if text.isascii() else _to_ascii(text)
    name = name.lower().removesuffix(".")
    if not name or len(name) > 253:
        raise HostError("a host name has 1 to 253 characters")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # WHATWG URL, 3.5: a name whose last label is a number is an IPv4 address or nothing.
        return str(_ipv4(labels))
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise HostError("a host name has labels of letters, digits, '-' and '_' between dots")
    return name


def is_ip_literal(host: str) -> bool:
    """Tell whether a *normalised* host is an IP address."""
    return ":" in host or (host[-1:].isdigit() and host.replace(".", "").isdigit())


def parse_authority(text: str) -> Authority:
    """Read ``host``, ``host:port``, ``[v6]`` or ``[v6]:port`` (RFC 9110, 7.2).

    Raises :class:`HostError` for user information, an empty or out-of-range port and any bad host.
    """
    if text.startswith("["):
        literal, bracket, rest = text.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise HostError("an IPv6 literal stands in brackets")
        return Authority(normalise_host(literal + "]"), _port(rest[1:]) if rest else None)
    host, colon, port = text.partition(":")
    if not host or ":" in port:
        raise HostError("an authority is a host and, after one ':', a port")
    return Authority(normalise_host(host), _port(port) if colon else None)


def format_authority(host: str, port: int | None = None) -> str:
    """Write a normalised host, and a port where one is given, as an authority."""
    text = f"[{host}]" if ":" in host else host
    return text if port is None else f"{text}:{port}"


def host_matches(pattern: str, host: str) -> bool:
    """Tell whether a route's host covers ``host``; ``*.example.com`` covers every name below example.com."""
    if pattern.startswith("*."):
        suffix = pattern[1:]
        return len(host) > len(suffix) and host.endswith(suffix) and not is_ip_literal(host)
    return host == pattern


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise HostError("a port is a number from 1 to 65535")
    return int(text)


def _to_ascii(text: str) -> str:
    if not _DEVIATIONS.isdisjoint(text):
        raise HostError("this name is spelled differently by different programs; write its xn-- form")
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise HostError("this name has no A-label form") from error


def _ipv4(labels: list[str]) -> IPv4Address:
    if len(labels) > 4:
        raise HostError("an IPv4 address has at most four parts")
    parts = [_ipv4_part(label) for label in labels]
    *leading, last = parts
    if any(part > 255 for part in leading) or last >= 256 ** (5 - len(parts)):
        raise HostError("a part of this IPv4 address is out of range")
    value = last
    for index, part in enumerate(leading):
        value += part << (8 * (3 - index))
    return IPv4Address(value)


def _ipv4_part(label: str) -> int:
    if not _NUMBER.fullmatch(label) or len(label) > 16:
        raise HostError("a host name ends in a number only if it is an IPv4 address")
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    if label.startswith("0") and len(label) > 1:
        if not all(digit in "01234567" for digit in label):
            raise HostError("an IPv4 part with a leading zero is octal")
        return int(label, 8)
    return int(label)


def _ipv6_text(address: IPv6Address) -> str:
    """Write an address the same way on every Python: 3.13 began to write v4-mapped ones with dots."""
    mapped = address.ipv4_mapped
    if mapped is None:
        return str(address)
    return f"::ffff:{int(mapped) >> 16:x}:{int(mapped) & 0xFFFF:x}"


def _ipv6(text: str) -> IPv6Address:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in bare or "[" in bare or "]" in bare:
        raise HostError("an IPv6 literal has no zone id and at most one pair of brackets")
    try:
        return IPv6Address(bare)
    except AddressValueError as error:
        raise HostError("not an IPv6 address, and no host name has a ':'") from error
